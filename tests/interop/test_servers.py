"""Servers of other libraries, beside those of ``tests.client.test_servers``."""

from __future__ import annotations

import pytest
from sniffio import current_async_library

from hubbub import connect
from hubbub.exceptions import HandshakeError
from tests.client.talk import talk
from tests.interop.conftest import require

pytestmark = pytest.mark.interop


async def test_aiohttp() -> None:
    if current_async_library() != "asyncio":
        pytest.skip("aiohttp knows asyncio")
    require("aiohttp")
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=["chat"])
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    async def close(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.close(code=4000, message=b"bye")
        return ws

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=403, text="no")

    async def move(request: web.Request) -> web.Response:
        raise web.HTTPFound("/")

    app = web.Application()
    handlers = {"/": echo, "/close": close, "/refuse": refuse, "/move": move}
    app.add_routes([web.get(path, handler) for path, handler in handlers.items()])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        [(host, port)] = runner.addresses
        url = f"ws://{host}:{port}"
        await talk(url)
        async with connect(f"{url}/move") as ws:
            await ws.send("moved")
            assert await ws.receive() == "moved"
        with pytest.raises(HandshakeError) as raised:
            async with connect(f"{url}/refuse"):
                raise AssertionError
        assert (raised.value.status, raised.value.body) == (403, b"no")
    finally:
        await runner.cleanup()
