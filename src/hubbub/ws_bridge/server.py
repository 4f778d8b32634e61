"""The server: from listening sockets, or one stream, to connections, and their shutdown.

What happens within a connection is not known here. Called by whoever starts a server.
"""

from __future__ import annotations

import gc
import logging
import signal
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.streams.tls import TLSStream

from hubbub._tasks import create_task_group, is_cancelled
from hubbub.ws_bridge.access import log_access
from hubbub.ws_bridge.caretaker import Caretaker
from hubbub.ws_bridge.config import Config
from hubbub.ws_bridge.lifespan import Lifespan
from hubbub.ws_bridge.listeners import accept, close_all, open_sockets
from hubbub.ws_bridge.server_connection import ServerConnection
from hubbub.ws_bridge.socket_transport import socket_transport
from hubbub.ws_bridge.stream_transport import StreamTransport
from hubbub.ws_bridge.streams import SocketStream

if TYPE_CHECKING:
    import os
    import socket
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from anyio.abc import ByteStream, TaskStatus

    from hubbub.types import ASGIApp
    from hubbub.ws_bridge.transport import Transport

__all__ = ("run", "serve", "serve_connection")

_logger = logging.getLogger("hubbub.ws_bridge")

_DEFAULTS: Final = Config()
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SERVICE_RESTART: Final = (1012, "service restart")  # IANA's registry: come back later
_YOUNG_OBJECTS: Final = 10_000  # until the garbage collector looks at them; by default 700 or 2,000


