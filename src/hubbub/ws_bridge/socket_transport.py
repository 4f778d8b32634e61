"""SocketTransport: a transport over a socket of our own, in the way that suits the loop.

No loop is known by name here, only by what it can do. Used by server, for what it accepts, and
by the client, for what it dials; each may put a stream on it, for TLS.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from struct import pack
from typing import TYPE_CHECKING, Final, Protocol, cast

import anyio
from anyio.lowlevel import current_token

from hubbub.ws_bridge.scope import endpoint
from hubbub.ws_bridge.transport import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubbub._wakeup import Future

__all__ = ("SocketTransport", "WatchedSocketTransport", "socket_transport")

_AT_ONCE: Final = pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # linger: on, for 0 s


def socket_transport(sock: socket.socket) -> SocketTransport:
    """Take over a connected TCP or UNIX socket.

    Raises:
        OSError: if it is not, or no longer, connected.
    """
    loop = current_token().native_token
    if hasattr(loop, "add_reader"):
        with suppress(NotImplementedError):  # asyncio's proactor, the default on Windows
            return WatchedSocketTransport(sock, cast("_WatchingLoop", loop))
    return SocketTransport(sock)


class SocketTransport:
    """A socket that nobody else reads, writes or closes.

    Waiting with ``anyio.wait_readable`` costs a third less than anyio's own stream on trio, and
    half as much on asyncio (measured), where there is a better way still: see below.

    Attributes:
        sock: the socket.
    """

    __slots__ = ("client", "closed", "secure", "server", "sock", "try_send")

    unsent = False  # the kernel has it

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected TCP or UNIX socket.

        Raises:
            OSError: if it is not, or no longer, connected.
        """
        sock.setblocking(False)
        self.sock = sock
        self.try_send = sock.send  # directly, to save a call
        self.client = endpoint(sock.getpeername())
        self.server = endpoint(sock.getsockname())
        self.secure = False
        self.closed = False

    def try_receive(self) -> bytes | None:
        """Take received bytes."""
        try:
            return self.sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    async def wait_readable(self) -> None:
        """Wait until there is something to take."""
        if self.closed:
            raise anyio.ClosedResourceError
        try:
            await anyio.wait_readable(self.sock)
        except anyio.ClosedResourceError:
            if self.closed:  # else it was ``wake``
                raise

    def wake(self) -> None:
        """Let waiting tasks look again; in both directions, since anyio wakes no single one."""
        if not self.closed:
            anyio.notify_closing(self.sock)

    async def wait_writable(self) -> None:
        """Wait until the kernel has room."""
        if self.closed:
            raise anyio.ClosedResourceError
        try:
            await anyio.wait_writable(self.sock)
        except anyio.ClosedResourceError:
            if self.closed:  # else it was ``wake``
                raise

    def send_eof(self) -> None:
        """Shut the sending side down."""
        with suppress(OSError):  # it is gone already
            self.sock.shutdown(1)

    def finish(self) -> None:
        """Close: the kernel delivers what was sent."""
        self.close()

    def close(self) -> None:
        """Close the socket, and wake whoever waits for it."""
        if not self.closed:
            self.wake()  # else they would wait for ever
            self.closed = True
            self.sock.close()

    def abort(self) -> None:
        """Close the socket with a reset.

        Otherwise the kernel would keep megabytes for a peer that is there and does not read,
        for as long as that peer pleases.
        """
        with suppress(OSError):  # it is gone already
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.close()


class _WatchingLoop(Protocol):
    """What asyncio's loops can do, and trio's cannot."""

    def add_reader(self, sock: socket.socket, callback: Callable[[], None]) -> object: ...

    def remove_reader(self, sock: socket.socket) -> object: ...

    def create_future(self) -> Future: ...


class WatchedSocketTransport(SocketTransport):
    """The same, on a loop that can go on watching a socket between two waits.

    ``anyio.wait_readable`` has to register each wait with asyncio's selector, and unregister it,
    which costs as much as all else that is done for a message that comes alone (measured). Here
    the socket stays registered as long as somebody waits again in time.
    """

    __slots__ = ("_head", "_loop", "_waiter", "_watched")

    def __init__(self, sock: socket.socket, loop: _WatchingLoop) -> None:
        """Take over a connected TCP or UNIX socket.

        Raises:
            NotImplementedError: if the loop cannot watch it.
            OSError: if it is not, or no longer, connected.
        """
        super().__init__(sock)
        self._loop = loop
        self._head: bytes | None = None
        self._waiter: Future | None = None
        self._watched = False
        self._watch()

    def try_receive(self) -> bytes | None:
        """Take received bytes."""
        head, self._head = self._head, None
        return super().try_receive() if head is None else head

    async def wait_readable(self) -> None:
        """Wait until there is something to take."""
        if self._waiter is not None:
            raise anyio.BusyResourceError("receiving from")
        if self._head is None and not self.closed:
            self._watch()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.closed:
            raise anyio.ClosedResourceError

    def _watch(self) -> None:
        if not self._watched:
            self._loop.add_reader(self.sock, self._on_readable)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.remove_reader(self.sock)
            self._watched = False

    def _on_readable(self) -> None:
        """Receive on behalf of the task that waits.

        If merely woken, it would receive only in the next turn of the loop, before which the
        selector would report the same bytes once more.
        """
        if self._waiter is None or self._waiter.done():
            self._unwatch()  # nobody waits: the selector would report it in every turn
        else:
            self._head = super().try_receive()
            self._waiter.set_result(None)

    def wake(self) -> None:
        """Let waiting tasks look again, in both directions."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        super().wake()

    def close(self) -> None:
        """Close the socket, and wake whoever waits for it."""
        self._unwatch()
        super().close()
