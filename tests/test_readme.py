"""The programs of the README and of docs/ do what is said there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from hubbub import App
from hubbub.testing import TestClient
from tests.peer import Peer, eventually, running
from tests.router.client import Client
from tests.ws_bridge.peers import served

ROOT = Path(__file__).parent.parent


def programs(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


PROGRAM, MOUNTED, TYPED, CLIENT, TESTED = programs("README.md")


@pytest.fixture
def program() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(PROGRAM, "README.md", "exec"), names)
    return names


async def test_echo_and_chat(program: dict[str, Any]) -> None:
    app = program["app"]
    assert isinstance(app, App)
    async with (
        TestClient(app) as client,
        client.connect("/echo") as echo,
        client.connect("/chat") as ada,
        client.connect("/chat") as grace,
    ):
        await echo.send("hi")
        await ada.send("hello")
        assert await echo.receive() == "hi"
        assert await grace.receive() == "hello"
        await ada.expect_silence()


async def test_mounted_in_starlette(program: dict[str, Any]) -> None:
    exec(compile(MOUNTED, "README.md", "exec"), program)
    async with (
        TestClient(program["site"]) as client,
        client.connect("/ws/chat") as ada,
        client.connect("/ws/chat") as grace,
    ):
        await ada.send("hello")
        assert await grace.receive() == "hello"


async def test_the_client(program: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(CLIENT.replace("…", "x"), "README.md", "exec"), program)
    printed = ""

    async def hear(text: str) -> None:
        nonlocal printed
        while text not in printed:
            await anyio.lowlevel.checkpoint()
            printed += capsys.readouterr().out

    hub = program["hub"]
    async with served(program["app"]) as (host, port), anyio.create_task_group() as tasks:
        assert await program["ask"](f"ws://{host}:{port}/echo") == "hi"
        tasks.start_soon(program["follow"], f"ws://{host}:{port}/chat")
        with anyio.fail_after(20):
            for text in ("one", "two"):  # on two connections
                await eventually(lambda: hub.connections)
                await hub.broadcast("lobby", text)
                await hear(text)
                await hub.connections[0].socket.disconnect(1012, "")
                await eventually(lambda: not hub.connections)
        tasks.cancel_scope.cancel()


async def test_typed_messages() -> None:
    program: dict[str, Any] = {}
    exec(compile(TYPED, "README.md", "exec"), program)
    client = Client(path="/rpc")
    async with running(program["app"], client):
        client.tell_router("add", {"a": 1, "b": 2}, id=7)
        assert await client.hear(1) == [{"type": "add.reply", "payload": 3, "id": 7}]
        client.tell_router("wipe", id=8)
        await client.hear(2)
        client.tell_router("confirm.reply", payload=False, id="call-1")
        assert (await client.hear_codes(3))[-1] == "refused"
        client.leave()


async def test_the_test(program: dict[str, Any]) -> None:
    exec(compile(TESTED, "README.md", "exec"), program)
    await program["test_chat"]()


async def test_rooms(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    [program] = programs("docs/rooms.md")
    exec(compile(program, "rooms.md", "exec"), names)
    hub = names["hub"]
    ada, grace = (Peer(path="/match", query_string=b"name=" + name) for name in (b"ada", b"grace"))
    async with hub, running(names["app"], ada, grace):
        await eventually(lambda: ada.heard == grace.heard == ['{"home": 0, "guests": 0}'])
        ada.say("home")
        await eventually(lambda: ada.heard[1:] == grace.heard[1:] == ['{"home": 1, "guests": 0}'])
        grace.stop_reading()
        for _ in range(300):
            await hub.broadcast("match", "x")
            await eventually(lambda: ada.heard[-1:] == ["x"])
        await eventually(lambda: [member.data for member in hub.connections] == ["ada"])
        grace.read_on()
        await eventually(lambda: grace.closed_with == (1013, "slow consumer"))
        ada.leave()
    assert capsys.readouterr().out == ""  # nothing was dropped for one that was disconnected


async def test_a_router() -> None:
    names: dict[str, Any] = {}
    [program] = programs("docs/router.md")
    exec(compile(program, "router.md", "exec"), names)
    ada, stranger = Client(path="/auction", query_string=b"nick=ada"), Peer(path="/auction")
    async with names["hub"], running(names["app"], ada, stranger):
        await eventually(lambda: stranger.closed_with == (1008, "Say who you are"))
        ada.tell_router("bid", {"lot": "vase", "amount": 7}, id=1)
        assert await ada.hear(2) == [
            {"type": "bidden", "payload": {"who": "ada", "amount": 7}},
            {"type": "bid.reply", "payload": 1, "id": 1},
        ]
        ada.tell_router("countdown", 2)
        assert [message["payload"] for message in (await ada.hear(4))[2:]] == [2, 1]
        names["sold"].add("vase")
        ada.tell_router("bid", {"lot": "vase", "amount": 8}, id=2)
        assert (await ada.hear_codes(5))[-1] == "sold"
        ada.leave()


async def test_a_client_with_a_router(capsys: pytest.CaptureFixture[str]) -> None:
    server: dict[str, Any] = {}
    exec(compile(TYPED, "README.md", "exec"), server)
    client: dict[str, Any] = {}
    follow, wipe = programs("docs/client.md")
    exec(compile(follow, "client.md", "exec"), client)
    exec(compile(wipe, "client.md", "exec"), client)
    async with served(server["app"]) as (host, port):
        await client["wipe"](f"ws://{host}:{port}/rpc")
    assert capsys.readouterr().out == "3\nReally?\n"
