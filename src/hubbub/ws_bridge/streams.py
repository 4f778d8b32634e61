"""SocketStream: a socket as an anyio byte stream, to put TLS on.

It owns no policy and no protocol. Used by server, where a configuration asks for TLS, and by
the client, which shakes hands on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

from hubbub.ws_bridge.transport import send_some

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubbub.ws_bridge.socket_transport import SocketTransport

__all__ = ("SocketStream",)


class SocketStream(ByteStream):
    """A connected socket that nobody else reads, writes or closes.

    Attributes:
        transport: the same socket, for whoever goes on without the stream.
    """

    def __init__(self, transport: SocketTransport) -> None:
        self.transport = transport

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive the next bytes: at most a chunk of the transport's, whatever ``max_bytes``."""
        while (data := self.transport.try_receive()) is None:
            await self.transport.wait_readable()
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all of it."""
        rest = memoryview(item)
        while rest:
            await self.transport.wait_writable()
            try:
                rest = rest[send_some(self.transport, rest) :]
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Close the sending side."""
        self.transport.send_eof()

    async def aclose(self) -> None:
        """Close the socket."""
        self.transport.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The addresses of both ends."""
        return {
            SocketAttribute.remote_address: self.transport.sock.getpeername,
            SocketAttribute.local_address: self.transport.sock.getsockname,
        }
