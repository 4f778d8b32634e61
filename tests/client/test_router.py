"""A router at the client's end: it asks, and is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from hubbub import App, Router, RouterError, WebSocket, WebSocketDisconnect, reconnecting
from hubbub.client import Backoff
from tests.client.servers import CLOSE, TEXT, Server, hosted, scripted
from tests.ws_bridge.peers import served

NO_HANDLERS = Router()


def make_server() -> Router:
    router = Router(grace=0.0)

    @router.on("add")
    async def add(payload: list[int]) -> int:
        return sum(payload)

    @router.on("greet")
    async def greet(ws: WebSocket) -> str:
        return f"hello {await ws.request('name', {})}"

    @router.on("wait", mode="concurrent")
    async def wait() -> None:
        await anyio.sleep_forever()

    @router.on("count")
    async def count(payload: int) -> AsyncIterator[int]:
        for number in range(payload):
            yield number

    @router.on("sum")
    async def add_up(ws: WebSocket) -> int:
        async with ws.stream("count", 100) as numbers:
            return sum([number async for number in numbers])

    @router.on("leave")
    async def leave(ws: WebSocket, payload: int) -> None:
        await ws.close(payload, "bye")

    return router


class Named(Router):
    """Says who it is, when it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()
        self.allowed = anyio.Event()
        self.cancelled = False
        self.on("name")(self.name)

    async def name(self) -> str:
        self.asked.set()
        try:
            await self.allowed.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        return "ann"


@pytest.mark.parametrize("subprotocols", [[], ["hubbub.msgpack"]])
async def test_it_asks(link: str, subprotocols: list[str]) -> None:
    async with hosted(link, App({"/": make_server()})) as to:
        async with to(subprotocols=subprotocols) as ws, NO_HANDLERS.serving(ws):
            assert ws.accepted_subprotocol == (subprotocols[0] if subprotocols else None)
            assert await ws.request("add", [1, 2, 3]) == 6
            with pytest.raises(RouterError) as raised:
                await ws.request("add", "x")
            assert raised.value.code == "invalid_payload"


async def test_it_asks_several_things_at_once(link: str) -> None:
    totals: dict[int, Any] = {}

    async def add(ws: WebSocket, number: int) -> None:
        totals[number] = await ws.request("add", [number, number])

    async with hosted(link, App({"/": make_server()})) as to:
        async with to() as ws, NO_HANDLERS.serving(ws), anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(add, ws, number)
    assert totals == {number: 2 * number for number in range(50)}


async def test_it_is_asked_while_it_asks(link: str) -> None:
    named = Named()
    named.allowed.set()
    async with hosted(link, App({"/": make_server()})) as to, to() as ws, named.serving(ws):
        assert await ws.request("greet", {}) == "hello ann"


async def test_what_it_has_no_handler_for(link: str) -> None:
    async with hosted(link, App({"/": make_server()})) as to, to() as ws, NO_HANDLERS.serving(ws):
        with pytest.raises(RouterError) as raised:
            await ws.request("greet", {})
        assert raised.value.code == "unknown_type"


