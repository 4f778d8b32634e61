"""The plugin for pytest: its fixtures in this run, and its options in runs of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from trio_websocket import open_websocket_url
from websockets.asyncio.client import connect

from hubbub import App, WebSocket
from hubbub.testing import Peer, TestClient

Clients = Callable[..., Awaitable[TestClient]]
Servers = Callable[..., Awaitable[str]]


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for text in ws:
            await ws.send(text)


app = App({"/echo": echo})


# -- Fixtures ---------------------------------------------------------------------------


async def test_a_client_of_the_fixture(ws_client: Clients) -> None:
    client = await ws_client(app)
    other = await ws_client(app, server="daphne", timeout=30)
    assert other.timeout == 30
    async with client.connect("/echo") as a, other.connect("/echo") as b:
        await a.send("hi")
        await b.send("ho")
        assert (await a.receive(), await b.receive()) == ("hi", "ho")


async def test_a_server_of_the_fixture(
    ws_server: Servers, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    url = await ws_server(app, max_message_size=100)
    assert url != await ws_server(app)
    if anyio_backend[0] == "trio":
        async with open_websocket_url(f"{url}/echo") as trio_client:
            await trio_client.send_message("hi")
            assert await trio_client.get_message() == "hi"
    else:
        async with connect(f"{url}/echo") as asyncio_client:
            await asyncio_client.send("hi")
            assert await asyncio_client.recv() == "hi"


@pytest.fixture
async def client() -> AsyncGenerator[TestClient]:
    async with TestClient(app) as client:
        yield client


@pytest.fixture
async def ws(client: TestClient) -> AsyncGenerator[Peer]:
    async with client.connect("/echo") as ws:
        yield ws


async def test_connections_in_fixtures_of_a_users_own(client: TestClient, ws: Peer) -> None:
    async with client.connect("/echo") as other, anyio.create_task_group() as tasks:
        tasks.start_soon(ws.send, "hi")
        tasks.start_soon(other.send, "ho")
        assert (await ws.receive(), await other.receive()) == ("hi", "ho")


# -- A project of its own ---------------------------------------------------------------

ASYNC_TEST = """
import pytest

async def echo(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": (await receive())["text"]})

async def test_echo(ws_client):
    client = await ws_client(echo)
    async with client.connect("/") as ws:
        await ws.send("hi")
        assert await ws.receive() == "hi"

@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio(anyio_backend):
    assert anyio_backend == "trio"

async def test_that_fails(ws_client):
    client = await ws_client(echo)
    async with client.connect("/") as ws:
        await ws.send("ping")
        assert await ws.receive() == "pong"

def test_without_a_loop():
    pass
"""
PLUGIN = ("-p", "hubbub_pytest", "-o", "anyio_mode=auto")


def test_each_async_test_runs_on_the_loops_that_a_project_names(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ASYNC_TEST)
    result = pytester.runpytest(*PLUGIN, "-v", "-o", "hubbub_loops=asyncio trio")
    result.assert_outcomes(passed=4, failed=2)
    for name in ("test_echo[asyncio]", "test_echo[trio]", "test_on_trio[trio]"):
        assert f"{name} PASSED" in str(result.stdout)
    assert "peer  sends text 'ping'" in str(result.stdout)  # the transcript


def test_a_loop_that_nobody_knows(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ASYNC_TEST)
    result = pytester.runpytest(*PLUGIN, "-o", "hubbub_loops=curio")
    expected = "Expected hubbub_loops of ['asyncio', 'uvloop', 'trio'], got ['curio']"
    assert expected in f"{result.stdout}{result.stderr}"


@pytest.mark.parametrize("option", ["no:anyio", "anyio"])
def test_it_is_quiet_where_nobody_asks_for_it(pytester: pytest.Pytester, option: str) -> None:
    pytester.makeini("[pytest]")  # or the next directory's above would count
    pytester.makepyfile("""
        import sys

        def test_nothing_is_imported():
            assert not [name for name in sys.modules if name.split(".")[0] == "hubbub"]
    """)
    loops = ("-o", "hubbub_loops=trio")
    result = pytester.runpytest_subprocess("-p", "hubbub_pytest", "-p", option, *loops)
    result.assert_outcomes(passed=1)


# -- A clock that does not wait -----------------------------------------------------------

CLOCK_TEST = """
import anyio
import pytest

async def test_a_day(virtual_clock):
    before = anyio.current_time()
    await anyio.sleep(86400)
    assert anyio.current_time() - before == pytest.approx(86400)

@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_of_its_own(anyio_backend, virtual_clock):
    pass
"""


@pytest.mark.parametrize(
    ("loops", "expected"),
    [
        ("", ("asyncio", "trio")),
        ("uvloop asyncio", ("asyncio",)),
        ("uvloop", ("asyncio",)),
        ("trio", ("trio",)),
    ],
)
def test_the_loops_of_a_virtual_clock(
    pytester: pytest.Pytester, loops: str, expected: tuple[str, ...]
) -> None:
    pytester.makepyfile(CLOCK_TEST)
    result = pytester.runpytest(*PLUGIN, "-v", "-o", f"hubbub_loops={loops}", "-k", "test_a_day")
    result.assert_outcomes(passed=len(expected), deselected=1)
    for loop in expected:
        assert f"test_a_day[{loop}] PASSED" in str(result.stdout)


def test_a_virtual_clock_on_a_loop_of_the_tests_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CLOCK_TEST)
    result = pytester.runpytest(*PLUGIN, "-k", "test_of_its_own")
    result.assert_outcomes(errors=1, deselected=2)
    assert "Expected an anyio_backend of hubbub.testing.virtual_clock(…), got 'trio'" in str(
        result.stdout
    )
