"""Calls: requests to a peer, each of which waits for the answer that carries its id.

Ids, who waits for which, and the end of all waiting. It knows no connection: it is given a
way to send, and is shown the answers that came. Used by whoever reads a connection's messages.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from hubbub.codecs.envelope import ERROR, REPLY
from hubbub.codecs.payload import PayloadType
from hubbub.exceptions import DecodeError, RouterError, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hubbub.codecs.envelope import Codec, Envelope
    from hubbub.types import Data

__all__ = ("CALL_TIMEOUT", "Calls", "NoAnswer")

CALL_TIMEOUT: Final = 30.0  # seconds


class NoAnswer(RouterError, TimeoutError):
    """The peer has not answered a request in time.

    A handler that lets it pass has its own message answered with ``timeout``.
    """

    def __init__(self, type: str) -> None:
        super().__init__("timeout", f"Expected an answer to {type!r} in time")


class _Error(msgspec.Struct):
    code: str
    message: str = ""
    details: list[Any] = []


_ANYTHING: Final = PayloadType(Any)
_ERROR: Final = PayloadType(_Error)


class _Call:
    __slots__ = ("answer", "over", "type")

    def __init__(self, type: str) -> None:
        self.type = type
        self.over = anyio.Event()
        self.answer: Envelope | None = None


class Calls:
    """The requests on one connection that wait for their answers."""

    __slots__ = ("_codec", "_end", "_ids", "_on_wait", "_send", "_waiting")

    def __init__(
        self,
        send: Callable[[Data], Awaitable[None]],
        codec: Codec,
        *,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Make calls possible.

        Args:
            send: sends a message to the peer; raises ``WebSocketDisconnect`` when it is gone.
            codec: the form of the envelopes.
            on_wait: called when a call begins to wait: from now on somebody has to read.
        """
        self._send = send
        self._codec = codec
        self._on_wait = on_wait
        self._ids = count(1)
        self._waiting: dict[object, _Call] = {}
        self._end: tuple[int, str] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def request(self, type: str, payload: Any, *, timeout: float | None) -> Any:
        """Ask the peer, and wait for its answer.

        Returns:
            The payload of its reply; of several, the first one's.

        Raises:
            DecodeError: if the answer's payload cannot be decoded.
            NoAnswer: if there is none in time; a ``TimeoutError``.
            RouterError: if the answer is an error.
            TypeError: if the payload cannot be encoded.
            WebSocketDisconnect: if the connection is over, or ends before there is one.
        """
        if self._end is not None:
            raise self._ended()
        id = f"call-{next(self._ids)}"
        message = self._codec.encode(type, payload, id)
        call = self._waiting[id] = _Call(type)
        self._on_wait()
        try:
            with anyio.move_on_after(timeout):
                await self._send(message)
                await call.over.wait()
        finally:
            self._waiting.pop(id, None)
        if not call.over.is_set():
            raise NoAnswer(type)
        if call.answer is None:
            raise self._ended()
        return self._open(call.answer)

    def settle(self, envelope: Envelope) -> bool:
        """Give an answer to the call that waits for it; False if none does."""
        call = self._waiting.get(envelope.id)
        if call is None or envelope.type not in (call.type + REPLY, ERROR):
            return False
        del self._waiting[envelope.id]
        call.answer = envelope
        call.over.set()
        return True

    def end(self, code: int, reason: str) -> None:
        """Let all that wait, and all that come, fail with ``WebSocketDisconnect``."""
        self._end = (code, reason)
        for call in self._waiting.values():
            call.over.set()

    def _ended(self) -> WebSocketDisconnect:
        assert self._end is not None
        return WebSocketDisconnect(*self._end)

    def _open(self, answer: Envelope) -> Any:
        is_error = answer.type == ERROR
        try:
            payload = self._codec.decode_payload(answer, _ERROR if is_error else _ANYTHING)
        except RouterError as error:
            raise DecodeError(f"Expected an answer that can be decoded: {error}") from error
        if is_error:
            raise RouterError(payload.code, payload.message, payload.details)
        return payload
