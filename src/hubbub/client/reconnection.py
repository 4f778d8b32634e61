"""reconnecting: one connection after the other, for as long as that makes sense.

When to come back and when to give up; how a connection is made is connect's. Called by whoever
wants to stay connected.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Self

import anyio

from hubbub.backoff import Backoff
from hubbub.client.connecting import connect
from hubbub.exceptions import HandshakeError, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from yarl import URL

    from hubbub.client.connecting import ConnectOptions
    from hubbub.client.websocket import ClientWebSocket

__all__ = ("ReconnectEvent", "ReconnectState", "is_final", "reconnecting")

_BACKOFF: Final = Backoff()
# "Come back later", of the 4xx: request timeout, too early, too many requests.
_LATER: Final = frozenset({408, 425, 429})
# Unsupported data, policy violation, mandatory extension: the same would happen again.
_FINAL_CODES: Final = frozenset({1003, 1008, 1010})


class ReconnectState(Enum):
    """What ``reconnecting`` is doing."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    GIVING_UP = "giving up"


@dataclass(frozen=True, slots=True)
class ReconnectEvent:
    """What ``on_state`` is told.

    Attributes:
        state: what it does now.
        failures: how many attempts, or short-lived connections, have failed in a row.
        delay: how long it waits, in seconds; 0 unless ``WAITING``.
        error: what ended the last connection or attempt; None when there was none, or when
            we closed it ourselves.
    """

    state: ReconnectState
    failures: int
    delay: float = 0.0
    error: Exception | None = None


def is_final(error: Exception) -> bool:
    """Tell whether it makes no sense to reconnect after an error; the default of ``reconnecting``.

    Final are: a response of 4xx (except 408, 425 and 429) or one that is neither 101 nor an
    error, a 101 that is not valid, a certificate that is not trusted, and the close codes 1003,
    1008 and 1010.
    """
    if isinstance(error, HandshakeError):
        status = error.status
        return status is not None and status < 500 and status not in _LATER
    if isinstance(error, WebSocketDisconnect):
        return error.code in _FINAL_CODES
    return isinstance(error, ssl.SSLCertVerificationError)


class reconnecting:
    """Stay connected: one WebSocket after the other.

    ::

        async for ws in reconnecting(url):
            async with ws:
                async for text in ws:
                    ...

    Each ``ws`` is open already, and works inside ``async with``. When the server leaves, its
    ``WebSocketDisconnect`` ends that block but not the loop, which goes on with the next
    connection; so it does when the block ends by itself. ``break`` ends the loop.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        backoff: Backoff = _BACKOFF,
        final: Callable[[Exception], bool] = is_final,
        on_state: Callable[[ReconnectEvent], None] | None = None,
        **options: Unpack[ConnectOptions],
    ) -> None:
        """Say where to and how; nothing is sent before the loop.

        The loop raises the error that is final, as it is: a ``HandshakeError``, an ``OSError`` or
        a ``WebSocketDisconnect``.

        Args:
            url: as for ``connect``.
            backoff: the delays between attempts. They start over after a connection that has
                lasted longer than the last of them.
            final: told what ended an attempt (``HandshakeError``, ``OSError`` with its
                ``TimeoutError``) or a connection (``WebSocketDisconnect``); returns whether to
                give up.
            on_state: called with a ``ReconnectEvent`` at each change of state.
            options: those of ``connect``, except ``stream``.

        Raises:
            ValueError: as ``connect`` does, or if a stream is given.
        """
        if options.get("stream") is not None:
            raise ValueError("Expected no stream: it is over with its first connection")
        self._connect = connect(url, **options)
        self._backoff = backoff
        self._final = final
        self._on_state = on_state
        self._ws: ClientWebSocket | None = None
        self._began = 0.0
        self._failures = 0
        self._delay = 0.0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ClientWebSocket:
        error: Exception | None = None
        waiting = self._ws is not None
        if self._ws is not None:
            error = await self._take_leave(self._ws)
        while True:
            if waiting:
                await self._wait(error)
            self._tell(ReconnectState.CONNECTING)
            try:
                self._ws = await self._connect.open(expendable=True)
            except (HandshakeError, OSError) as failure:
                error, waiting = failure, True
                continue
            self._began = anyio.current_time()
            self._tell(ReconnectState.CONNECTED)
            return self._ws

    async def _take_leave(self, ws: ClientWebSocket) -> WebSocketDisconnect | None:
        self._ws = None
        await ws.abandon()
        if anyio.current_time() - self._began > self._delay:
            self._failures = 0
        return ws.loss

    async def _wait(self, error: Exception | None) -> None:
        if error is not None and self._final(error):
            self._tell(ReconnectState.GIVING_UP, error=error)
            raise error
        self._failures += 1
        self._delay = self._backoff.delay(self._failures)
        self._tell(ReconnectState.WAITING, self._delay, error)
        await anyio.sleep(self._delay)

    def _tell(
        self, state: ReconnectState, delay: float = 0.0, error: Exception | None = None
    ) -> None:
        if self._on_state is not None:
            self._on_state(ReconnectEvent(state, self._failures, delay, error))
