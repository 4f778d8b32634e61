"""``hubbub serve``: an ASGI WebSocket application on hubbub's own server.

The server itself lives in ``hubbub.ws_bridge``. A command of ``cli``.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from hubbub.cli.options import config_options
from hubbub.cli.service import LogLevel, Service
from hubbub.cli.supervisor import Supervisor, WorkerFailed
from hubbub.cli.terminal import (
    Backend,
    BackendOption,
    HostOption,
    PortOption,
    explain,
    fail,
    join,
    require,
)
from hubbub.ws_bridge import Config  # noqa: TC001 - read at run time
from hubbub.ws_bridge.listeners import close_all, open_sockets
from hubbub.ws_bridge.scope import endpoint

if TYPE_CHECKING:
    import socket

__all__ = ("serve",)

_logger = logging.getLogger("hubbub.cli")


@config_options
def serve(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The ASGI application.")],
    backend: BackendOption = Backend.ASYNCIO,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    uds: Annotated[Path | None, typer.Option(help="The path of a UNIX socket, instead.")] = None,
    fd: Annotated[
        int | None, typer.Option(help="A listening socket's descriptor, instead.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="How many processes serve; each has rooms of its own.")
    ] = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when a Python file in --app-dir changes.")
    ] = False,
    factory: Annotated[
        bool, typer.Option("--factory", help="APP is a function that makes the application.")
    ] = False,
    app_dir: Annotated[Path, typer.Option(help="Where to look for MODULE first.")] = Path(),
    ssl_certfile: Annotated[Path | None, typer.Option(help="A certificate, for wss.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Its key, if in another file.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="The lowest level to log.")] = LogLevel.INFO,
    access_log: Annotated[bool, typer.Option(help="Log each connection at its end.")] = True,
    *,
    config: Config,
) -> None:
    """Serve an ASGI WebSocket application until Ctrl-C."""
    if backend is not Backend.ASYNCIO:
        require("trio" if backend is Backend.TRIO else "fast", backend.value)
    if reload:
        require("cli", "watchfiles")
    if ssl_keyfile is not None and ssl_certfile is None:
        fail("--ssl-keyfile needs --ssl-certfile")
    if (reload or workers > 1) and os.name != "posix":
        fail("--workers and --reload need a POSIX system")
    service = Service(
        target=target,
        factory=factory,
        app_dir=app_dir,
        backend=backend,
        config=config,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        log_level=log_level,
        access_log=access_log,
    )
    service.set_up_logging()
    sockets = _listen(host, port, uds, fd)
    try:
        places = ", ".join(_describe(sock, secure=ssl_certfile is not None) for sock in sockets)
        line = f"Serving {target} at {places} ({backend}; Ctrl-C stops it)"
        if reload or workers > 1:
            watch = app_dir.resolve() if reload else None
            supervisor = Supervisor(service, sockets, workers, watch=watch)
            anyio.run(supervisor.run, lambda: _logger.info(line))
        else:
            service.run(sockets, lambda: _logger.info(line))
    except WorkerFailed:
        raise SystemExit(1) from None  # it has said why
    finally:
        close_all(sockets, uds)


def _listen(host: str, port: int, uds: Path | None, fd: int | None) -> list[socket.socket]:
    try:
        return anyio.run(partial(open_sockets, host, port, uds=uds, fd=fd))
    except OSError as error:
        if uds is not None:
            fail(f"Cannot listen on {uds}: {error.strerror}")
        if fd is not None:
            fail(f"Cannot listen on file descriptor {fd}: {error.strerror}")
        fail(f"Cannot listen on {join(host, port)}: {explain(error)}")


def _describe(sock: socket.socket, *, secure: bool) -> str:
    address = endpoint(sock.getsockname())
    assert address is not None
    host, port = address
    if port is None:
        return f"unix:{host}"
    return f"{'wss' if secure else 'ws'}://{join(host, port)}"