async def test_on_the_wire(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        first, asked = await server.hear()
        assert first == TEXT
        assert json.loads(asked) == {"type": "add", "payload": [1, 2], "id": "call-1"}
        await server.say(TEXT, b'{"type": "name", "id": 7}')
        assert json.loads((await server.hear())[1]) == {
            "type": "name.reply",
            "payload": "ann",
            "id": 7,
        }
        await server.say(TEXT, b'{"type": "add.reply", "payload": 3, "id": "call-1"}')
        assert (await server.hear())[0] == CLOSE

    named = Named()
    named.allowed.set()
    async with scripted(link, script) as to, to() as ws, named.serving(ws):
        assert await ws.request("add", [1, 2]) == 3


async def test_the_end_of_the_connection_ends_its_requests(link: str) -> None:
    ends: list[tuple[int, str]] = []

    async def wait(ws: WebSocket) -> None:
        with pytest.raises(WebSocketDisconnect) as raised:
            await ws.request("wait", {}, timeout=None)
        ends.append((raised.value.code, raised.value.reason))

    async with hosted(link, App({"/": make_server()})) as to, to() as ws:
        async with NO_HANDLERS.serving(ws), anyio.create_task_group() as tasks:
            tasks.start_soon(wait, ws)
            tasks.start_soon(wait, ws)
            with pytest.raises(WebSocketDisconnect):
                await ws.request("leave", 4000)
    assert ends == [(4000, "bye")] * 2


async def test_no_answer_in_time(link: str) -> None:
    async with hosted(link, App({"/": make_server()})) as to, to() as ws, NO_HANDLERS.serving(ws):
        with pytest.raises(TimeoutError):
            await ws.request("wait", {}, timeout=0.01)
        assert await ws.request("add", [1]) == 1


async def test_leaving_the_block_cancels_handlers_and_not_the_connection(link: str) -> None:
    async def ask(ws: WebSocket) -> None:
        async with ws:
            await ws.send_json({"type": "name", "id": 1})
            async for text in ws:
                await ws.send_text(text)

    named = Named()
    async with hosted(link, App({"/": ask})) as to, to() as ws:
        async with named.serving(ws):
            await named.asked.wait()
        assert named.cancelled
        with pytest.raises(RuntimeError, match="no router serves this connection"):
            await ws.request("name", {})
        await ws.send("still here")
        assert await ws.receive() == "still here"


async def test_an_error_in_the_block_comes_out_as_it_is(link: str) -> None:
    async with hosted(link, App({"/": make_server()})) as to:
        with pytest.raises(ZeroDivisionError):
            async with to() as ws, NO_HANDLERS.serving(ws):
                assert await ws.request("add", [1]) == 1
                _ = 1 / 0


async def test_of_a_block_that_is_cancelled(link: str) -> None:
    named = Named()
    async with hosted(link, App({"/": make_server()})) as to:
        with anyio.CancelScope() as scope:
            async with to() as ws, named.serving(ws), anyio.create_task_group() as tasks:
                tasks.start_soon(ws.request, "greet", {})
                await named.asked.wait()
                scope.cancel()
        assert named.cancelled


async def test_one_that_is_only_asked(link: str) -> None:
    """Without a block: until the server leaves."""
    named, names = Named(), list[str]()
    named.allowed.set()

    async def ask(ws: WebSocket) -> None:
        async with ws, NO_HANDLERS.serving(ws):
            names.extend([await ws.request("name", {}) for _ in range(3)])

    async with hosted(link, App({"/": ask})) as to, to() as ws:
        await named.run(ws)
        assert ws.close_code == 1000
    assert names == ["ann"] * 3


async def test_it_takes_replies_one_by_one(link: str) -> None:
    async with hosted(link, App({"/": make_server()})) as to, to() as ws, NO_HANDLERS.serving(ws):
        async with ws.stream("count", 1000) as numbers:
            assert [number async for number in numbers] == list(range(1000))
        async with ws.stream("count", 1000) as numbers:
            assert await anext(numbers) == 0
        assert await ws.request("add", [1]) == 1
        async with ws.stream("count", "x") as numbers:
            with pytest.raises(RouterError) as raised:
                await anext(numbers)
        assert raised.value.code == "invalid_payload"


async def test_it_is_asked_for_several_replies(link: str) -> None:
    async with hosted(link, App({"/": make_server()})) as to, to() as ws:
        async with make_server().serving(ws):
            assert await ws.request("sum", {}) == sum(range(100))


async def test_replies_that_are_not_taken_make_the_server_wait(link: str) -> None:
    router, yielded = Router(), 0

    @router.on("pages")
    async def pages() -> AsyncIterator[str]:
        nonlocal yielded
        while yielded < 100:
            yielded += 1
            yield "x" * 1_000_000

    async with hosted(link, App({"/": router})) as to, to(deflate=False) as ws:
        async with NO_HANDLERS.serving(ws), ws.stream("pages", {}) as replies:
            await anext(replies)
            await anyio.wait_all_tasks_blocked()
            assert yielded < 100
            assert [len(page) async for page in replies] == [1_000_000] * 99


async def test_replies_that_are_in_the_way_of_an_answer_are_lost(link: str) -> None:
    async with hosted(link, App({"/": make_server()})) as to, to() as ws, NO_HANDLERS.serving(ws):
        async with ws.stream("count", 1000) as numbers:
            assert await ws.request("add", [1]) == 1  # answered after the thousand
            with pytest.raises(RouterError) as raised:
                async for number in numbers:
                    assert number < 16
            assert raised.value.code == "too_busy"


async def test_one_connection_after_the_other() -> None:
    totals: list[int] = []
    async with served(App({"/": make_server()})) as (host, port):
        async for ws in reconnecting(f"ws://{host}:{port}/", backoff=Backoff(first=0)):
            async with ws, NO_HANDLERS.serving(ws):
                totals.append(await ws.request("add", [len(totals)]))
                if len(totals) == 3:
                    break
                await ws.request("leave", 1012)  # ends the block, and not the loop
    assert totals == [0, 1, 2]
