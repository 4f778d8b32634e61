"""The examples: each is imported by its path, and its app talked to."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import anyio
import httpx
import pytest
from trio_websocket import open_websocket_url

from tests.peer import Peer, call, eventually, running
from tests.router.client import Client
from tests.ws_bridge.peers import served

if TYPE_CHECKING:
    from types import ModuleType

    from hubbub import App

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))


def load(name: str) -> ModuleType:
    [path] = [path for path in EXAMPLES if path.stem == name]
    spec = spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short_and_says_what_it_is(path: Path) -> None:
    module = load(path.stem)
    assert module.__doc__
    assert len(path.read_text().splitlines()) < 50


async def test_echo() -> None:
    peer = Peer(path="/echo")
    app: App = load("01_echo").app
    async with running(app, peer):
        peer.say("hi")
        peer.say("ho")
        await eventually(lambda: len(peer.heard) == 2)
        peer.leave()
    assert peer.heard == ["hi", "ho"]


async def has_heard(peer: Peer, text: str) -> None:
    await eventually(lambda: peer.heard[-1:] == [text])


async def has_prices(peer: Peer, prices: dict[str, int]) -> None:
    def known() -> dict[str, int]:
        return {tick["symbol"]: tick["price"] for tick in map(json.loads, peer.heard[1:])}

    await eventually(lambda: known() == prices)


class Guest(Peer):
    def __init__(self, nick: str) -> None:
        super().__init__(path="/chat", query_string=urlencode({"nick": nick}).encode())

    def tell_chat(self, kind: str, **payload: Any) -> None:
        self.say(json.dumps({"type": kind, "payload": payload}))

    async def hear(self, number: int) -> list[tuple[str, dict[str, Any]]]:
        """All that came so far: that many messages, once they are there."""
        await eventually(lambda: len(self.heard) >= number)
        messages = [json.loads(text) for text in self.heard]
        assert len(messages) == number
        return [(message["type"], message["payload"]) for message in messages]


async def test_chat() -> None:
    module = load("02_chat")
    app: App = module.app
    ann, bob = Guest("ann"), Guest("bob")
    async with module.hub, anyio.create_task_group() as tasks:
        tasks.start_soon(call, app, ann)
        assert await ann.hear(1) == [
            ("joined", {"room": "lobby", "nick": "ann", "members": ["ann"]})
        ]
        tasks.start_soon(call, app, bob)
        both = {"room": "lobby", "nick": "bob", "members": ["ann", "bob"]}
        assert await bob.hear(1) == [("joined", both)]
        assert (await ann.hear(2))[-1] == ("joined", both)

        bob.tell_chat("say", room="lobby", text="<hi>")
        said = ("said", {"room": "lobby", "nick": "bob", "text": "<hi>"})
        assert (await ann.hear(3))[-1] == (await bob.hear(2))[-1] == said

        for bad in ("what?", b"{}", "5", '{"type": "say"}', "[" * 100_000):
            bob.say(bad)
        bob.tell_chat("say", room="tea", text="not there")
        bob.tell_chat("join", room="lobby")
        assert [kind for kind, _ in await bob.hear(9)][2:] == ["error"] * 7

        bob.tell_chat("join", room="tea")
        assert (await bob.hear(10))[-1][1]["members"] == ["bob"]
        bob.tell_chat("leave", room="lobby")
        left = ("left", {"room": "lobby", "nick": "bob", "members": ["ann"]})
        assert (await ann.hear(4))[-1] == left
        ann.tell_chat("join", room="tea")
        assert (await ann.hear(5))[-1][1]["members"] == ["ann", "bob"]
        bob.leave()
        gone = ("left", {"room": "tea", "nick": "bob", "members": ["ann"]})
        assert (await ann.hear(6))[-1] == gone
        ann.leave()


async def test_in_the_chat_a_peer_that_does_not_read_harms_nobody() -> None:
    module = load("02_chat")
    ann, bob = Guest("ann"), Guest("bob")
    async with module.hub, anyio.create_task_group() as tasks:
        for guest in (ann, bob):
            tasks.start_soon(call, module.app, guest)
        await eventually(lambda: len(module.hub.connections) == 2)
        bob.stop_reading()
        for number in range(500):
            ann.tell_chat("say", room="lobby", text=str(number))
        await eventually(lambda: '"499"' in str(ann.heard[-1:]))
        assert len(module.hub.connections) == 2
        bob.read_on()
        await eventually(lambda: '"499"' in str(bob.heard[-1:]))
        assert len(bob.heard) < 300
        ann.leave()
        bob.leave()


async def test_rooms() -> None:
    module = load("07_rooms")
    ann, bob, eve = peers = [
        Peer(path="/rooms", query_string=b"nick=" + nick) for nick in (b"ann", b"bob", b"eve")
    ]
    async with module.hub, running(module.app, *peers):
        await eventually(lambda: len(module.hub.connections) == 3)
        ann.say("+tea")
        await eventually(lambda: ann.heard == ["you are in lobby, tea"])
        bob.say("+tea")
        await eventually(lambda: bob.heard == ["you are in lobby, tea"])
        ann.say("tea: milk?")
        await eventually(lambda: ann.heard[1:] == ["told 1"])
        eve.say("@bob don't: it is sour")
        await eventually(
            lambda: bob.heard[1:] == ["ann in tea: milk?", "eve to you: don't: it is sour"]
        )
        eve.say("tea: not there")
        eve.say("@nobody hm")
        eve.say("-lobby")
        await eventually(lambda: len(eve.heard) == 3)
        assert [str(text).partition(" ")[0] for text in eve.heard] == ["expected"] * 2 + ["you"]
        assert eve.heard[2] == "you are in no room"
        for peer in peers:
            peer.leave()


async def test_market_feed() -> None:
    module = load("04_market_feed")
    peer = Peer(path="/feed")
    async with module.market(), running(module.app, peer):
        await eventually(lambda: len(peer.heard) > 3)
        snapshot, *ticks = map(json.loads, peer.heard)
        assert set(snapshot["prices"]) == {"ACME", "INIT", "OCP", "HOOLI"}
        assert all(set(tick) == {"symbol", "price"} for tick in ticks)
        peer.leave()


async def test_in_the_market_a_slow_peer_has_the_last_prices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = load("04_market_feed")
    monkeypatch.setattr(module, "trade", anyio.sleep_forever)
    fast, slow = Peer(path="/feed"), Peer(path="/feed")
    async with module.market(), running(module.app, fast, slow):
        await eventually(lambda: fast.heard and slow.heard)
        slow.stop_reading()
        for price in range(100):
            for name in module.prices:
                await module.hub.broadcast("market", json.dumps({"symbol": name, "price": price}))
            await has_heard(fast, f'{{"symbol": "HOOLI", "price": {price}}}')
        slow.read_on()
        for peer in (fast, slow):
            await has_prices(peer, dict.fromkeys(module.prices, 99))
            peer.leave()
        assert len(fast.heard) == 401
        assert len(slow.heard) < 30


async def test_fastapi() -> None:
    module = load("05_fastapi")
    ann, bob = (Peer(path="/rooms/tea", query_string=b"") for _ in range(2))
    transport = httpx.ASGITransport(module.app)
    async with (
        module.hub,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
        running(module.app, ann, bob),
    ):
        await eventually(lambda: ann.heard == bob.heard == ["welcome to tea"])
        ann.say("hi")
        await eventually(lambda: bob.heard[1:] == ["hi"])
        response = await http.post("/rooms/tea", content="the kettle boils")
        assert response.json() == {"members": 2, "sent": 2, "dropped": 0, "disconnected": 0}
        await eventually(lambda: ann.heard[1:] == ["the kettle boils"])
        ann.leave()
        bob.leave()


async def test_router() -> None:
    module = load("03_rpc")
    ann, nobody = Client(path="/game", query_string=b"nick=ann"), Client(path="/game")
    async with module.hub, running(module.app, ann, nobody):
        await eventually(lambda: nobody.closed_with)
        assert nobody.closed_with == (1008, "Say who you are")
        ann.tell_router("say", {"text": "hi"}, id=1)
        said = {"type": "said", "payload": {"nick": "ann", "text": "hi"}}
        assert await ann.hear(2) == [said, {"type": "say.reply", "payload": 1, "id": 1}]
        ann.tell_router("say", {"text": ""}, id=2)
        assert (await ann.hear_codes(3))[-1] == "invalid_payload"
        ann.tell_router("count", 2, id=3)
        assert (await ann.hear_payloads(6))[3:] == [0, 1, None]
        ann.tell_router("leave", id=4)
        await ann.hear(7)
        ann.tell_router("confirm.reply", payload=False, id="call-1")
        assert (await ann.hear_codes(8))[-1] == "stayed"
        ann.tell_router("leave", id=5)
        await ann.hear(9)
        ann.tell_router("confirm.reply", payload=True, id="call-2")
        await eventually(lambda: ann.closed_with)


@pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"], indirect=True)
async def test_trio_websocket() -> None:
    module = load("06_trio_websocket")
    async with anyio.create_task_group() as tasks:
        server = await tasks.start(module.main, 0)
        url = f"ws://127.0.0.1:{server.port}/"
        async with open_websocket_url(url) as ann, open_websocket_url(url) as bob:
            await eventually(lambda: len(module.hub.connections) == 2)
            await ann.send_message("hi")
            assert await bob.get_message() == "hi"
            await bob.send_message(b"ho")
            assert await ann.get_message() == b"ho"
        tasks.cancel_scope.cancel()


async def test_client(capsys: pytest.CaptureFixture[str]) -> None:
    server, client = load("02_chat"), load("08_client")
    printed = ""

    async def hear(text: str) -> None:
        nonlocal printed
        while text not in printed:
            await anyio.lowlevel.checkpoint()
            printed += capsys.readouterr().out

    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(20):
            async with served(server.app) as (host, port):
                tasks.start_soon(client.main, f"ws://{host}:{port}/chat")
                await hear("there and back: ")
                assert "in the room: passer-by\n" in printed
                await hear("joined {'room': 'lobby', 'nick': 'listener'")
            await hear("lost (")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "name", [name for name in vars(load("09_testing")) if name.startswith("test_")]
)
async def test_testing(name: str) -> None:
    await getattr(load("09_testing"), name)()
