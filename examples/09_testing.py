"""Tests of a chat, without a socket or a sleep: ``pytest -o anyio_mode=auto 09_testing.py``."""

import anyio
import pytest

from hubbub import App, DropOldest, Hub, WebSocket
from hubbub.testing import Rejected, TestClient

hub = Hub()


async def chat(ws: WebSocket) -> None:
    if "token" not in ws.query_params:
        await ws.reject(401)
        return
    async with ws, hub.join("lobby", ws, policy=DropOldest(), capacity=4) as me:
        async for text in ws:
            await hub.broadcast("lobby", text, exclude=me)


app = App({"/chat": chat}, lifespan=hub)


async def test_everybody_else_hears_it() -> None:
    async with TestClient(app) as client, client.connect("/chat?token=1") as ann:
        async with client.connect("/chat?token=2") as bob:
            await ann.send_text("hi")
            assert await bob.receive_text() == "hi"
            await ann.expect_silence()


async def test_who_does_not_read_loses_old_news() -> None:
    async with TestClient(app) as client, client.connect("/chat?token=1") as ann:
        async with client.connect("/chat?token=2") as bob:
            bob.stall()
            for number in range(100):
                await ann.send_text(str(number))
            await anyio.wait_all_tasks_blocked()
            bob.resume()
            assert [await bob.receive_text() for _ in range(5)][1:] == ["96", "97", "98", "99"]


async def test_strangers_are_refused() -> None:
    async with TestClient(app) as client:
        with pytest.raises(Rejected, match="status 401"):
            async with client.connect("/chat"):
                pass
