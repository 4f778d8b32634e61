"""Other libraries whose connections a hub takes: how each is served, and how it tells of an end.

Each is imported here once, so that tests speak of a ``Library`` only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import anyio
import trio_websocket
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect as StarletteDisconnect
from websockets.asyncio.client import connect as connect_on_asyncio
from websockets.asyncio.server import serve as serve_on_asyncio
from websockets.trio.client import connect as connect_on_trio
from websockets.trio.server import serve as serve_on_trio

from tests.ws_bridge.peers import served

Handler: TypeAlias = Callable[[Any], Awaitable[None]]
Address: TypeAlias = tuple[str, int]
Backend: TypeAlias = tuple[str, dict[str, bool]]

ASYNCIO: Backend = ("asyncio", {"use_uvloop": False})
UVLOOP: Backend = ("asyncio", {"use_uvloop": True})
TRIO: Backend = ("trio", {})


@dataclass(frozen=True)
class Library:
    """A library: its server, and what a handler does with a connection of it."""

    name: str
    backends: tuple[Backend, ...]
    serve: Callable[[Handler], AbstractAsyncContextManager[Address]]
    receive: Callable[[Any], Awaitable[str | bytes]]
    send: Callable[[Any, str], Awaitable[None]]
    close: Callable[[Any, int, str], Awaitable[None]]
    disconnect: type[Exception]
    """What its receive raises at the end."""
    end: Callable[[Any], tuple[int, str]]
    """What that says of the end."""
    connect: Callable[[str], AbstractAsyncContextManager[Any]] | None = None
    """Its client, if it has one."""
    takes_every_close: bool = False
    """Its server takes a close frame also for a peer that does not read."""
    tells_own_close: bool = True
    """A handler whose connection was closed by another task is always told with which code."""

    def may_tell(self, code: int, reason: str) -> set[tuple[int, str]]:
        """How a handler may hear of such a close."""
        return {(code, reason)} if self.tells_own_close else {(code, reason), (1000, "")}


@asynccontextmanager
async def serve_starlette(handler: Handler) -> AsyncGenerator[Address]:
    async def endpoint(ws: StarletteWebSocket) -> None:
        await ws.accept()
        await handler(ws)

    async with served(Starlette(routes=[WebSocketRoute("/", endpoint)])) as address:
        yield address


@asynccontextmanager
async def serve_trio_websocket(handler: Handler) -> AsyncGenerator[Address]:
    async def accept(request: trio_websocket.WebSocketRequest) -> None:
        await handler(await request.accept())

    async with anyio.create_task_group() as tasks:
        server = await tasks.start(
            partial(trio_websocket.serve_websocket, accept, "127.0.0.1", 0, None)
        )
        yield "127.0.0.1", server.port
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def serve_websockets_on_asyncio(handler: Handler) -> AsyncGenerator[Address]:
    async with serve_on_asyncio(handler, "127.0.0.1", 0) as server:
        yield next(iter(server.sockets)).getsockname()[:2]


@asynccontextmanager
async def serve_websockets_on_trio(handler: Handler) -> AsyncGenerator[Address]:
    async with anyio.create_task_group() as tasks:
        server = await tasks.start(partial(serve_on_trio, handler, 0, host="127.0.0.1"))
        yield server.listeners[0].socket.getsockname()[:2]
        tasks.cancel_scope.cancel()


def end_of_starlette(error: StarletteDisconnect) -> tuple[int, str]:
    return error.code, error.reason


def end_of_trio_websocket(error: trio_websocket.ConnectionClosed) -> tuple[int, str]:
    assert error.reason is not None
    return error.reason.code, error.reason.reason or ""


def end_of_websockets(error: websockets.ConnectionClosed) -> tuple[int, str]:
    return (error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else (1006, "")


STARLETTE = Library(
    name="starlette",
    backends=(ASYNCIO, UVLOOP, TRIO),
    serve=serve_starlette,
    receive=lambda ws: ws.receive_text(),
    send=lambda ws, text: ws.send_text(text),
    close=lambda ws, code, reason: ws.close(code, reason),
    disconnect=StarletteDisconnect,
    end=end_of_starlette,
    takes_every_close=True,
)
TRIO_WEBSOCKET = Library(
    name="trio-websocket",
    backends=(TRIO,),
    serve=serve_trio_websocket,
    receive=lambda ws: ws.get_message(),
    send=lambda ws, text: ws.send_message(text),
    close=lambda ws, code, reason: ws.aclose(code, reason),
    disconnect=trio_websocket.ConnectionClosed,
    end=end_of_trio_websocket,
    connect=trio_websocket.open_websocket_url,
    tells_own_close=False,  # it says 1000, whatever was sent, until the peer has answered
)
WEBSOCKETS_ON_ASYNCIO = Library(
    name="websockets-asyncio",
    backends=(ASYNCIO, UVLOOP),
    serve=serve_websockets_on_asyncio,
    receive=lambda ws: ws.recv(),
    send=lambda ws, text: ws.send(text),
    close=lambda ws, code, reason: ws.close(code, reason),
    disconnect=websockets.ConnectionClosed,
    end=end_of_websockets,
    connect=partial(connect_on_asyncio, proxy=None),
)
WEBSOCKETS_ON_TRIO = Library(
    name="websockets-trio",
    backends=(TRIO,),
    serve=serve_websockets_on_trio,
    receive=lambda ws: ws.recv(),
    send=lambda ws, text: ws.send(text),
    close=lambda ws, code, reason: ws.aclose(code, reason),
    disconnect=websockets.ConnectionClosed,
    end=end_of_websockets,
    connect=partial(connect_on_trio, proxy=None),
)
LIBRARIES = (STARLETTE, TRIO_WEBSOCKET, WEBSOCKETS_ON_ASYNCIO, WEBSOCKETS_ON_TRIO)
