"""Writer: what one connection has to send, from the frame to the transport.

Whole frames come in, in their order; the socket is tried first, and what it does not take waits
here, bounded as long as senders heed ``has_room``. No frame is built here. Used by connection.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from hubbub.ws_bridge.transport import send_some

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hubbub.ws_bridge.transport import Transport

__all__ = ("Helper", "Writer")

_HIGH_WATER: Final = 64 * 1024  # bytes that may wait before senders have to
_MAX_CORKED: Final = 64 * 1024  # bytes that are held back for the sake of one system call


class Helper(Protocol):
    """Does for a connection what its application's task cannot."""

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start a task; what it raises harms nobody else."""
        ...

    def mark(self, writer: Writer) -> None:
        """Call the writer's ``flush`` within this turn of the loop."""
        ...


class Writer:
    """The outbox of a connection, and its drain.

    The application's cancellation does not reach it: what it has taken is sent whole, or the
    connection is over.

    Attributes:
        sent: how many bytes the transport has taken; a change is progress.
        broken: whether nothing can be sent any more.
        draining: whether something waits here, because the transport did not take it.
    """

    __slots__ = (
        "_corked",
        "_corked_size",
        "_helper",
        "_last",
        "_pong",
        "_progress",
        "_rest",
        "_transport",
        "_try_send",
        "broken",
        "draining",
        "sent",
    )

    def __init__(self, transport: Transport, helper: Helper) -> None:
        """Make an empty outbox.

        Args:
            transport: what takes the bytes.
            helper: starts the drain, a task that lasts while there is a backlog, and flushes
                what is corked.
        """
        self._transport = transport
        self._try_send = transport.try_send
        self._helper = helper
        self._corked: list[bytes] = []
        self._corked_size = 0
        self._rest: memoryview | None = None  # of what the transport did not take whole
        self._pong = b""
        self._last: Callable[[], None] | None = None
        self._progress: anyio.Event | None = None
        self.sent = 0
        self.broken = False
        self.draining = False

    @property
    def has_room(self) -> bool:
        """Whether another message may come in."""
        return not self.draining or self._corked_size < _HIGH_WATER

    @property
    def unsent(self) -> bool:
        """Whether something waits for the peer to read."""
        return self.draining or self._transport.unsent

    def try_write(self, frame: bytes) -> bool:
        """Write a frame, unless something waits for the peer, or the peer is known to be gone.

        Returns:
            Whether it did.
        """
        if self._corked_size:
            self.flush()
        if self.draining or self.broken:
            return False
        try:
            taken = self._try_send(frame)
        except BlockingIOError:
            taken = 0
        except OSError:
            self.broken = True
            return False
        self.sent += taken
        if taken < len(frame):
            self._rest = memoryview(frame)[taken:]
            self.draining = True
            self._helper.start(self._drain)
        return True

    def write(self, frame: bytes) -> None:
        """Send a frame now, after what waits; its rest is sent when there is room."""
        if self._corked or self.draining:
            self._corked.append(frame)
            self._corked_size += len(frame)
            self.flush()
        else:
            self.try_write(frame)

    def cork(self, frame: bytes) -> None:
        """Send a frame soon, together with those that follow within this turn."""
        if not self._corked:
            self._helper.mark(self)
        self._corked.append(frame)
        self._corked_size += len(frame)
        if self._corked_size > _MAX_CORKED:
            self.flush()

    def write_pong(self, frame: bytes) -> None:
        """Send a pong; of several that cannot be sent yet, only the newest (RFC 6455 §5.5.3)."""
        if self.draining:
            self._pong = frame
        else:
            self.cork(frame)

    def flush(self) -> None:
        """Send what is corked."""
        if self._corked and not self.draining:
            self.try_write(self._take())

    def finish(self, last: Callable[[], None]) -> None:
        """Do one last thing to the transport when all is sent; now, if it is already."""
        self.flush()
        if self.draining:
            self._last = last
        else:
            last()

    async def wait_room(self) -> None:
        """Wait until ``has_room``, or ``broken``."""
        while not self.has_room:
            await self._wait_progress()

    async def wait_drained(self) -> None:
        """Wait until nothing waits here, or ``broken``."""
        while self.draining:
            await self._wait_progress()

    async def _wait_progress(self) -> None:
        if self._progress is None:
            self._progress = anyio.Event()
        await self._progress.wait()

    def _take(self) -> bytes:
        corked = self._corked
        data = corked[0] if len(corked) == 1 else b"".join(corked)
        self._corked = []
        self._corked_size = 0
        return data

    async def _drain(self) -> None:
        """Send what waits, until nothing does."""
        try:
            with suppress(OSError, anyio.ClosedResourceError):
                while self._rest is not None:
                    await self._transport.wait_writable()
                    taken = send_some(self._transport, self._rest)
                    self.sent += taken
                    self._rest = self._rest[taken:] if taken < len(self._rest) else self._next()
                    self._tell_progress()
        finally:
            # Cancelled, too: what came after half a frame would be taken for its other half.
            self.broken = self._rest is not None
            self._rest = None
            self.draining = False
            self._take()
            self._tell_progress()
        if self._last is not None:
            self._last()

    def _next(self) -> memoryview | None:
        if self._pong:
            self._corked.append(self._pong)
            self._pong = b""
        return memoryview(self._take()) if self._corked else None

    def _tell_progress(self) -> None:
        if self._progress is not None:
            self._progress.set()
            self._progress = None
