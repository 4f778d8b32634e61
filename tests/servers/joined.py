"""The probe's rooms for connections of other libraries: ASGI applications, and whole servers.

The applications are of Starlette and FastAPI. The servers are trio-websocket's and those of
websockets: ``python -m tests.servers.joined websockets-trio 8000``. No test imports this module.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import anyio
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from hubbub import WebSocketDisconnect
from tests.servers.probe import HUB, obey, take_part

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from trio_websocket import WebSocketRequest

    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[str], Awaitable[None]]

# -- As applications --------------------------------------------------------------------


async def room(ws: WebSocket) -> None:
    await ws.accept()
    await take_part(ws, ws.iter_text(), ws.query_params)


async def control(ws: WebSocket) -> None:
    await ws.accept()
    await obey(ws.iter_text(), ws.send_text)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    async with HUB:
        yield


def make_starlette() -> Starlette:
    routes = [WebSocketRoute("/room", room), WebSocketRoute("/control", control)]
    return Starlette(routes=routes, lifespan=lifespan)


def make_fastapi() -> Starlette:
    from fastapi import FastAPI

    app = FastAPI(lifespan=lifespan)
    app.websocket("/room")(room)
    app.websocket("/control")(control)
    return app


# -- As servers -------------------------------------------------------------------------


async def serve(
    connection: Any, target: str, receive: Receive, send: Send, closed: type[Exception]
) -> None:
    """Serve a connection of any library, by the path that it asked for."""

    async def texts() -> AsyncIterator[str]:
        with suppress(closed):
            while True:
                yield await receive()

    url = urlsplit(target)
    with suppress(WebSocketDisconnect):
        if url.path == "/room":
            await take_part(connection, texts(), dict(parse_qsl(url.query)))
        else:
            await obey(texts(), send)


async def serve_trio_websocket(port: int) -> None:
    from trio_websocket import ConnectionClosed, serve_websocket

    async def accept(request: WebSocketRequest) -> None:
        ws = await request.accept()
        await serve(ws, request.path, ws.get_message, ws.send_message, ConnectionClosed)

    await serve_websocket(accept, "127.0.0.1", port, None)


async def accept_websockets(ws: Any) -> None:
    from websockets import ConnectionClosed

    await serve(ws, ws.request.path, ws.recv, ws.send, ConnectionClosed)


async def serve_websockets_on_asyncio(port: int) -> None:
    from websockets.asyncio.server import serve

    async with serve(accept_websockets, "127.0.0.1", port):
        await anyio.sleep_forever()


async def serve_websockets_on_trio(port: int) -> None:
    from websockets.trio.server import serve

    await serve(accept_websockets, port, host="127.0.0.1")


async def run(server: Callable[[int], Awaitable[None]], port: int) -> None:
    async with HUB:
        await server(port)


SERVERS: dict[str, tuple[Callable[[int], Awaitable[None]], str, dict[str, bool]]] = {
    "trio-websocket": (serve_trio_websocket, "trio", {}),
    "websockets-asyncio": (serve_websockets_on_asyncio, "asyncio", {}),
    "websockets-uvloop": (serve_websockets_on_asyncio, "asyncio", {"use_uvloop": True}),
    "websockets-trio": (serve_websockets_on_trio, "trio", {}),
}

if __name__ == "__main__":
    server, backend, options = SERVERS[sys.argv[1]]
    anyio.run(run, server, int(sys.argv[2]), backend=backend, backend_options=options)
