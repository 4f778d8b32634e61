"""What the commands have in common: the options that recur, and how an error is shown.

No command lives here. Used by all of them.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated, NoReturn

import typer

__all__ = (
    "Backend",
    "BackendOption",
    "HostOption",
    "PortOption",
    "explain",
    "fail",
    "join",
    "require",
)


class Backend(StrEnum):
    """The event loops there are."""

    TRIO = "trio"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


BackendOption = Annotated[Backend, typer.Option(help="The event loop.")]
HostOption = Annotated[str, typer.Option(help="The address to listen on.")]
PortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
]


def require(extra: str, *modules: str) -> None:
    """Fail, naming the extra to install, if a module is missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        fail(f'This needs {", ".join(missing)}: pip install "hubbub[{extra}]"')


def explain(error: OSError) -> str:
    """Say why an address cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return "the port is taken. Choose another with --port, or any that is free with --port 0"
    return error.strerror or str(error)


def join(host: str, port: int) -> str:
    """Write an address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def fail(message: str) -> NoReturn:
    """Say what is wrong, and end the process."""
    typer.echo(message, err=True)
    raise SystemExit(1)