async def serve_connection(
    app: ASGIApp,
    stream: ByteStream,
    config: Config = _DEFAULTS,
    *,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Serve one peer, on any byte stream: TCP, TLS, a UNIX socket, memory.

    Args:
        app: the ASGI application.
        stream: the peer's bytes; it is closed in the end.
        config: limits and choices. ``ssl`` is not among them here: wrap the stream.
        state: the lifespan's, for the scope.
    """
    async with create_task_group() as tasks:
        caretaker = Caretaker(config, tasks)
        await _serve_stream(app, stream, caretaker, state)
        tasks.cancel_scope.cancel()


async def serve(
    app: ASGIApp,
    host: str | None = "127.0.0.1",
    port: int = 8000,
    *,
    uds: str | os.PathLike[str] | None = None,
    fd: int | None = None,
    sockets: Sequence[socket.socket] | None = None,
    config: Config = _DEFAULTS,
    task_status: TaskStatus[list[Any]] = TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until cancelled.

    Start it in a task group: ``await tasks.start(partial(serve, app, port=0))`` returns the
    addresses that it listens on. When cancelled, it stops accepting, closes all connections with
    1012, and gives them ``config.shutdown_timeout`` to end.

    Args:
        app: the ASGI application.
        host: a name or an address to listen on; None for all.
        port: the port; 0 for any that is free.
        uds: the path of a UNIX socket, instead of host and port.
        fd: the file descriptor of a listening socket, instead of host and port.
        sockets: listening sockets, instead of host and port; they are closed in the end.
        config: limits and choices.
        task_status: told the addresses as soon as peers may connect.

    Raises:
        OSError: if an address is taken, or not ours to listen on.
        StartupFailed: if the application says that it cannot start.
    """
    listeners = (
        list(sockets) if sockets is not None else await open_sockets(host, port, uds=uds, fd=fd)
    )
    try:
        async with create_task_group() as tasks:
            server = _Server(app, config)
            await tasks.start(server.run)
            try:
                async with create_task_group() as accepting:
                    for listener in listeners:
                        accepting.start_soon(accept, listener, server.take)
                    task_status.started([listener.getsockname() for listener in listeners])
            finally:
                close_all(listeners)  # before the connections end, so that nobody is back yet
                server.stop()
    finally:
        close_all(listeners, uds)


def run(
    app: ASGIApp,
    *,
    host: str | None = "127.0.0.1",
    port: int = 8000,
    uds: str | os.PathLike[str] | None = None,
    fd: int | None = None,
    sockets: Sequence[socket.socket] | None = None,
    config: Config = _DEFAULTS,
    backend: Literal["asyncio", "uvloop", "trio"] = "asyncio",
    announce: Callable[[list[Any]], None] | None = None,
) -> None:
    """Serve an ASGI application, on a loop of its own, until SIGINT or SIGTERM.

    It has the process to itself: its signals, and the garbage collector, which leaves alone
    what was there before the first peer (``gc.freeze``), and looks for garbage less often.

    The first signal ends it as a cancellation ends ``serve``; a second one ends the process at
    once.

    Args:
        app: the ASGI application.
        host: a name or an address to listen on; None for all.
        port: the port; 0 for any that is free.
        uds: the path of a UNIX socket, instead of host and port.
        fd: the file descriptor of a listening socket, instead of host and port.
        sockets: listening sockets, instead of host and port; they are closed in the end.
        config: limits and choices.
        backend: the event loop; ``uvloop`` and ``trio`` need the packages of these names.
        announce: called with the addresses as soon as peers may connect; by default these are
            logged.

    Raises:
        OSError: if an address is taken, or not ours to listen on.
        StartupFailed: if the application says that it cannot start.
        ValueError: if there is no such backend.
    """
    if backend not in ("asyncio", "uvloop", "trio"):
        raise ValueError(f"Expected a backend of asyncio, uvloop or trio, got {backend!r}")
    serving = partial(serve, app, host, port, uds=uds, fd=fd, sockets=sockets, config=config)
    name, options = (
        ("trio", {}) if backend == "trio" else ("asyncio", {"use_uvloop": backend == "uvloop"})
    )
    handlers = [signal.getsignal(number) for number in _SIGNALS]
    thresholds = gc.get_threshold()
    try:
        with suppress(KeyboardInterrupt):  # from Ctrl-C, where there are no signal receivers
            anyio.run(
                _serve_until_signal,
                serving,
                announce or _log_addresses,
                backend=name,
                backend_options=options,
            )
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        for number, handler in zip(_SIGNALS, handlers, strict=True):
            signal.signal(number, handler)


async def _serve_until_signal(
    serving: Callable[..., Coroutine[Any, Any, None]], announce: Callable[[list[Any]], None]
) -> None:
    async with create_task_group() as tasks:
        with ExitStack() as stack:
            try:
                signals = stack.enter_context(anyio.open_signal_receiver(*_SIGNALS))
            except NotImplementedError:  # asyncio on Windows, where Ctrl-C cancels this task
                signals = None
            addresses = await tasks.start(serving)
            # What is here now stays. For the collector to look at it again after every few hundred
            # handshakes would take a third of their time; to look at what they leave themselves
            # after every ten of them, a quarter (measured).
            gc.collect()
            gc.freeze()
            gc.set_threshold(max(_YOUNG_OBJECTS, gc.get_threshold()[0]))
            announce(addresses)
            await (anyio.sleep_forever() if signals is None else anext(signals))
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        tasks.cancel_scope.cancel()


def _log_addresses(addresses: list[Any]) -> None:
    _logger.info("Listening on %s", ", ".join(map(str, addresses)))


class _Server:
    """What outlives accepting: the application's lifespan, and the connections."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._config = config
        self._lifespan = Lifespan(app)
        self._stopping = anyio.Event()
        self._life = anyio.CancelScope()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Run until ``stop``; has started when the application has."""
        with self._life:
            async with create_task_group() as tasks:
                tasks.start_soon(self._lifespan.run)
                await self._lifespan.start()
                self._life.shield = True  # `stop` sets its deadline
                await self._serve_connections(task_status)
                await self._lifespan.stop()
                tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Begin to end; the connections have ``shutdown_timeout``, and then the lifespan."""
        timeout = self._config.shutdown_timeout
        if timeout is not None:
            self._life.deadline = anyio.current_time() + 2 * timeout
        self._stopping.set()

    def take(self, sock: socket.socket) -> None:
        """Serve a peer that was accepted."""
        self._tasks.start_soon(self._serve_socket, sock)

    async def _serve_connections(self, task_status: TaskStatus[None]) -> None:
        async with create_task_group() as self._tasks:
            self._caretaker = Caretaker(self._config, self._tasks)
            task_status.started()
            await self._stopping.wait()
            with anyio.move_on_after(self._config.shutdown_timeout):
                await self._caretaker.shut_down(*_SERVICE_RESTART)
            self._tasks.cancel_scope.cancel()

    async def _serve_socket(self, sock: socket.socket) -> None:
        state = self._lifespan.state
        try:
            with closing(sock), closing(socket_transport(sock)) as transport:
                if self._config.ssl is None:
                    await _serve_transport(self._app, transport, self._caretaker, state)
                else:
                    stream = await self._wrap_tls(SocketStream(transport))
                    await _serve_stream(self._app, stream, self._caretaker, state)
        except OSError as error:
            _logger.debug("A peer was lost before it could be served: %s", error)
        except Exception:  # our failure with one peer must not harm the others
            _logger.exception("A connection failed")
        except anyio.get_cancelled_exc_class():
            if is_cancelled():
                raise
            _logger.exception("A connection ended by a cancellation of its application's own")

    async def _wrap_tls(self, stream: SocketStream) -> TLSStream:
        try:
            with anyio.fail_after(self._config.handshake_timeout):
                return await TLSStream.wrap(
                    stream,
                    server_side=True,
                    ssl_context=self._config.ssl,
                    standard_compatible=False,  # a WebSocket says itself when it ends
                )
        except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise OSError("no TLS handshake") from error


async def _serve_stream(
    app: ASGIApp, stream: ByteStream, caretaker: Caretaker, state: Mapping[str, Any] | None
) -> None:
    transport = StreamTransport(stream)
    async with create_task_group() as tasks:
        tasks.start_soon(transport.run)
        await _serve_transport(app, transport, caretaker, state)


async def _serve_transport(
    app: ASGIApp, transport: Transport, caretaker: Caretaker, state: Mapping[str, Any] | None
) -> None:
    limit = caretaker.config.max_connections
    full = limit is not None and len(caretaker) >= limit
    connection = ServerConnection(app, transport, caretaker.config, caretaker)
    began = caretaker.admit(connection)
    try:
        await connection.run(state, full=full)
    finally:
        caretaker.forget(connection)
        log_access(connection, anyio.current_time() - began)
