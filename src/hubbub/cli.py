"""The command line: ``hubbub serve`` and ``hubbub demo``.

What is asked on a terminal and what is answered there. What a command does lives where it
belongs, and is imported when it is asked for. Called by ``__main__``.
"""

from __future__ import annotations

import errno
import logging
import ssl
import sys
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import Annotated, Any, NoReturn

import typer

import hubbub

__all__ = ("app",)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
)


class Backend(StrEnum):
    """The event loops there are."""

    TRIO = "trio"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hubbub {hubbub.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """WebSockets and rooms, on asyncio, uvloop and trio."""
    del version


@app.command()
def serve(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The ASGI application.")],
    backend: Annotated[Backend, typer.Option(help="The event loop.")] = Backend.ASYNCIO,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
    ] = 8000,
    uds: Annotated[Path | None, typer.Option(help="A UNIX socket, instead.")] = None,
    fd: Annotated[int | None, typer.Option(help="A listening socket, instead.")] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(help="A certificate, for wss.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Its key, if it is apart.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve an ASGI WebSocket application until Ctrl-C."""
    from hubbub.ws_bridge import Config, StartupFailed, run

    if backend is not Backend.ASYNCIO:
        _require("trio" if backend is Backend.TRIO else "fast", backend.value)
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s: %(message)s")
    application = _load(target)
    try:
        config = Config(ssl=_ssl_context(ssl_certfile, ssl_keyfile))
        run(application, host=host, port=port, uds=uds, fd=fd, config=config, backend=backend.value)
    except StartupFailed as error:
        _fail(f"{target} cannot start: {error}")
    except OSError as error:
        _fail(f"Cannot listen on {uds or _join(host, port)}: {_explain(error)}")


def _load(target: str) -> Any:
    module_name, separator, name = target.partition(":")
    if not (module_name and separator and name):
        _fail(f"Expected MODULE:APP, got {target!r}")
    sys.path.insert(0, "")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if not (error.name and f"{module_name}.".startswith(f"{error.name}.")):
            raise  # the module is there, and what it imports is not
        _fail(f"There is no module {module_name!r} here, nor installed")
    application = getattr(module, name, None)
    if not callable(application):
        _fail(f"Module {module_name!r} has no application {name!r}")
    return application


def _ssl_context(certfile: Path | None, keyfile: Path | None) -> ssl.SSLContext | None:
    if certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as error:
        _fail(f"Cannot use the certificate {certfile}: {error}")
    return context


@app.command()
def demo(
    backend: Annotated[Backend, typer.Option(help="The event loop.")] = Backend.TRIO,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
    ] = 8000,
) -> None:
    """Run a chat: open its page in two tabs and talk."""
    _require("demo", "hypercorn", "starlette", "trio")
    if backend is Backend.UVLOOP:
        _require("demo", "uvloop")
    from hubbub.demo import serve

    try:
        sock = serve.listen(host, port)
    except OSError as error:
        _fail(f"Cannot listen on {_join(host, port)}: {_explain(error)}")
    url = f"http://{_join(host, sock.getsockname()[1])}"
    line = f"hubbub demo: open {url} in your browser ({backend}; Ctrl-C stops it)"
    serve.run(sock, backend, lambda: typer.echo(line))


def _require(extra: str, *modules: str) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        _fail(f'This needs {", ".join(missing)}: pip install "hubbub[{extra}]"')


def _explain(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken. Choose another with --port, or any that is free with --port 0"
    return error.strerror or str(error)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
