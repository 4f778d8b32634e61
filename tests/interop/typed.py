"""Other frameworks' applications where ours may stand; the type checkers are the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubbub.testing import TestClient, WireClient
from hubbub.ws_bridge import run, serve, serve_connection

if TYPE_CHECKING:
    from anyio.abc import ByteStream
    from fastapi import FastAPI
    from litestar import Litestar
    from quart import Quart
    from quart_trio import QuartTrio
    from starlette.applications import Starlette

    from hubbub import App


async def take(
    app: App | FastAPI | Litestar | Quart | QuartTrio | Starlette, stream: ByteStream
) -> None:
    run(app)
    await serve(app)
    await serve_connection(app, stream)
    TestClient(app)
    WireClient(app)
