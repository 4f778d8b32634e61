"""Serve the demo: a listening socket, Hypercorn's worker on it, and an end by Ctrl-C.

What has to be done about a server from outside, with any application, is here; no page and
no message is. Called by the command line.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from hypercorn.asyncio import serve as serve_on_asyncio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_on_trio

from hubbub._tasks import create_task_group
from hubbub.demo.app import create_app
from hubbub.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ("listen", "run", "serve", "wait_for_signal")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SERVICE_RESTART = 1012  # by IANA's registry of close codes: come back later
_DRAIN = 1.0  # seconds that peers have for what waits for them
_GRACE = 2.0  # seconds that Hypercorn waits for connections, after they were closed
_DEADLINE = 3.0  # seconds for all of the end; then everything is cancelled
_LAST_CALL = 4.0  # seconds until the process is ended, whatever still hangs
_IDLE = 20  # seconds of silence after which the kernel asks whether the peer is there
_UNANSWERED = 40_000  # milliseconds that sent bytes may wait for a peer: a hub gives up earlier
_SEND_BUFFER = 64 * 1024  # bytes
_MAX_MESSAGE = 2**20  # bytes
_SIGNAL_POLL = 0.1  # seconds, where the loop takes no signal handlers


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Args:
        host: a name, or an IPv4 or IPv6 address.
        port: the port; 0 for any that is free.

    Raises:
        OSError: if it is taken, or not ours to listen on.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.create_server(address[:2], family=family)
    # Accepted sockets inherit it: what a peer does not read is soon in its outbox, where the
    # page shows it, and not in megabytes of the kernel's.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux, where accepted sockets inherit both
        # Hypercorn's trio worker shields its writes: one to a peer that does not read can be
        # ended by nobody but the kernel. The same goes for peers that vanished.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def run(sock: socket.socket, backend: str, announce: Callable[[], None]) -> None:
    """Serve the demo until SIGINT or SIGTERM; a second one ends the process at once.

    Args:
        sock: a listening socket, which is closed in the end.
        backend: ``trio``, ``asyncio`` or ``uvloop``.
        announce: called as soon as signals are handled.
    """
    # Cancelling is not enough: to a peer that does not read, Hypercorn's asyncio worker waits
    # for its buffer to empty, its trio worker for a shielded write.
    watchdog = threading.Timer(_LAST_CALL, os._exit, [0])
    watchdog.daemon = True

    async def until() -> None:
        await wait_for_signal(announce)
        watchdog.start()

    try:
        if backend == "trio":
            anyio.run(serve, sock, serve_on_trio, until, backend="trio")
        else:
            anyio.run(
                serve,
                sock,
                serve_on_asyncio,
                until,
                backend="asyncio",
                backend_options={"use_uvloop": backend == "uvloop"},
            )
    finally:
        watchdog.cancel()


async def wait_for_signal(announce: Callable[[], None]) -> None:
    """Return at the first SIGINT or SIGTERM; the next one ends the process at once.

    Args:
        announce: called when it has begun to wait.
    """
    try:
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            announce()
            await anext(signals)
    except NotImplementedError:  # asyncio on Windows
        came = threading.Event()
        for number in _SIGNALS:
            signal.signal(number, lambda *_: came.set())
        announce()
        while not came.is_set():  # noqa: ASYNC110 - a handler may not touch the loop
            await anyio.sleep(_SIGNAL_POLL)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


async def serve(
    sock: socket.socket,
    worker: Callable[..., Coroutine[Any, Any, None]],
    until: Callable[[], Awaitable[None]],
) -> None:
    """Serve the demo.

    Args:
        sock: a listening socket, which is closed in the end.
        worker: Hypercorn's ``serve``, of the module for the loop that this runs on.
        until: a function that returns when it is time to stop.
    """
    hub = Hub()
    stopping = anyio.Event()
    serving = partial(worker, create_app(hub), _configure(sock), shutdown_trigger=stopping.wait)
    async with create_task_group() as tasks:
        tasks.start_soon(serving)
        await until()
        tasks.cancel_scope.deadline = anyio.current_time() + _DEADLINE
        # Hypercorn stops listening, so that nobody is back before it has ended; it does not
        # tell the application, and its asyncio worker waits for open WebSockets for ever.
        stopping.set()
        await hub.aclose(_SERVICE_RESTART, drain=_DRAIN)


def _configure(sock: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{sock.detach()}"]  # Hypercorn makes its own socket of it
    config.errorlog = logging.getLogger("hypercorn.error")  # not set up by us: no greeting
    config.graceful_timeout = _GRACE
    config.websocket_max_message_size = _MAX_MESSAGE
    return config
