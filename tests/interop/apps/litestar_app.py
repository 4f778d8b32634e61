from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from litestar import Litestar, WebSocket, websocket
from litestar.exceptions import NotAuthorizedException, WebSocketDisconnect

Socket: TypeAlias = WebSocket[Any, Any, Any]


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncGenerator[None]:
    app.state.greeting = "hello"
    yield


@websocket("/bytes")
async def echo_bytes(socket: Socket) -> None:
    await socket.accept()
    async for data in socket.iter_data("binary"):
        await socket.send_bytes(data)


@websocket("/bye")
async def bye(socket: Socket) -> None:
    await socket.accept()
    await socket.close(4001, "bye")


@websocket("/broken")
async def broken(socket: Socket) -> None:
    await socket.accept()
    raise LookupError("broken")


@websocket("/private")
async def private(socket: Socket) -> None:
    raise NotAuthorizedException("Who are you?")


def make_app(ends: list[object]) -> Litestar:
    @websocket("/rooms/{name:str}")
    async def room(socket: Socket) -> None:
        await socket.accept("chat", [(b"x-room", b"open")])
        await socket.send_json(
            {
                "name": socket.path_params["name"],
                "color": socket.query_params["color"],
                "token": socket.headers["x-token"],
                "greeting": socket.app.state.greeting,
            }
        )
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        except WebSocketDisconnect as error:
            ends.append(error.code)  # it does not tell the reason

    return Litestar([room, echo_bytes, bye, broken, private], lifespan=[lifespan])
