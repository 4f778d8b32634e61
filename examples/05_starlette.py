"""Rooms in Starlette, whose WebSockets are joined as they are: ``uvicorn 05_starlette:app``.

Connect to ``/rooms/tea``, or ``curl -d "the kettle boils" http://127.0.0.1:8000/rooms/tea``.
FastAPI's WebSocket is Starlette's: there a room is ``@app.websocket("/rooms/{name}")``.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hubbub import Hub

hub = Hub()


async def room(ws: WebSocket) -> None:
    name = ws.path_params["name"]
    await ws.accept()
    async with hub.join(name, ws) as me:
        await me.send(f"welcome to {name}")  # by way of the member: in order with broadcasts
        async for text in ws.iter_text():  # until the peer leaves, or could not keep up
            await hub.broadcast(name, text, exclude=me)


async def publish(request: Request) -> JSONResponse:
    text = (await request.body()).decode()
    return JSONResponse(asdict(await hub.broadcast(request.path_params["name"], text)))


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    async with hub:
        yield


routes = [WebSocketRoute("/rooms/{name}", room), Route("/rooms/{name}", publish, methods=["POST"])]
app = Starlette(routes=routes, lifespan=lifespan)
