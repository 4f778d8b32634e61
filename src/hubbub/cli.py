"""The command line: ``hubbub demo``.

What is asked on a terminal and what is answered there. What a command does lives where it
belongs, and is imported when it is asked for. Called by ``__main__``.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated, NoReturn

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
