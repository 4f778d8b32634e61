"""What a test leaves behind: each kind of thing, and what is none of its business."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import pytest

from hubbub import App, Hub, WebSocket
from hubbub.testing import TestClient, WireClient, leaks, memory_streams
from hubbub.testing.leaks import Leaks
from tests.peer import Peer

Servers = Callable[..., Awaitable[str]]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look twice, where the end of something is not to be waited for."""
    monkeypatch.setattr(leaks, "_TURNS", 1)


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for text in ws:
            await ws.send(text)


async def wait_for_ever() -> None:
    await anyio.sleep_forever()


# -- Each kind ----------------------------------------------------------------------------


@pytest.mark.usefixtures("hasty")
async def test_a_task() -> None:
    found: list[str] = []
    with Leaks() as watch:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_ever, name="endless")
            found += await watch.find()
            tasks.cancel_scope.cancel()
        assert await watch.find() == []
    [leak] = found
    assert leak.startswith(f"task 'endless', which waits at {__file__}:")
    assert leak.endswith("in wait_for_ever")


@pytest.mark.usefixtures("hasty")
async def test_a_task_in_a_library() -> None:
    found: list[str] = []
    with Leaks() as watch:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            found += await watch.find()
            tasks.cancel_scope.cancel()
    [leak] = found
    assert leak.startswith("task 'anyio.")
    assert "which waits at" in leak


@pytest.mark.usefixtures("hasty")
async def test_a_task_without_a_parent(anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio knows none")
    with Leaks() as watch:
        task = asyncio.create_task(wait_for_ever(), name="endless")
        [leak] = await watch.find()
        task.cancel()
        assert await watch.find() == []
    assert "task 'endless'" in leak


async def test_a_task_that_is_about_to_end() -> None:
    async with anyio.create_task_group() as tasks:
        with Leaks() as watch:
            tasks.start_soon(wait_for_ever)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                assert await watch.find() == []


@pytest.mark.usefixtures("hasty")
async def test_a_member_and_its_room(peer: Peer) -> None:
    async with AsyncExitStack() as stack:
        hub, ws = await stack.enter_async_context(Hub()), await peer.accepted()
        with Leaks() as watch:
            await stack.enter_async_context(hub.join("lobby", ws, data="ann"))
            async with hub.join("lobby", await Peer().accepted()):
                pass
            member, room = await watch.find()
    assert member.startswith(f"<Member 'ann' in ['lobby']>, made at {__file__}:")
    assert room.startswith(f"<Room 'lobby' of 1>, made at {__file__}:")
    assert room.endswith("in test_a_member_and_its_room")


@pytest.mark.usefixtures("hasty")
async def test_a_socket_that_was_dropped() -> None:
    with Leaks() as watch:
        socket.socket(type=socket.SOCK_DGRAM).bind(("127.0.0.1", 0))
        [leak] = await watch.find()
        for made, _ in watch._made:
            made.close()
    assert leak.startswith("socket 127.0.0.1:")
    assert leak.endswith("in test_a_socket_that_was_dropped")


@pytest.mark.usefixtures("hasty")
async def test_the_sockets_of_a_connection() -> None:
    with Leaks() as watch:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener:
            stream = await anyio.connect_tcp("127.0.0.1", port)
            local = stream.extra(anyio.abc.SocketAttribute.local_port)
            found = [leak.partition(",")[0] for leak in await watch.find()]
        assert f"socket 127.0.0.1:{port}" in found
        assert f"socket 127.0.0.1:{local} to 127.0.0.1:{port}" in found
        await stream.aclose()
        assert await watch.find() == []


@pytest.mark.usefixtures("hasty")
async def test_a_pair_of_sockets() -> None:
    with Leaks() as watch:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert len(await watch.find()) == 2
        assert await watch.find() == []


@pytest.mark.usefixtures("hasty")
async def test_a_socket_that_a_library_makes_in_a_thread() -> None:
    with Leaks() as watch:
        with await anyio.to_thread.run_sync(socket.socket) as sock:
            sock.bind(("127.0.0.1", 0))
            assert await watch.find() == [f"socket 127.0.0.1:{sock.getsockname()[1]}"]


async def test_a_socket_that_is_gone_when_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with Leaks() as watch:
        monkeypatch.setattr(leaks, "_open_sockets", lambda: {(-1, 0)})
        assert await watch.find() == []


@pytest.mark.usefixtures("hasty")
async def test_an_open_stream() -> None:
    with Leaks() as watch:
        ours, theirs = memory_streams()
        await theirs.aclose()
        [leak] = await watch.find()
        await ours.aclose()
    assert leak.startswith(f"stream MemoryStream, made at {__file__}:")


@pytest.mark.usefixtures("hasty")
async def test_an_open_stream_of_objects() -> None:
    with Leaks() as watch:
        send, receive = anyio.create_memory_object_stream[int](1)
        clone = receive.clone()
        receive.close()
        found = [leak.partition(",")[0] for leak in await watch.find()]
        send.close()
        clone.close()
    assert sorted(found) == ["stream MemoryObjectReceiveStream", "stream MemoryObjectSendStream"]


async def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "_OPEN_FILES", "/nowhere")
    with socket.socket(), Leaks() as watch, socket.socket():
        assert await watch.find() == []


# -- What is no leak ----------------------------------------------------------------------


async def test_a_test_that_tidies_up(ws_server: Servers) -> None:
    with Leaks() as watch:
        async with Hub() as hub, TestClient(App({"/": echo})) as client, client.connect("/") as ws:
            async with hub.join("room", await Peer().accepted()):
                await ws.send("hi")
        async with WireClient(App({"/": echo})) as wire, wire.connect("/") as ws:
            await ws.send("hi")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0)
        assert await watch.find() == []


async def test_what_the_tasks_of_others_begin() -> None:
    """Those of a wider fixture, say, which serve a test and go on."""
    begin = anyio.Event()

    async def others() -> None:
        async with anyio.create_task_group() as tasks:
            await begin.wait()
            tasks.start_soon(wait_for_ever)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await anyio.lowlevel.checkpoint()
        with Leaks() as watch:
            begin.set()
            await anyio.wait_all_tasks_blocked()
            assert await watch.find() == []
        tasks.cancel_scope.cancel()


async def test_what_may_be_left() -> None:
    with Leaks(("streams", "tasks")) as watch:
        ours, theirs = memory_streams()
        assert await watch.find() == []
        await ours.aclose()
        await theirs.aclose()


def test_a_kind_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"Expected some of \['members', .*\], got \['cats'\]"):
        Leaks(("cats",))


async def test_nothing_is_kept_afterwards() -> None:
    before = socket.socket.__init__
    with Leaks():
        assert socket.socket.__init__ is not before
    assert socket.socket.__init__ is before
