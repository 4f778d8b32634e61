"""Time that does not wait: hours of it, on asyncio and on trio."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import anyio
import pytest
import trio

from hubbub import App, WebSocket, WebSocketDisconnect
from hubbub.testing import TestClient, WireClient, virtual_clock
from hubbub.ws_bridge import Config

HOUR = 3600.0


@pytest.fixture
def now(virtual_clock: None) -> Callable[[], float]:
    began: list[float] = []

    def elapsed() -> float:
        began.append(anyio.current_time())
        return began[-1] - began[0]

    return elapsed


async def test_hours_pass_at_once(now: Callable[[], float]) -> None:
    order: list[tuple[str, float]] = []

    async def work(name: str, pause: float) -> None:
        for _ in range(2):
            await anyio.sleep(pause)
            order.append((name, now()))

    now()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work, "slow", 3 * HOUR)
        tasks.start_soon(work, "fast", 2 * HOUR)
    assert [name for name, _ in order] == ["fast", "slow", "fast", "slow"]
    assert [when for _, when in order] == pytest.approx([2 * HOUR, 3 * HOUR, 4 * HOUR, 6 * HOUR])


async def test_deadlines_come_with_it(now: Callable[[], float]) -> None:
    now()
    with anyio.move_on_after(HOUR) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert now() == pytest.approx(HOUR)
    with pytest.raises(TimeoutError), anyio.fail_after(48 * HOUR):
        await anyio.Event().wait()
    assert now() == pytest.approx(49 * HOUR)


async def test_no_time_passes_while_there_is_something_to_do(now: Callable[[], float]) -> None:
    now()
    with anyio.move_on_after(1e-3) as scope:
        for _ in range(1000):
            await anyio.lowlevel.checkpoint()
    assert not scope.cancelled_caught
    assert now() == 0


async def test_no_time_passes_for_a_socket_that_is_ready(now: Callable[[], float]) -> None:
    now()
    ours, theirs = socket.socketpair()
    with ours, theirs, anyio.fail_after(HOUR):
        theirs.send(b"x")
        await anyio.wait_readable(ours)
        assert ours.recv(1) == b"x"
    assert now() == 0


@pytest.mark.usefixtures("virtual_clock")
async def test_a_thread_is_waited_for_where_nothing_is_due() -> None:
    def work() -> str:
        time.sleep(0.01)
        return "done"

    assert await anyio.to_thread.run_sync(work) == "done"


async def test_a_test_that_would_hang_fails_at_once(now: Callable[[], float]) -> None:
    async def wait(ws: WebSocket) -> None:
        async with ws:
            await ws.receive()

    now()
    async with TestClient(App({"/": wait}), timeout=HOUR) as client, client.connect("/") as ws:
        with pytest.raises(TimeoutError, match="and waits in receive"):
            await ws.receive()
        assert now() == pytest.approx(HOUR)


async def test_a_silence_of_days(now: Callable[[], float]) -> None:
    async def remind(ws: WebSocket) -> None:
        async with ws:
            await anyio.sleep(72 * HOUR)
            await ws.send("three days are over")
            await ws.receive()

    now()
    app = App({"/": remind})
    async with TestClient(app, timeout=100 * HOUR) as client, client.connect("/") as ws:
        await ws.expect_silence(71 * HOUR)
        assert await ws.receive() == "three days are over"
        assert now() == pytest.approx(72 * HOUR)


async def test_a_peer_that_reads_slowly_takes_its_time(now: Callable[[], float]) -> None:
    async def send(ws: WebSocket) -> None:
        async with ws:
            await ws.receive()
            for _ in range(3):
                await ws.send("x" * 1000)
            sent.append(now())

    now()
    sent: list[float] = []
    async with TestClient(App({"/": send}), timeout=HOUR) as client, client.connect("/") as ws:
        ws.read_slowly(1)
        await ws.send("go")
        assert [len(text) async for text in ws] == [1000] * 3
    assert sent == pytest.approx([3000])


async def test_keepalive_through_the_whole_server(now: Callable[[], float]) -> None:
    """The peer's own side answers pings; one that has stalled does not, and is given up."""
    ended: list[tuple[int, float]] = []

    async def listen(ws: WebSocket) -> None:
        async with ws:
            try:
                await ws.receive()
            except WebSocketDisconnect as disconnect:
                ended.append((disconnect.code, now()))

    now()
    async with WireClient(App({"/": listen}), timeout=HOUR) as client:
        async with client.connect("/") as ws:
            await anyio.sleep(300)
            assert not ended
            ws.stall()
            await anyio.sleep(300)
            [(code, when)] = ended
            assert code == 1011
            config = Config()
            assert config.ping_interval is not None
            assert config.ping_timeout is not None
            patience = config.ping_interval + config.ping_timeout
            assert when - 300 == pytest.approx(patience, rel=0.5)


def test_without_pytest() -> None:
    async def main() -> float:
        began = anyio.current_time()
        await anyio.sleep(HOUR)
        return anyio.current_time() - began

    backend, options = virtual_clock("asyncio")
    assert anyio.run(main, backend=backend, backend_options=options) == pytest.approx(HOUR)
    _, options = virtual_clock("trio")  # anyio.run passes options on to trio since lately only
    assert trio.run(main, **options) == pytest.approx(HOUR)


@pytest.mark.parametrize("loop", ["uvloop", "curio"])
def test_a_loop_without_one(loop: str) -> None:
    with pytest.raises(ValueError, match=r"Expected a loop of \['asyncio', 'trio'\], got"):
        virtual_clock(loop)
