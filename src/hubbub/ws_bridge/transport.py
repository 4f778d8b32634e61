"""Transports: a peer's bytes as non-blocking tries, and waiting for the next one to be worth it.

Two of a kind: over a socket of our own, and over any ``ByteStream`` of anyio (TLS, UNIX,
memory). What the bytes mean is not known here. Used by connection and its writer.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from struct import pack
from typing import TYPE_CHECKING, Final, Protocol

import anyio
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from hubbub._tasks import create_task_group
from hubbub.ws_bridge.scope import Endpoint, endpoint

if TYPE_CHECKING:
    from anyio.abc import ByteStream

__all__ = ("CHUNK", "SocketTransport", "StreamTransport", "Transport", "send_some")

# Bytes that are received at once: just less than what malloc maps from the system, and gives back,
# each time, which is dearer than the system call.
CHUNK: Final = 127 * 1024
_AT_ONCE: Final = pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # linger: on, no time

# How a stream says that it is over. TLS says EndOfStream to who sends, too.
_ENDS: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
)


class Transport(Protocol):
    """One peer's bytes, both ways.

    ``try_*`` never wait. Whatever the world does to a connection looks like its end: ``b""``
    when receiving, ``OSError`` when sending. Only one task at a time may
    wait in each direction; ``close`` wakes both.
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

    def try_send(self, data: bytes | memoryview) -> int:
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


class SocketTransport:
    """A socket that nobody else reads, writes or closes.

    Waiting by ``anyio.wait_readable`` costs half of what anyio's own stream does on asyncio,
    and a third less on trio (measured).
    """

    __slots__ = ("_sock", "client", "closed", "secure", "server", "try_send")

    unsent = False  # the kernel has it

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket of TCP or UNIX.

        Raises:
            OSError: if it is not connected, or not any more.
        """
        sock.setblocking(False)
        self._sock = sock
        self.try_send = sock.send  # without a call between
        self.client = endpoint(sock.getpeername())
        self.server = endpoint(sock.getsockname())
        self.secure = False
        self.closed = False

    def try_receive(self) -> bytes | None:
        """Take what has come."""
        try:
            return self._sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    async def wait_readable(self) -> None:
        """Wait until there is something to take."""
        if self.closed:
            raise anyio.ClosedResourceError
        try:
            await anyio.wait_readable(self._sock)
        except anyio.ClosedResourceError:
            if self.closed:  # else it was ``wake``
                raise

    def wake(self) -> None:
        """Let who waits look again; in both directions, since there is no other way."""
        if not self.closed:
            anyio.notify_closing(self._sock)

    async def wait_writable(self) -> None:
        """Wait until the kernel has room."""
        if self.closed:
            raise anyio.ClosedResourceError
        try:
            await anyio.wait_writable(self._sock)
        except anyio.ClosedResourceError:
            if self.closed:  # else it was ``wake``
                raise

    def send_eof(self) -> None:
        """Shut the sending side down."""
        with suppress(OSError):  # it is gone already
            self._sock.shutdown(1)

    def finish(self) -> None:
        """Close: the kernel delivers what was sent."""
        self.close()

    def close(self) -> None:
        """Close the socket, and wake whoever waits for it."""
        if not self.closed:
            self.wake()  # else they would wait for ever
            self.closed = True
            self._sock.close()

    def abort(self) -> None:
        """Close the socket with a reset.

        Otherwise the kernel would keep megabytes for a peer that is there and does not read,
        for as long as it pleases.
        """
        with suppress(OSError):  # it is gone already
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.close()


class StreamTransport:
    """Any byte stream, with a task that reads ahead of us and one that writes behind us.

    The stream's own ``receive`` and ``send`` are called by those two tasks only, which
    nobody's cancellation reaches but that of ``run``'s caller: half a frame is never followed
    by anything else.
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
        self._wakeup = anyio.Event()  # for the writer
        self._taken = anyio.Event()  # by the writer: there is room again
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
                    self._wakeup = anyio.Event()
                    await self._wakeup.wait()
                await self._write_once()
        except _ENDS:
            self.close()  # not to be tried again: it may raise without letting others run

    async def _write_once(self) -> None:
        if self._outgoing:
            await self._stream.send(bytes(self._outgoing))
            self._outgoing = b""
            self._taken.set()
            return
        finishing, self._finishing = self._finishing, ""
        if finishing == "eof":
            with suppress(NotImplementedError):  # TLS has no half of a connection
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
        """Put nothing where the reader puts what has come."""
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
