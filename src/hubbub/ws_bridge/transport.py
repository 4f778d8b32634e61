"""Transport: a peer's bytes, by non-blocking attempts and waits until one is worthwhile.

There are two kinds: ``socket_transport``, over a socket of our own, and ``stream_transport``, over
any byte stream. What the bytes mean is not known here. Used by connection and its writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from hubbub.ws_bridge.scope import Endpoint

__all__ = ("CHUNK", "Transport", "send_some")

# Bytes that are received at once: just less than what malloc would map from the system, and give
# back, each time, which costs more than the system call.
CHUNK: Final = 127 * 1024


class Transport(Protocol):
    """One peer's bytes, both ways.

    ``try_*`` never wait. Any failure of the connection looks like its end: ``b""`` when
    receiving, ``OSError`` when sending. Only one task at a time may wait in each direction;
    ``close`` wakes both.
    """

    client: Endpoint
    server: Endpoint
    secure: bool
    closed: bool

    @property
    def unsent(self) -> bool:
        """Whether bytes that were taken by ``try_send`` are still held here."""
        ...

    def try_receive(self) -> bytes | None:
        """Take received bytes, at most CHUNK; ``b""`` at the end, None when there are none."""
        ...

    async def wait_readable(self) -> None:
        """Wait until ``try_receive`` may take some; ``ClosedResourceError`` after ``close``."""
        ...

    def wake(self) -> None:
        """Let ``wait_readable`` return, although nothing was received."""
        ...

    def try_send(self, data: bytes | memoryview, /) -> int:
        """Send what can be sent now; return how many bytes, as a non-blocking socket does.

        Raises:
            BlockingIOError: if nothing can be sent now.
            OSError: if nothing can be sent any more.
        """
        ...

    async def wait_writable(self) -> None:
        """Wait until ``try_send`` may take some; ``ClosedResourceError`` after ``close``."""
        ...

    def send_eof(self) -> None:
        """Close the sending side, after what was sent."""
        ...

    def finish(self) -> None:
        """Close, after what was sent."""
        ...

    def close(self) -> None:
        """Close now, whatever is still on its way. Closing twice does nothing."""
        ...

    def abort(self) -> None:
        """Close now, and discard what the peer has not read."""
        ...


def send_some(transport: Transport, data: memoryview) -> int:
    """Send what can be sent now; return how many bytes, perhaps 0.

    Raises:
        OSError: if nothing can be sent any more.
    """
    try:
        return transport.try_send(data)
    except BlockingIOError:
        return 0
