"""The plugin for pytest: its fixtures in this run, and its options in runs of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any

import anyio
import pytest
from trio_websocket import open_websocket_url
from websockets.asyncio.client import connect

from hubbub import App, WebSocket
from hubbub.testing import Peer, TestClient
from hubbub.ws_bridge.lifespan import StartupFailed

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


async def test_clients_beside_other_fixtures(ws_client: Clients, ws_server: Servers) -> None:
    """The client is made after the server's fixture, and left after it, too."""
    assert await ws_server(app)
    client = await ws_client(app)
    async with client.connect("/echo") as ws:
        await ws.send("hi")
        assert await ws.receive() == "hi"


async def test_a_client_whose_application_does_not_start(ws_client: Clients) -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(StartupFailed, match="no database"):
        await ws_client(fail)


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


@pytest.fixture
def pytester(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]")  # or the next directory's above would count
    return pytester


def test_each_async_test_runs_on_the_loops_that_a_project_names(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ASYNC_TEST)
    result = pytester.runpytest(*PLUGIN, "-v", "-o", "hubbub_loops=asyncio trio")
    result.assert_outcomes(passed=4, failed=2)
    for name in ("test_echo[asyncio]", "test_echo[trio]", "test_on_trio[trio]"):
        assert f"{name} PASSED" in str(result.stdout)
    assert "peer  sends text 'ping'" in str(result.stdout)  # the transcript


@pytest.mark.timeout(300)
def test_in_the_workers_of_xdist(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ASYNC_TEST)
    options = ("-n2", "-o", "hubbub_leaks=true", "-o", "hubbub_loops=asyncio trio")
    result = pytester.runpytest_subprocess(*PLUGIN, *options)
    result.assert_outcomes(passed=4, failed=2)
    assert "peer  sends text 'ping'" in str(result.stdout)


def test_a_loop_that_nobody_knows(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ASYNC_TEST)
    result = pytester.runpytest(*PLUGIN, "-o", "hubbub_loops=curio")
    expected = "Expected hubbub_loops of ['asyncio', 'uvloop', 'trio'], got ['curio']"
    assert expected in f"{result.stdout}{result.stderr}"


@pytest.mark.parametrize("option", ["no:anyio", "anyio"])
def test_it_is_quiet_where_nobody_asks_for_it(pytester: pytest.Pytester, option: str) -> None:
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


# -- Leaks ----------------------------------------------------------------------------------

LEAK_TEST = """
import asyncio
import contextvars
import socket

import anyio
import pytest

from hubbub import App, Hub, connect
from hubbub.testing import TestClient, memory_streams

kept = []
user = contextvars.ContextVar("user", default=None)

@pytest.fixture(scope="module")
async def hub(anyio_backend):
    async with Hub() as hub:
        yield hub

@pytest.fixture(scope="module")
async def tasks(anyio_backend, hub):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        yield tasks
        tasks.cancel_scope.cancel()

async def worker():
    await anyio.sleep_forever()

async def echo(ws):
    async with ws:
        async for text in ws:
            await ws.send(text)

async def test_leaves_a_task(tasks):
    tasks.start_soon(worker, name="endless")

async def test_leaves_a_member(hub, tasks):
    async def join(ws):
        async with ws, hub.join("lobby", ws, data="ann"):
            async for _ in ws:
                pass

    async def stay(*, task_status):
        async with TestClient(App({"/": join})) as client, client.connect("/"):
            task_status.started()
            await anyio.sleep_forever()

    await tasks.start(stay)

async def test_leaves_a_socket():
    socket.socket()

async def test_leaves_a_stream():
    kept.append(memory_streams())

@pytest.fixture
async def careless():
    kept.append(memory_streams())
    yield

async def test_of_a_careless_fixture(careless):
    pass

@pytest.mark.may_leak
async def test_may_leave_anything():
    kept.append((memory_streams(), socket.socket()))

@pytest.mark.may_leak("streams", "sockets")
async def test_may_leave_these():
    kept.append((memory_streams(), socket.socket()))

@pytest.mark.may_leak("sockets")
async def test_may_not_leave_this():
    kept.append((memory_streams(), socket.socket()))

async def test_tidies_up(hub, tasks, ws_client, ws_server):
    client = await ws_client(App({"/": echo}))
    async with client.connect("/") as ws:
        await ws.send("hi")
        assert await ws.receive() == "hi"
    async with connect(await ws_server(App({"/": echo}))) as ws:
        await ws.send("hi")
        assert await ws.receive() == "hi"

def test_not_async():
    kept.append(memory_streams())
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_a_test_that_leaves_something_fails_and_says_which(
    pytester: pytest.Pytester, loop: str
) -> None:
    pytester.makepyfile(LEAK_TEST)
    options = ("-o", "hubbub_leaks=true", "-o", f"hubbub_loops={loop}", "-W", "ignore")
    result = pytester.runpytest_subprocess(*PLUGIN, *options)
    result.assert_outcomes(passed=10, errors=6)
    said = str(result.stdout)
    for test, leak in (
        ("leaves_a_task", "task 'endless', which waits at * in worker"),
        ("leaves_a_member", "<Member 'ann' in ['lobby']>, made at * in test_leaves_a_member*"),
        ("leaves_a_member", "<Room 'lobby' of 1>, made at * in test_leaves_a_member*"),
        ("leaves_a_socket", "socket 0.0.0.0:0, made at * in test_leaves_a_socket"),
        ("leaves_a_stream", "stream MemoryStream, made at * in test_leaves_a_stream"),
        ("of_a_careless_fixture", "stream MemoryStream, made at * in careless"),
        ("may_not_leave_this", "stream MemoryStream, made at * in test_may_not_leave_this"),
    ):
        section = said.partition(f"ERROR at teardown of test_{test}[{loop}]")[2]
        section = section.partition("ERROR at")[0]
        assert any(
            fnmatchcase(line.strip(), leak.replace("[", "[[]")) for line in section.splitlines()
        )


def test_leaks_are_not_looked_for_unless_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LEAK_TEST)
    result = pytester.runpytest(*PLUGIN, "-o", "hubbub_loops=trio", "-k", "stream or careless")
    result.assert_outcomes(passed=2, deselected=8)


CONTEXT_TEST = """
import contextvars
import pytest

from hubbub.testing import memory_streams

user = contextvars.ContextVar("user", default=None)

@pytest.fixture
def logged_in():
    user.set("ann")

async def test_that_has_the_context_of_its_fixtures(logged_in):
    assert user.get() == "ann"

async def test_that_leaves_streams():
    memory_streams()

@pytest.mark.may_leak
async def test_that_may():
    memory_streams()
"""


def test_the_check_changes_nothing_else(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CONTEXT_TEST)
    for loop in ("asyncio", "trio"):
        options = ("-o", "hubbub_leaks=true", "-o", f"hubbub_loops={loop}")
        result = pytester.runpytest(*PLUGIN, *options)
        result.assert_outcomes(passed=3, errors=1)
        assert "stream MemoryStream, made at" in str(result.stdout)


def test_a_test_that_is_not_async_is_left_alone(pytester: pytest.Pytester) -> None:
    """It may have any loop running, as that of a browser's driver, in which no other can run."""
    pytester.makepyfile("""
        import sys

        def test_with_a_loop_of_its_own(anyio_backend):
            assert "hubbub.testing.leaks" not in sys.modules
    """)
    options = ("-o", "hubbub_leaks=true", "-o", "hubbub_loops=asyncio")
    pytester.runpytest_subprocess(*PLUGIN, *options).assert_outcomes(passed=1)
