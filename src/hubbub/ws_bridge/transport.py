"""Transport: a peer's bytes as non-blocking tries, and waiting for the next one to be worth it.

There are two kinds: ``socket_transport``, over a socket of our own, and ``stream_transport``, over
any byte stream. What the bytes mean is not known here. Used by connection and its writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from hubbub.ws_bridge.scope import Endpoint

__all__ = ("CHUNK", "Transport", "send_some")

# Bytes that are received at once: just less than what malloc maps from the system, and gives back,
# each time, which is dearer than the system call.
CHUNK: Final = 127 * 1024


class Transport(Protocol):
    """One peer's bytes, both ways.

    ``try_*`` never wait. Whatever the world does to a connection looks like its end: ``b""``
    when receiving, ``OSError`` when sending. Only one task at a time may wait in each
    direction; ``close`` wakes both.
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
        """Take what has come, at most CHUNK; ``b""`` at the end, None when there is nothing."""
        ...

    async def wait_readable(self) -> None:
        """Wait until ``try_receive`` may have something; ``ClosedResourceError`` after ``close``."""
        ...

    def wake(self) -> None:
        """Let ``wait_readable`` return, although nothing has come."""
        ...

    def try_send(self, data: bytes | memoryview, /) -> int:
        """Send what can be sent now; return how much of it, as a non-blocking socket does.

        Raises:
            BlockingIOError: if that is nothing.
            OSError: if nothing can be sent any more.
        """
        ...

    async def wait_writable(self) -> None:
        """Wait until ``try_send`` may take some; ``ClosedResourceError`` after ``close``."""
        ...

    def send_eof(self) -> None:
        """Tell the peer that nothing more comes, after what was sent."""
        ...

    def finish(self) -> None:
        """Close, after what was sent."""
        ...

    def close(self) -> None:
        """Close now, whatever is still on its way. Closing twice does nothing."""
        ...

    def abort(self) -> None:
        """Close now, and forget what the peer does not read."""
        ...


def send_some(transport: Transport, data: memoryview) -> int:
    """Send what can be sent now; return how much of it, perhaps 0.

    Raises:
        OSError: if nothing can be sent any more.
    """
    try:
        return transport.try_send(data)
    except BlockingIOError:
        return 0
