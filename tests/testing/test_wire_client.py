"""WireClient: the same through the whole of the server."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from hubbub import App, WebSocket, WebSocketDisconnect
from hubbub.testing import Rejected, WireClient
from hubbub.types import Receive, Scope, Send
from hubbub.ws_bridge import Config


class HandlerError(Exception):
    """What a handler fails with, on purpose."""


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for message in ws.iter_messages():
            await ws.send(message)


def app_of(handler: Any, **options: Any) -> App:
    return App({"/": handler}, **options)


@pytest.mark.parametrize("split", [None, 1])
async def test_messages_of_every_kind(split: int | None) -> None:
    async with WireClient(app_of(echo)) as client, client.connect("/", split=split) as ws:
        for message in ("text", b"bytes", "", b"", "grüße" * 100):
            await ws.send(message)
            assert await ws.receive() == message
        await ws.expect_silence()


async def test_the_handshake() -> None:
    async def answer(ws: WebSocket) -> None:
        seen.append(ws)
        await ws.accept("y", {"X-Answer": "é"})
        async for _ in ws:
            pass

    seen: list[WebSocket] = []
    async with WireClient(App({"/a b": answer})) as client:
        options: Any = {"headers": {"X-Asks": "é"}, "subprotocols": ["x", "y"]}
        async with client.connect("/a b?c=d", **options) as ws:
            assert ws.accepted_subprotocol == "y"
            assert ws.headers["x-answer"] == "é"
    assert seen[0].headers["x-asks"] == "é"
    assert seen[0].query_params == {"c": "d"}


async def test_a_rejection() -> None:
    async def reject(ws: WebSocket) -> None:
        await ws.reject(401, {"WWW-Authenticate": "Bearer"}, b"Who are you?")

    async with WireClient(app_of(reject)) as client:
        with pytest.raises(Rejected) as rejected:
            async with client.connect("/"):
                raise AssertionError("connected")
    assert rejected.value.status == 401
    assert rejected.value.headers["www-authenticate"] == "Bearer"
    assert rejected.value.body == b"Who are you?"


async def test_the_connection_breaks_during_the_handshake() -> None:
    async with WireClient(app_of(echo)) as client:
        with pytest.raises(WebSocketDisconnect, match="1006"):
            async with client.connect("/", cut_after=20):
                raise AssertionError("connected")


class Listener:
    """A handler that notes how its connection has ended."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.end: tuple[int | None, str | None] = (None, None)

    async def __call__(self, ws: WebSocket) -> None:
        async with ws:
            async for text in ws:
                self.heard.append(text)
        self.end = (ws.close_code, ws.close_reason)


@pytest.mark.parametrize(
    ("leave", "end"),
    [
        (lambda ws: ws.close(4321, "why"), (4321, "why")),
        (lambda ws: ws.close(), (1000, "")),
        (lambda ws: ws.close(None), (1000, "")),
        (lambda ws: ws.abort(), (1006, "")),
        (lambda ws: ws.half_close(), (1006, "")),
        (lambda ws: None, (1000, "")),
    ],
    ids=["closes", "closes-plainly", "closes-bare", "aborts", "half-closes", "goes-with-block"],
)
async def test_the_peer_leaves(leave: Any, end: tuple[int, str]) -> None:
    listener = Listener()
    async with WireClient(app_of(listener)) as client, client.connect("/") as ws:
        await ws.send("hello")
        await anyio.wait_all_tasks_blocked()
        left = leave(ws)
        if left is not None:
            await left
    assert listener.heard == ["hello"]
    assert listener.end == end


async def test_the_application_closes() -> None:
    async def close(ws: WebSocket) -> None:
        async with ws:
            await ws.send("last words")
            await ws.close(4009, "app says")

    async with WireClient(app_of(close)) as client, client.connect("/") as ws:
        assert await ws.receive() == "last words"
        await ws.expect_close(4009, "app says")
        with pytest.raises(WebSocketDisconnect, match="4009"):
            await ws.send("too late")


async def test_a_connection_that_breaks_midway() -> None:
    async with WireClient(app_of(echo)) as client, client.connect("/", cut_after=1000) as ws:
        with pytest.raises(WebSocketDisconnect, match="1006"):
            while True:
                await ws.send(bytes(100))
                await ws.receive()


async def test_a_stalled_peer() -> None:
    sent: list[int] = []

    async def flood(ws: WebSocket) -> None:
        async with ws:
            for number in range(10_000):
                await ws.send(bytes(1000))
                sent.append(number)

    async with WireClient(app_of(flood)) as client, client.connect("/", capacity=1000) as ws:
        ws.stall()
        await anyio.wait_all_tasks_blocked()
        stalled_at = len(sent)
        assert stalled_at < 10_000
        ws.resume()
        for _ in range(10_000):
            assert await ws.receive() == bytes(1000)
        await ws.expect_close(1000)
    assert len(sent) == 10_000


async def test_a_handler_raises() -> None:
    async def fail(ws: WebSocket) -> None:
        async with ws:
            await ws.receive()
            raise HandlerError("of the handler")

    async with WireClient(app_of(fail)) as client:
        with pytest.raises(HandlerError) as error:
            async with client.connect("/") as ws:
                await ws.send("go")
                await ws.receive()
    assert "peer  sends text 'go'" in error.value.__notes__[0]
    async with WireClient(app_of(fail), raise_app_exceptions=False) as client:
        async with client.connect("/") as ws:
            await ws.send("go")
            await ws.expect_close(1011)


async def test_limits_of_the_server() -> None:
    config = Config(max_message_size=10)
    async with WireClient(app_of(echo), config=config) as client, client.connect("/") as ws:
        await ws.send("x" * 11)
        await ws.expect_close(1009)


async def test_state_of_the_lifespan() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["type"] == "lifespan":
            scope["state"]["a"] = "state"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": scope["state"]["a"]})

    async with WireClient(app) as client, client.connect("/") as ws:
        assert await ws.receive() == "state"


async def test_cancellation() -> None:
    over = anyio.Event()

    async def stay(ws: WebSocket) -> None:
        try:
            async with ws:
                await anyio.sleep_forever()
        finally:
            over.set()

    async with WireClient(app_of(stay)) as client:
        with anyio.CancelScope() as scope:
            async with client.connect("/"):
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert over.is_set()
