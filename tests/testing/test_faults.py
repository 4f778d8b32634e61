"""Peers that do not read, or read slowly, and what an application makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from hubbub import App, Disconnect, DropOldest, Hub, WebSocket, WebSocketDisconnect
from hubbub.testing import Peer, TestClient
from hubbub.testing.pace import Pace
from hubbub.testing.transcript import Transcript, describe


class Flood:
    """A handler that sends numbers, so many at most, and keeps what stopped it."""

    def __init__(self, count: int = 1000) -> None:
        self.count = count
        self.sent = 0
        self.error: Exception | None = None

    async def __call__(self, ws: WebSocket) -> None:
        async with ws:
            try:
                while self.sent < self.count:
                    await ws.send(str(self.sent))
                    self.sent += 1
            except WebSocketDisconnect as error:
                self.error = error


async def test_a_peer_holds_as_much_as_its_capacity() -> None:
    flood = Flood()
    async with TestClient(App({"/": flood})) as client, client.connect("/", capacity=5) as ws:
        await anyio.wait_all_tasks_blocked()
        assert flood.sent == 5
        assert [await ws.receive() for _ in range(3)] == ["0", "1", "2"]
        await anyio.wait_all_tasks_blocked()
        assert flood.sent == 8
    assert isinstance(flood.error, WebSocketDisconnect)


async def test_a_peer_stalls_and_resumes() -> None:
    async def echo(ws: WebSocket) -> None:
        async with ws:
            async for text in ws:
                await ws.send(text)

    async with TestClient(App({"/": echo})) as client, client.connect("/") as ws:
        ws.stall()
        await ws.send("hi")
        await anyio.wait_all_tasks_blocked()
        ws.timeout = 0.05
        with pytest.raises(TimeoutError, match=r"waits in receive\(\) and send\(\)"):
            await ws.receive()
        ws.timeout = 5
        ws.resume()
        assert await ws.receive() == "hi"
        assert "peer  stalls" in str(ws.transcript)
        assert "peer  resumes" in str(ws.transcript)


LEAVE: list[Callable[[Peer], Any]] = [Peer.abort, Peer.half_close]


@pytest.mark.parametrize("leave", LEAVE)
async def test_a_stalled_peer_leaves(leave: Callable[[Peer], Any]) -> None:
    flood = Flood()
    async with TestClient(App({"/": flood})) as client, client.connect("/") as ws:
        ws.stall()
        await anyio.wait_all_tasks_blocked()
        leave(ws)
    assert str(flood.error) == "WebSocket disconnected: code=1006, reason="


async def test_a_stalled_peer_goes_with_its_block() -> None:
    flood = Flood()
    async with TestClient(App({"/": flood})) as client, client.connect("/") as ws:
        ws.stall()
        await anyio.wait_all_tasks_blocked()
    assert isinstance(flood.error, WebSocketDisconnect)  # 1006 of the send, or 1000 of the reader


async def test_a_peer_reads_slowly() -> None:
    async def answer(ws: WebSocket) -> None:
        async with ws:
            await ws.receive()
            await ws.send("four")
            await ws.send(b"")  # counts for a byte, because a frame is never empty

    async with TestClient(App({"/": answer})) as client, client.connect("/") as ws:
        ws.read_slowly(100)
        began = anyio.current_time()
        await ws.send("go")
        assert [message async for message in ws.iter_messages()] == ["four", b""]
        assert anyio.current_time() - began > 0.049


async def test_a_stalled_member_of_a_room() -> None:
    """What a kit without bounds cannot show: each policy at work."""
    hub = Hub()

    def join(policy: Any) -> Any:
        async def handler(ws: WebSocket) -> None:
            async with ws, hub.join("room", ws, policy=policy, capacity=4):
                async for _ in ws:
                    pass

        return handler

    app = App({"/drop": join(DropOldest()), "/go": join(Disconnect())}, lifespan=hub)
    async with (
        TestClient(app) as client,
        client.connect("/drop") as slow,
        client.connect("/go") as gone,
        client.connect("/drop") as fast,
    ):
        await anyio.wait_all_tasks_blocked()
        slow.stall()
        gone.stall()
        for number in range(50):
            await hub.broadcast("room", str(number))
            assert await fast.receive() == str(number)
        assert len(hub.connections) == 2
        gone.resume()
        assert [text async for text in gone] == ["0"]  # which was under way when it stalled
        assert (gone.close_code, gone.close_reason) == (1013, "slow consumer")
        slow.resume()
        heard = [await slow.receive() for _ in range(5)]
        assert heard[-4:] == ["46", "47", "48", "49"]


# -- Pace -------------------------------------------------------------------------------


async def test_a_pace_changes_under_way() -> None:
    pace = Pace()
    await pace.wait(1_000_000)
    pace.read_slowly(1e-6)
    passed: list[int] = []

    async def wait() -> None:
        await pace.wait(1)
        passed.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        pace.stall()
        await anyio.wait_all_tasks_blocked()
        pace.read_slowly(1e-6)
        await anyio.wait_all_tasks_blocked()
        assert not passed
        pace.read_slowly(1e6)
    assert passed


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_pace_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Pace().read_slowly(rate)


# -- The transcript ---------------------------------------------------------------------


def test_a_transcript_keeps_the_end() -> None:
    transcript = Transcript("/chat")
    for number in range(60):
        transcript.app(f"sends {describe(str(number))}")
    lines = str(transcript).splitlines()
    assert lines[0] == "/chat: the application was not called yet"
    assert lines[1] == "       … 10 before that"
    assert lines[2] == "   11  app   sends text '10'"
    assert lines[-1] == "   60  app   sends text '59'"
    assert len(lines) == 52


def test_a_long_message_is_shown_by_its_ends() -> None:
    assert describe("short") == "text 'short'"
    assert describe(b"short") == "bytes b'short'"
    shown = describe("<" + "a" * 1000 + ">")
    assert shown.startswith("text '<aaa")
    assert shown.endswith("a>' (1002 characters)")
    assert len(shown) < 150
    assert describe(bytes(1000)).endswith("(1000 bytes)")
    assert len(describe(bytes(1000))) < 150
