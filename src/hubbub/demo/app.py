"""The demo's ASGI application: its page, and beside it the chat's sockets.

A Starlette application with hubbub's App mounted in it, which is how hubbub lives in a
framework. No message and no server lives here. Made by whoever serves the demo.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from hubbub.app import App
from hubbub.demo.chat import Chat
from hubbub.demo.outboxes import Outboxes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hubbub.hub import Hub

__all__ = ("create_app",)

_STATIC = Path(__file__).parent / "static"


def create_app(hub: Hub) -> Starlette:
    """Make the demo's application: the page at ``/``, its sockets below ``/ws``.

    Args:
        hub: keeps the chat's rooms; the application's lifespan enters it.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        del app
        async with hub:
            yield

    chat = Chat(hub)
    sockets = App({"/chat": chat, "/outboxes": Outboxes(hub, chat)})
    return Starlette(
        routes=[
            Mount("/ws", sockets),
            Mount("/", StaticFiles(directory=_STATIC, html=True)),
        ],
        lifespan=lifespan,
    )
