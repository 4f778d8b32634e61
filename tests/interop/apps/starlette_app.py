from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncGenerator[dict[str, str]]:
    yield {"greeting": "hello"}


async def echo_bytes(ws: WebSocket) -> None:
    await ws.accept()
    async for data in ws.iter_bytes():
        await ws.send_bytes(data)


async def bye(ws: WebSocket) -> None:
    await ws.accept()
    await ws.close(4001, "bye")


async def broken(ws: WebSocket) -> None:
    await ws.accept()
    raise LookupError("broken")


async def private(ws: WebSocket) -> None:
    await ws.send_denial_response(PlainTextResponse("Who are you?", 401, {"x-why": "unknown"}))


def make_app(ends: list[object]) -> Starlette:
    async def room(ws: WebSocket) -> None:
        name = ws.path_params["name"]
        await ws.accept("chat", [(b"x-room", b"open")])
        await ws.send_json(
            {
                "name": name,
                "color": ws.query_params["color"],
                "token": ws.headers["x-token"],
                "greeting": ws.state.greeting,
            }
        )
        try:
            while True:
                await ws.send_text(await ws.receive_text())
        except WebSocketDisconnect as error:
            ends.append((error.code, error.reason))

    return Starlette(
        routes=[
            WebSocketRoute("/rooms/{name}", room),
            WebSocketRoute("/bytes", echo_bytes),
            WebSocketRoute("/bye", bye),
            WebSocketRoute("/broken", broken),
            WebSocketRoute("/private", private),
        ],
        lifespan=lifespan,
    )
