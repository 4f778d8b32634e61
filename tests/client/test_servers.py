"""Servers that others have made."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
import trio_websocket
import websockets.asyncio.server
import websockets.trio.server
from sniffio import current_async_library
from websockets.typing import Subprotocol
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from hubbub import connect
from hubbub.exceptions import HandshakeError
from tests.client.talk import talk
from tests.ws_bridge.peers import memory_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import ByteStream

CHAT = Subprotocol("chat")


def only_on(library: str) -> None:
    if current_async_library() != library:
        pytest.skip(f"this server knows {library}")


# -- websockets -----------------------------------------------------------------------


async def serve_asyncio(connection: websockets.asyncio.server.ServerConnection) -> None:
    assert connection.request is not None
    if connection.request.path == "/close":
        await connection.close(4000, "bye")
    async for message in connection:
        await connection.send(message)


async def serve_trio(connection: websockets.trio.server.ServerConnection) -> None:
    assert connection.request is not None
    if connection.request.path == "/close":
        await connection.aclose(4000, "bye")
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def websockets_server() -> AsyncGenerator[str]:
    if current_async_library() == "asyncio":
        serving = websockets.asyncio.server.serve(
            serve_asyncio,
            "127.0.0.1",
            0,
            subprotocols=[CHAT],
        )
        async with serving as server:
            [sock] = server.sockets
            yield f"ws://127.0.0.1:{sock.getsockname()[1]}"
        return
    async with trio.open_nursery() as nursery:
        serve: Any = partial(
            websockets.trio.server.serve,
            serve_trio,
            0,
            host="127.0.0.1",
            subprotocols=[CHAT],
        )
        server = await nursery.start(serve)
        yield f"ws://127.0.0.1:{server.listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("deflate", [True, False])
async def test_websockets(deflate: bool) -> None:
    async with websockets_server() as url:
        async with connect(f"{url}/", subprotocols=["chat"], deflate=deflate) as ws:
            assert ("sec-websocket-extensions" in ws.headers) is deflate
        await talk(url, deflate=deflate)


# -- trio-websocket -------------------------------------------------------------------


async def test_trio_websocket() -> None:
    only_on("trio")

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        if request.path == "/refuse":
            return await request.reject(403, body=b"no")
        offered = request.proposed_subprotocols
        ws = await request.accept(subprotocol=offered[0] if offered else None)
        if request.path == "/close":
            await ws.aclose(4000, "bye")
        try:
            while True:
                await ws.send_message(await ws.get_message())
        except trio_websocket.ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, ssl_context=None)
        )
        url = f"ws://127.0.0.1:{server.port}"
        await talk(url)
        with pytest.raises(HandshakeError) as raised:
            async with connect(f"{url}/refuse"):
                raise AssertionError
        assert (raised.value.status, raised.value.body) == (403, b"no")
        nursery.cancel_scope.cancel()


# -- wsproto --------------------------------------------------------------------------


class WsprotoServer:
    """A server of wsproto's, on any stream."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.ws = WSConnection(ConnectionType.SERVER)
        self.parts: list[Any] = []

    async def run(self) -> None:
        async with self.stream:
            try:
                while True:
                    self.ws.receive_data(await self.stream.receive())
                    for event in self.ws.events():
                        if not await self.meet(event):
                            return
            except anyio.EndOfStream:
                pass

    async def meet(self, event: Event) -> bool:
        if isinstance(event, Request):
            subprotocol = event.subprotocols[0] if event.subprotocols else None
            await self.send(AcceptConnection(subprotocol, extensions=[PerMessageDeflate()]))
            if event.target == "/close":
                await self.send(CloseConnection(4000, "bye"))
        elif isinstance(event, Ping):
            await self.send(event.response())
        elif isinstance(event, TextMessage | BytesMessage):
            self.parts.append(event.data)
            if event.message_finished:
                data = self.parts[0][:0].join(self.parts)
                self.parts.clear()
                message: Message[Any] = (
                    TextMessage(data) if isinstance(data, str) else BytesMessage(bytes(data))
                )
                await self.send(message)
        elif isinstance(event, CloseConnection):
            if self.ws.state.name == "REMOTE_CLOSING":
                await self.send(event.response())
            return False
        return True

    async def send(self, event: Event) -> None:
        await self.stream.send(self.ws.send(event))


async def test_wsproto_in_memory() -> None:
    async with anyio.create_task_group() as tasks:

        def reach(url: str, **options: Any) -> connect:
            ours, theirs = memory_pair()
            tasks.start_soon(WsprotoServer(theirs).run)
            return connect(url, stream=ours, **options)

        await talk("ws://test", reach)
