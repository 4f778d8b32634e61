"""``hubbub serve``: an ASGI WebSocket application on hubbub's own server.

The server itself lives in ``hubbub.ws_bridge``. A command of ``cli``.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import Annotated

import typer

from hubbub.cli.loading import load
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

__all__ = ("serve",)


def serve(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The ASGI application.")],
    backend: BackendOption = Backend.ASYNCIO,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    uds: Annotated[Path | None, typer.Option(help="A UNIX socket, instead.")] = None,
    fd: Annotated[int | None, typer.Option(help="A listening socket, instead.")] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(help="A certificate, for wss.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Its key, if it is apart.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve an ASGI WebSocket application until Ctrl-C."""
    from hubbub.ws_bridge import Config, StartupFailed, run

    if backend is not Backend.ASYNCIO:
        require("trio" if backend is Backend.TRIO else "fast", backend.value)
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s: %(message)s")
    application = load(target)
    try:
        config = Config(ssl=_ssl_context(ssl_certfile, ssl_keyfile))
        run(application, host=host, port=port, uds=uds, fd=fd, config=config, backend=backend.value)
    except StartupFailed as error:
        fail(f"{target} cannot start: {error}")
    except OSError as error:
        fail(f"Cannot listen on {uds or join(host, port)}: {explain(error)}")


def _ssl_context(certfile: Path | None, keyfile: Path | None) -> ssl.SSLContext | None:
    if certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        fail(f"Cannot use the certificate {certfile}: {error}")
    return context
