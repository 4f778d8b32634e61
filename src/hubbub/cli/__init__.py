"""The command line: ``hubbub serve``, ``connect``, ``demo``, ``asyncapi`` and ``types``.

The commands are put together here; each has a file of its own, with its options and what it
prints. What it does lives where it belongs. Called by ``__main__``.
"""

from __future__ import annotations

from typing import Annotated

import typer

import hubbub
from hubbub.cli import connect, contract, demo, serve

__all__ = ("app",)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a server's tracebacks are read in logs
)
app.command()(serve.serve)
app.command()(connect.connect)
app.command()(demo.demo)
app.command()(contract.asyncapi)
app.command()(contract.types)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hubbub {hubbub.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """WebSockets and rooms, on asyncio, uvloop and trio."""
    del version
