from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, WebSocket, WebSocketDisconnect


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[dict[str, str]]:
    yield {"greeting": "hello"}


def make_app(ends: list[object]) -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.websocket("/rooms/{name}")
    async def room(ws: WebSocket, name: str, color: str, x_token: Annotated[str, Header()]) -> None:
        await ws.accept("chat", [(b"x-room", b"open")])
        greeting = ws.state.greeting
        await ws.send_json({"name": name, "color": color, "token": x_token, "greeting": greeting})
        try:
            while True:
                await ws.send_text(await ws.receive_text())
        except WebSocketDisconnect as error:
            ends.append((error.code, error.reason))

    @app.websocket("/bytes")
    async def echo_bytes(ws: WebSocket) -> None:
        await ws.accept()
        async for data in ws.iter_bytes():
            await ws.send_bytes(data)

    @app.websocket("/bye")
    async def bye(ws: WebSocket) -> None:
        await ws.accept()
        await ws.close(4001, "bye")

    @app.websocket("/broken")
    async def broken(ws: WebSocket) -> None:
        await ws.accept()
        raise LookupError("broken")

    @app.websocket("/private")
    async def private(_ws: WebSocket) -> None:
        raise HTTPException(401, "Who are you?", {"x-why": "unknown"})

    return app
