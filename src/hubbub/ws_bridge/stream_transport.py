"""StreamTransport: a transport over any ``ByteStream`` of anyio: TLS, UNIX, memory.

What the bytes mean is not known here. Used by server and by the client.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from hubbub._tasks import create_task_group
from hubbub._wakeup import Wakeup
from hubbub.ws_bridge.scope import endpoint
from hubbub.ws_bridge.transport import CHUNK

if TYPE_CHECKING:
    from anyio.abc import ByteStream

__all__ = ("StreamTransport",)

# How a stream says that it is over. On TLS, a send may raise EndOfStream, too.
_ENDS: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
)


class StreamTransport:
    """Any byte stream, with a task that reads ahead of us and one that writes behind us.

    The stream's own ``receive`` and ``send`` are called by those two tasks only, and only the
    caller of ``run`` can cancel these: so nothing ever follows half a frame.
    """

    __slots__ = (
        "_chunks",
        "_feed",
        "_finishing",
        "_head",
        "_outgoing",
        "_scope",
        "_stream",
        "_taken",
        "_wakeup",
        "client",
        "closed",
        "secure",
        "server",
    )

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._feed, self._chunks = anyio.create_memory_object_stream[bytes | None](1)
        self._head: bytes | None = None
        self._outgoing: bytes | memoryview = b""
        self._finishing = ""
        self._wakeup = Wakeup()  # for the writer
        self._taken = anyio.Event()  # set by the writer when there is room again
        self._scope = anyio.CancelScope()
        self.client = endpoint(stream.extra(SocketAttribute.remote_address, None))
        self.server = endpoint(stream.extra(SocketAttribute.local_address, None))
        self.secure = stream.extra(TLSAttribute.ssl_object, None) is not None
        self.closed = False

    @property
    def unsent(self) -> bool:
        """Whether the writer has something in hand."""
        return bool(self._outgoing)

    async def run(self) -> None:
        """Move bytes until the transport is closed, then close the stream."""
        try:
            with self._scope:
                async with create_task_group() as tasks:
                    tasks.start_soon(self._read)
                    tasks.start_soon(self._write)
        finally:
            self.close()
            with suppress(*_ENDS):  # TLS may have a closing handshake, and fail in it
                await anyio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        with self._feed, suppress(*_ENDS):
            while True:
                await self._feed.send(await self._stream.receive(CHUNK))

    async def _write(self) -> None:
        try:
            while True:
                while not self._outgoing and not self._finishing:
                    await self._wakeup.wait()
                await self._write_once()
        except _ENDS:
            self.close()  # not tried again: it may raise without letting other tasks run

    async def _write_once(self) -> None:
        if self._outgoing:
            await self._stream.send(bytes(self._outgoing))
            self._outgoing = b""
            self._taken.set()
            return
        finishing, self._finishing = self._finishing, ""
        if finishing == "eof":
            with suppress(NotImplementedError):  # TLS cannot close one direction only
                await self._stream.send_eof()
                return
        self.close()

    def try_receive(self) -> bytes | None:
        """Take the next chunk that was read."""
        head, self._head = self._head, None
        if head is not None:
            return head
        try:
            return self._chunks.receive_nowait()
        except anyio.WouldBlock:
            return None
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return b""

    async def wait_readable(self) -> None:
        """Wait until the reader has something."""
        if self._head is None and not self.closed:
            try:
                self._head = await self._chunks.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                self._head = b""
        if self.closed:
            raise anyio.ClosedResourceError

    def wake(self) -> None:
        """Put a None where the reader puts the bytes that it receives."""
        with suppress(anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._feed.send_nowait(None)

    def try_send(self, data: bytes | memoryview) -> int:
        """Give the writer all of it, or nothing while it is busy."""
        if self.closed:
            raise BrokenPipeError
        if self._outgoing:
            raise BlockingIOError
        self._outgoing = data
        self._wakeup.set()
        return len(data)

    async def wait_writable(self) -> None:
        """Wait until the writer is free."""
        while self._outgoing and not self.closed:
            self._taken = anyio.Event()
            await self._taken.wait()
        if self.closed:
            raise anyio.ClosedResourceError

    def send_eof(self) -> None:
        """Let the writer end the sending side when it is free."""
        self._finishing = "eof"
        self._wakeup.set()

    def finish(self) -> None:
        """Let the writer close when it is free."""
        self._finishing = "close"
        self._wakeup.set()

    def close(self) -> None:
        """Stop both tasks, and wake whoever waits."""
        if not self.closed:
            self.closed = True
            self._scope.cancel()
            self._feed.close()
            self._chunks.close()
            self._taken.set()

    def abort(self) -> None:
        """Close the stream without waiting for anything."""
        self.close()
