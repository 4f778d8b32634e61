"""Dialing: a stream to where a target is, by TCP, UNIX socket or proxy, with TLS where it is due.

What is said on the stream is not known here. Used by connect.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
from anyio.streams.tls import TLSAttribute, TLSStream

from hubbub._tasks import create_task_group
from hubbub.client.proxy import connect_through
from hubbub.ws_bridge.listeners import close_all
from hubbub.ws_bridge.socket_transport import socket_transport
from hubbub.ws_bridge.streams import SocketStream

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from hubbub.client.target import Target

__all__ = ("LocalAddress", "dial", "secure_stream")

LocalAddress: TypeAlias = tuple[str, int]

_HEAD_START: Final = 0.25  # seconds, for one address before the next is tried (RFC 8305 §5)


async def dial(target: Target, *, proxy: str | None, local: LocalAddress | None) -> ByteStream:
    """Connect to a target; TLS is not spoken yet.

    Args:
        target: where to.
        proxy: the URL of the proxy to go through.
        local: the address to connect from; port 0 for any.

    Raises:
        OSError: if it cannot be reached.
    """
    if target.path is not None:
        return await anyio.connect_unix(target.path)
    if proxy is not None:
        return await connect_through(proxy, target, local)
    return SocketStream(socket_transport(await _connect_tcp(target.host, target.port, local)))


async def secure_stream(
    stream: ByteStream, target: Target, context: ssl.SSLContext | None
) -> ByteStream:
    """Speak TLS on a stream, unless it does already. If that fails, the stream is closed.

    Raises:
        OSError: if there is no TLS at the other end, or a certificate that we do not trust.
    """
    if stream.extra(TLSAttribute.ssl_object, None) is not None:
        return stream
    try:
        return await TLSStream.wrap(
            stream,
            server_side=False,
            hostname=target.host,
            ssl_context=context or ssl.create_default_context(),
            standard_compatible=False,  # a WebSocket says itself when it ends
        )
    except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
        await anyio.aclose_forcefully(stream)
        raise ConnectionError(f"{target.authority} ended the TLS handshake") from error
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


async def _connect_tcp(host: str, port: int, local: LocalAddress | None) -> socket.socket:
    """Connect to the first of a host's addresses that answers (RFC 8305).

    As ``anyio.connect_tcp`` does, whose stream does not give up its socket.
    """
    family = 0 if local is None else socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    infos = await anyio.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    connected: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(family: int, address: Any, failed: anyio.Event) -> None:
        try:
            connected.append(await _connect_socket(family, address, local))
        except OSError as error:
            errors.append(error)
            failed.set()
        else:
            tasks.cancel_scope.cancel()

    try:
        async with create_task_group() as tasks:
            for family, _, _, _, address in _alternate(infos):
                failed = anyio.Event()
                tasks.start_soon(attempt, family, address, failed)
                with anyio.move_on_after(_HEAD_START):
                    await failed.wait()
    except BaseException:
        close_all(connected)
        raise
    close_all(connected[1:])  # two may have answered in the same turn of the loop
    if not connected:
        reasons = "; ".join(str(error.strerror) for error in errors)
        raise OSError(errors[0].errno, f"Cannot connect to {host} port {port}: {reasons}")
    return connected[0]


async def _connect_socket(family: int, address: Any, local: LocalAddress | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local is not None:
            sock.bind(local)
        await _reach(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _reach(sock: socket.socket, address: Any) -> None:
    with suppress(BlockingIOError, InterruptedError):
        sock.connect(address)
    await anyio.wait_writable(sock)
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _alternate(infos: list[Any]) -> list[Any]:
    """Alternate between the address family that the system prefers and the other (RFC 8305 §4)."""
    preferred = [info for info in infos if info[0] == infos[0][0]]
    others = [info for info in infos if info[0] != infos[0][0]]
    pairs = zip_longest(preferred, others)
    return [info for info in chain.from_iterable(pairs) if info is not None]
