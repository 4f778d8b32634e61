"""``hubbub asyncapi`` and ``hubbub types``: what goes over the wire of an application.

How it is written lives in ``hubbub.router``. Commands of ``cli``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hubbub.app import App
from hubbub.cli.loading import load
from hubbub.cli.terminal import fail
from hubbub.router import Router
from hubbub.router.asyncapi import document
from hubbub.router.contract import describe
from hubbub.router.typescript import declarations

__all__ = ("asyncapi", "types")

Target: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODULE:APP", help="The application, or a router.")
]
Factory: TypeAlias = Annotated[
    bool, typer.Option("--factory", help="APP is a function that makes the application.")
]
AppDir: TypeAlias = Annotated[Path, typer.Option(help="Where to look for MODULE first.")]


def asyncapi(
    target: Target,
    title: Annotated[str, typer.Option(help="The application's name.")] = "Messages",
    api_version: Annotated[str, typer.Option(help="The application's version.")] = "0.1.0",
    factory: Factory = False,
    app_dir: AppDir = Path(),
) -> None:
    """Print an AsyncAPI 3.0 document of an application's messages."""
    routers = _routers(target, app_dir=app_dir, factory=factory)
    written = document(describe(routers), title=title, version=api_version)
    typer.echo(json.dumps(written, indent=2, ensure_ascii=False))


def types(target: Target, factory: Factory = False, app_dir: AppDir = Path()) -> None:
    """Print TypeScript types of an application's messages."""
    routers = _routers(target, app_dir=app_dir, factory=factory)
    typer.echo(declarations(describe(routers)), nl=False)


def _routers(target: str, *, app_dir: Path, factory: bool) -> dict[str, Router]:
    """Find the routers of an application, by their paths; or the one that it is."""
    application = load(target, app_dir=app_dir, factory=factory)
    if isinstance(application, Router):
        return {"": application}
    handlers = application.routes if isinstance(application, App) else {}
    routers = {path: each for path, each in handlers.items() if isinstance(each, Router)}
    if not routers:
        fail(f"Expected a Router, or an App with one, got {target!r}")
    return routers
