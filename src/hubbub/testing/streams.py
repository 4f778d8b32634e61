"""Byte streams for tests: a pair in memory, and one that injects faults into another.

No WebSocket lives here; whatever is made of bytes can be tested with these. Used by WireClient
and by tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from hubbub.testing.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ("FaultyStream", "MemoryStream", "memory_streams")


def memory_streams(capacity: int = 64 * 1024) -> tuple[MemoryStream, MemoryStream]:
    """Make the two ends of a connection in memory.

    Args:
        capacity: how many bytes may be on their way, in each direction, before whoever sends
            has to wait.

    Raises:
        ValueError: if it is not at least 1.
    """
    if capacity < 1:
        raise ValueError(f"Expected a capacity of at least 1 byte, got {capacity}")
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(there, back), MemoryStream(back, there)


class MemoryStream(ByteStream):
    """One end of a connection in memory, which behaves as one of TCP does.

    Sends wait while the other end does not read; one that is cancelled may have sent a part.

    Attributes:
        closed: whether this end was closed, or the connection broken.
    """

    def __init__(self, outgoing: _Pipe, incoming: _Pipe) -> None:
        self.closed = False
        self._outgoing = outgoing
        self._incoming = incoming

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive the next bytes, at most so many."""
        await self._checkpoint()
        return await self._incoming.take(max_bytes)

    async def send(self, item: bytes) -> None:
        """Send bytes, as the other end reads."""
        await self._checkpoint()
        await self._outgoing.put(item)

    async def send_eof(self) -> None:
        """Close the sending side."""
        await self._checkpoint()
        self._outgoing.end()

    async def aclose(self) -> None:
        """Close this end: what was sent still arrives."""
        self.closed = True
        self._outgoing.end()
        self._incoming.break_off()
        await checkpoint()

    def abort(self) -> None:
        """Break the connection: what was sent is lost, and both ends fail at once."""
        self.closed = True
        self._outgoing.break_off()
        self._incoming.break_off()

    async def _checkpoint(self) -> None:
        await checkpoint()
        if self.closed:
            raise anyio.ClosedResourceError


class _Pipe:
    """One direction: a bounded number of bytes on their way."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bytes = bytearray()
        self._ended = False  # by whoever sends
        self._broken = False
        self._changed = anyio.Event()

    async def put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            while len(self._bytes) >= self._capacity and not self._broken:
                await self._changed.wait()
            if self._broken or self._ended:
                raise anyio.BrokenResourceError
            room = self._capacity - len(self._bytes)
            self._bytes += rest[:room]
            rest = rest[room:]
            self._change()

    async def take(self, max_bytes: int) -> bytes:
        while not self._bytes:
            if self._broken:
                raise anyio.BrokenResourceError
            if self._ended:
                raise anyio.EndOfStream
            await self._changed.wait()
        data = bytes(self._bytes[:max_bytes])
        del self._bytes[:max_bytes]
        self._change()
        return data

    def end(self) -> None:
        self._ended = True
        self._change()

    def break_off(self) -> None:
        self._broken = True
        self._bytes.clear()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class FaultyStream(ByteStream):
    """A byte stream that does to another one what networks do.

        client, server = memory_streams()
        client = FaultyStream(client, split=1)  # every byte comes alone, and goes alone

    It breaks with ``anyio.BrokenResourceError``, as streams whose peer has vanished do.

    Attributes:
        pace: how fast it receives.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        split: int | None = None,
        delay: float = 0,
        cut_after: int | None = None,
    ) -> None:
        """Inject faults into a stream.

        Args:
            stream: any byte stream.
            split: how many bytes pass at once, in each direction; None for no limit.
            delay: seconds before each such piece passes.
            cut_after: how many bytes are received before the connection breaks; None for all.

        Raises:
            ValueError: if ``split`` is below 1, or one of the others below 0.
        """
        if (split is not None and split < 1) or delay < 0 or (cut_after or 0) < 0:
            raise ValueError("Expected to split at 1 byte or more, and no negative numbers")
        self._stream = stream
        self._split = split
        self._delay = delay
        self._left = cut_after
        self.pace = Pace()
        self._owed = 0  # bytes of the last piece, which takes its time before the next
        self._broken = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive the next piece; nothing is lost when it is cancelled."""
        await self.pace.wait(max(self._owed, 1))
        self._owed = 0
        await self._pass()
        if self._left == 0:
            await self.abort()
            raise anyio.BrokenResourceError
        limits = [limit for limit in (max_bytes, self._split, self._left) if limit is not None]
        try:
            data = await self._stream.receive(min(limits))
        except anyio.ClosedResourceError:
            self._require_whole()
            raise
        self._owed = len(data)
        if self._left is not None:
            self._left -= len(data)
        return data

    async def send(self, item: bytes) -> None:
        """Send piece by piece; a part may be out when it is cancelled."""
        size = self._split or len(item)
        for start in range(0, len(item), size):
            await self._pass()
            await self._stream.send(item[start : start + size])

    async def send_eof(self) -> None:
        """Close the sending side, and go on receiving."""
        await self._pass()
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the stream."""
        self.pace.resume()
        await self._stream.aclose()

    def stall(self) -> None:
        """Receive nothing more, so that the other end cannot send when all buffers are full."""
        self.pace.stall()

    def resume(self) -> None:
        """Receive as fast as it comes."""
        self.pace.resume()

    def read_slowly(self, bytes_per_second: float) -> None:
        """Receive so many bytes in a second.

        Raises:
            ValueError: if that is not above 0.
        """
        self.pace.read_slowly(bytes_per_second)

    async def abort(self) -> None:
        """Break the connection: whoever uses this end fails, the other end finds it closed."""
        self._broken = True
        self.pace.resume()
        await anyio.aclose_forcefully(self._stream)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the stream."""
        return self._stream.extra_attributes

    async def _pass(self) -> None:
        """Wait for the delay of a piece."""
        self._require_whole()
        if self._delay:
            await anyio.sleep(self._delay)

    def _require_whole(self) -> None:
        if self._broken:
            raise anyio.BrokenResourceError
