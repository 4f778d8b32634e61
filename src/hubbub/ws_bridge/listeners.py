"""Listening sockets: how they are opened, and how peers are accepted.

What becomes of a peer is not known here. Used by server.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("accept", "close_all", "open_sockets")

_logger = logging.getLogger("hubbub.ws_bridge")

_BACKLOG: Final = 2048  # connections that the kernel keeps for us
_ACCEPTS_PER_WAIT: Final = 64
_PAUSE: Final = 0.1  # seconds to wait for a file descriptor, or memory, to become free
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def open_sockets(
    host: str | None,
    port: int,
    *,
    uds: str | os.PathLike[str] | None = None,
    fd: int | None = None,
) -> list[socket.socket]:
    """Open what a server is to listen on.

    Args:
        host: a name or an address; None for all of this machine's.
        port: 0 for any that is free, the same for all addresses.
        uds: the path of a UNIX socket, instead of host and port. A socket that is left over
            there is removed.
        fd: the file descriptor of a listening socket, instead of either.

    Raises:
        OSError: if an address is taken, or not ours to listen on.
    """
    if fd is not None:
        return [socket.socket(fileno=fd)]
    if uds is not None:
        return [_open_unix(os.fspath(uds))]
    infos = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((info[0], info[4]) for info in infos):
            if sockets and not port:
                port = sockets[0].getsockname()[1]
            sockets.append(_open_tcp(family, (address[0], port, *address[2:])))
    except OSError:
        close_all(sockets)
        raise
    return sockets


def close_all(sockets: Sequence[socket.socket], uds: str | os.PathLike[str] | None = None) -> None:
    """Close listening sockets, and remove the path that was made for one."""
    for sock in sockets:
        sock.close()
    if uds is not None:
        with suppress(FileNotFoundError):
            os.unlink(uds)


def _open_tcp(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


async def accept(listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
    """Accept peers until cancelled.

    Args:
        listener: a listening socket.
        take: called with each peer's socket, which it owns from then on.
    """
    listener.setblocking(False)
    tcp = listener.family != socket.AF_UNIX  # once, because each access makes an enum
    exhausted = False
    while True:
        await anyio.wait_readable(listener)
        try:
            for _ in range(_ACCEPTS_PER_WAIT):
                sock, _address = listener.accept()
                if tcp:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                take(sock)
        except BlockingIOError:
            exhausted = False  # all that were waiting are accepted
        except OSError as error:
            if error.errno in _EXHAUSTED:
                if not exhausted:  # logged once, not at each attempt
                    _logger.warning("Cannot accept a connection: %s", error)
                exhausted = True
                await anyio.sleep(_PAUSE)
            # Else a peer that left before it was accepted (ECONNABORTED, and Linux has more).
