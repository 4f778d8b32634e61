"""ClientConnection: the connection that a client has opened, and the pings that measure it.

What holds for both sides is ws_bridge's Connection. Made by ClientWebSocket.
"""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter  # uvloop's clock knows milliseconds only
from typing import TYPE_CHECKING, Final

import anyio

from hubbub.ws_bridge.connection import Connection

if TYPE_CHECKING:
    from hubbub.exceptions import ClientDisconnected
    from hubbub.wire.events import Pong
    from hubbub.wire.protocol import Protocol
    from hubbub.ws_bridge.config import Config
    from hubbub.ws_bridge.transport import Transport
    from hubbub.ws_bridge.writer import Helper

__all__ = ("ClientConnection",)

_LAST_WORDS: Final = 1.0  # seconds for a close frame to leave, when nobody waits for its answer


class ClientConnection(Connection):
    """A connection to a server.

    Attributes:
        latency: the round trip of the last ping that was answered, in seconds; None before.
    """

    __slots__ = ("_number", "_pings", "latency")

    def __init__(
        self, transport: Transport, protocol: Protocol, config: Config, helper: Helper
    ) -> None:
        super().__init__(transport, config, helper)
        self.reading = False
        self.latency: float | None = None
        self._pings: dict[bytes, _Ping] = {}  # those that are not answered, in their order
        self._number = 0
        self._begin(protocol)

    @property
    def end(self) -> ClientDisconnected | None:
        """How it has ended; None while it lasts."""
        return self._disconnected() if self.closed else None

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        self._send_ping()

    async def measure(self) -> float:
        """Send a ping and wait for its pong.

        Returns:
            The seconds in between.

        Raises:
            ClientDisconnected: if the connection ends before.
        """
        if self.closed:
            raise self._disconnected()
        ping = self._send_ping()
        if not self.reading:
            self.send_stand_in()
        try:
            await ping.over.wait()
        finally:
            self._pings.pop(ping.payload, None)
        if ping.seconds is None:
            raise self._disconnected()
        return ping.seconds

    def _send_ping(self) -> _Ping:
        assert self._protocol is not None
        self._number += 1
        payload = self._number.to_bytes(8, "big")
        ping = self._pings[payload] = _Ping(payload)
        self.writer.write(self._protocol.send_ping(payload))
        return ping

    def _meet_pong(self, pong: Pong) -> None:
        """Wake who waits; a pong also answers the pings before its own (RFC 6455 §5.5.3)."""
        if pong.payload not in self._pings:
            return  # one that nobody asked for
        now = perf_counter()
        for payload in [number for number in self._pings if number <= pong.payload]:
            ping = self._pings.pop(payload)
            ping.seconds = self.latency = now - ping.sent
            ping.over.set()

    def _end(self, code: int, reason: str) -> None:
        super()._end(code, reason)
        for ping in self._pings.values():
            ping.over.set()
        self._pings.clear()

    def _finish(self) -> None:
        """Leave the socket to the server, which closes it first (RFC 6455 §7.1.1)."""

    async def part(self) -> None:
        """Wait for the end, when a close frame was sent or received; ``close_timeout`` at most.

        When cancelled, what was sent may still leave, but the peer is not waited for.
        """
        try:
            with anyio.move_on_after(self._config.close_timeout):
                await self.conclude()
        except anyio.get_cancelled_exc_class():
            if not self.writer.draining:  # else the peer does not read, and nothing would help
                with anyio.move_on_after(_LAST_WORDS, shield=True):
                    with suppress(anyio.ClosedResourceError):
                        await self.transport.wait_writable()
            raise


class _Ping:
    """One ping, and how long its pong took."""

    __slots__ = ("over", "payload", "seconds", "sent")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.sent = perf_counter()
        self.over = anyio.Event()
        self.seconds: float | None = None
