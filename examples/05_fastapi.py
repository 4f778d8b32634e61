"""Rooms in FastAPI, whose WebSockets are joined as they are: ``uvicorn 05_fastapi:app``.

Connect to ``/rooms/tea``, or ``curl -d "the kettle boils" http://127.0.0.1:8000/rooms/tea``.
It is the same in Starlette, where a room is ``WebSocketRoute("/rooms/{name}", room)``.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, WebSocket

from hubbub import Delivery, Hub

hub = Hub()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with hub:
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/rooms/{name}")
async def room(ws: WebSocket, name: str) -> None:
    await ws.accept()
    async with hub.join(name, ws) as me:
        await me.send(f"welcome to {name}")  # through the member: in order with broadcasts
        async for text in ws.iter_text():  # until the peer leaves, or could not keep up
            await hub.broadcast(name, text, exclude=me)


@app.post("/rooms/{name}")
async def publish(name: str, request: Request) -> Delivery:
    return await hub.broadcast(name, (await request.body()).decode())
