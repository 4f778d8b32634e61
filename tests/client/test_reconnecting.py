"""One connection after the other: when it comes back, and when it gives up."""

from __future__ import annotations

import itertools
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from hubbub import App, WebSocket, WebSocketDisconnect, reconnecting
from hubbub.client import Backoff, ReconnectEvent, ReconnectState, connect, is_final
from hubbub.exceptions import HandshakeError
from tests.ws_bridge.peers import memory_pair, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

AT_ONCE = Backoff(first=0)
CONNECTING, CONNECTED, WAITING, GIVING_UP = ReconnectState


class Sequence:
    """An application that does one thing to its first guest, another to its second …"""

    def __init__(self, *acts: Callable[[WebSocket], Awaitable[None]]) -> None:
        self.acts = list(acts)
        self.guests = 0

    async def __call__(self, ws: WebSocket) -> None:
        self.guests += 1
        await self.acts.pop(0)(ws)


async def greet(ws: WebSocket) -> None:
    async with ws:
        await ws.send_text("hello")
        async for _ in ws:
            pass


def leave(code: int) -> Callable[[WebSocket], Awaitable[None]]:
    async def act(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_text("bye")
        await ws.close(code)

    return act


def reject(status: int) -> Callable[[WebSocket], Awaitable[None]]:
    async def act(ws: WebSocket) -> None:
        await ws.reject(status)

    return act


@asynccontextmanager
async def acting(*acts: Callable[[WebSocket], Awaitable[None]]) -> AsyncGenerator[str]:
    sequence = Sequence(*acts)
    async with served(App({"/": sequence})) as (host, port):
        yield f"ws://{host}:{port}/"
    assert sequence.acts == []


async def test_it_comes_back_until_the_loop_is_left() -> None:
    heard, codes = list[str](), list[int | None]()
    async with acting(leave(1000), leave(1012), reject(503), reject(429), greet) as url:
        async for ws in reconnecting(url, backoff=AT_ONCE):
            async with ws:
                async for text in ws:
                    heard.append(text)
                    if text == "hello":
                        break
            codes.append(ws.close_code)
            if heard[-1] == "hello":
                break
    assert heard == ["bye", "bye", "hello"]
    assert codes == [1000, 1012, 1000]


async def test_a_disconnect_ends_the_block_and_not_the_loop() -> None:
    heard = []
    async with acting(leave(1001), leave(1001), greet) as url:
        async for ws in reconnecting(url, backoff=AT_ONCE):
            async with ws, anyio.create_task_group() as tasks:
                tasks.start_soon(ws.ping)  # may raise, too
                while True:
                    heard.append(await ws.receive())
                    if heard[-1] == "hello":
                        tasks.cancel_scope.cancel()
                        break
            if heard[-1] == "hello":
                break
    assert heard == ["bye", "bye", "hello"]


async def test_another_connections_disconnect_goes_on() -> None:
    async with acting(greet, leave(4000)) as url:
        with pytest.raises(WebSocketDisconnect) as raised:
            async for ws in reconnecting(url):
                async with ws, connect(url) as other:
                    await other.receive()
                    await other.receive()
        assert raised.value.code == 4000


async def test_another_error_goes_on() -> None:
    async with acting(leave(1001)) as url:
        with pytest.raises(ZeroDivisionError):
            async for ws in reconnecting(url):
                async with ws:
                    await ws.receive()
                    with pytest.raises(WebSocketDisconnect):
                        await ws.receive()
                    _ = 1 / 0


async def test_of_what_it_tells() -> None:
    events: list[ReconnectEvent] = []
    async with acting(leave(4000), reject(500), greet, reject(403)) as url:
        with pytest.raises(HandshakeError) as raised:
            async for ws in reconnecting(url, backoff=AT_ONCE, on_state=events.append):
                async with ws:
                    if await ws.receive() == "bye":
                        await ws.receive()
    assert raised.value.status == 403
    assert [event.state for event in events] == [
        *(CONNECTING, CONNECTED),
        *(WAITING, CONNECTING),
        *(WAITING, CONNECTING, CONNECTED),
        *(WAITING, CONNECTING),
        GIVING_UP,
    ]
    waiting = [event.error for event in events if event.state is WAITING]
    assert isinstance(waiting[0], WebSocketDisconnect)
    assert waiting[0].code == 4000
    assert isinstance(waiting[1], HandshakeError)
    assert waiting[1].status == 500
    assert waiting[2] is None
    assert events[-1].error is raised.value


async def test_delays_grow_with_short_lives_and_begin_anew_after_long_ones() -> None:
    events: list[ReconnectEvent] = []
    backoff = Backoff(first=0.01, factor=10, maximum=0.1)

    def record(event: ReconnectEvent) -> None:
        if event.state is WAITING:
            events.append(event)

    async def stay(ws: WebSocket) -> None:
        async with ws:
            await anyio.sleep(0.3)

    async with acting(reject(500), reject(500), stay, reject(500), greet) as url:
        async for ws in reconnecting(url, backoff=backoff, on_state=record):
            async with ws:
                if await ws.receive() == "hello":
                    break
    assert [event.failures for event in events] == [1, 2, 1, 2]
    for event, longest in zip(events, (0.01, 0.1, 0.01, 0.1), strict=True):
        assert longest / 2 <= event.delay <= longest


@pytest.mark.usefixtures("virtual_clock")
async def test_an_hour_of_failures() -> None:
    events: list[ReconnectEvent] = []
    times: list[float] = []

    def record(event: ReconnectEvent) -> None:
        if event.state is WAITING:
            events.append(event)
            times.append(anyio.current_time())

    with anyio.move_on_after(3600) as scope:
        async for _ in reconnecting("ws+unix:///nowhere/at/all", on_state=record):
            raise AssertionError
    assert scope.cancelled_caught
    assert [event.failures for event in events] == list(range(1, len(events) + 1))
    for event, longest in zip(events, (0.5, 1, 2, 4, 8, 16, 32, *[60] * len(events)), strict=False):
        assert longest / 2 <= event.delay <= longest
    waited = [after - before for before, after in itertools.pairwise(times)]
    assert waited == pytest.approx([event.delay for event in events[:-1]])
    assert len(events) > 60


async def test_a_connection_that_does_not_last_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: list[int] = []
    sleep = anyio.sleep

    async def sleep_briefly(delay: float) -> None:
        await sleep(delay if delay < 100 else 0)

    def record(event: ReconnectEvent) -> None:
        if event.state is WAITING:
            failures.append(event.failures)

    monkeypatch.setattr(anyio, "sleep", sleep_briefly)
    backoff = Backoff(first=1000, factor=1, maximum=1000)
    async with acting(reject(500), leave(1012), leave(1012), greet) as url:
        async for ws in reconnecting(url, backoff=backoff, on_state=record):
            async with ws:
                if await ws.receive() == "hello":
                    break
    assert failures == [1, 2, 3]


async def test_a_close_code_that_is_final() -> None:
    async with acting(leave(1008)) as url:
        with pytest.raises(WebSocketDisconnect) as raised:
            async for ws in reconnecting(url):
                async with ws:
                    assert [text async for text in ws] == ["bye"]
        assert raised.value.code == 1008


async def test_who_connects_may_say_what_is_final() -> None:
    told: list[Exception] = []

    def final(error: Exception) -> bool:
        told.append(error)
        return len(told) == 3

    async with acting(reject(404), leave(1008), reject(401)) as url:
        with pytest.raises(HandshakeError) as raised:
            async for ws in reconnecting(url, backoff=AT_ONCE, final=final):
                async with ws:
                    await ws.receive()
                    await ws.receive()
        assert raised.value.status == 401
    assert [getattr(error, "status", getattr(error, "code", None)) for error in told] == [
        *(404, 1008, 401)
    ]


async def test_one_that_was_not_entered_is_closed() -> None:
    async with acting(greet, greet) as url:
        first = None
        async for ws in reconnecting(url, backoff=AT_ONCE):
            if first is not None:
                async with ws:
                    break
            first = ws
            with pytest.raises(RuntimeError, match="use it inside `async with`"):
                await ws.send("x")
        assert first is not None
        with pytest.raises(RuntimeError, match="entered already"):
            async with first:
                pass


async def test_cancelled_while_it_waits() -> None:
    events: list[ReconnectEvent] = []
    with anyio.move_on_after(20) as scope:

        def cancel(event: ReconnectEvent) -> None:
            events.append(event)
            if event.state is WAITING:
                scope.cancel()

        async for _ in reconnecting(
            "ws://127.0.0.1:1/", backoff=Backoff(first=1000, maximum=1000), on_state=cancel
        ):
            raise AssertionError
    assert [event.state for event in events] == [CONNECTING, WAITING]
    assert isinstance(events[-1].error, OSError)
    assert events[-1].delay >= 500


async def test_a_stream_cannot_be_connected_again() -> None:
    ours, theirs = memory_pair()
    async with ours, theirs:
        with pytest.raises(ValueError, match="Expected no stream"):
            reconnecting("ws://test/", stream=ours)


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (HandshakeError("", status=400), True),
        (HandshakeError("", status=401), True),
        (HandshakeError("", status=408), False),
        (HandshakeError("", status=425), False),
        (HandshakeError("", status=429), False),
        (HandshakeError("", status=500), False),
        (HandshakeError("", status=503), False),
        (HandshakeError("", status=101), True),
        (HandshakeError("", status=200), True),
        (HandshakeError("", status=302), True),
        (HandshakeError(""), False),
        (ConnectionRefusedError(), False),
        (TimeoutError(), False),
        (ssl.SSLCertVerificationError(), True),
        (WebSocketDisconnect(1000), False),
        (WebSocketDisconnect(1006), False),
        (WebSocketDisconnect(1003), True),
        (WebSocketDisconnect(1008), True),
        (WebSocketDisconnect(1010), True),
        (WebSocketDisconnect(1011), False),
        (WebSocketDisconnect(4001), False),
    ],
)
def test_what_is_final(error: Exception, final: bool) -> None:
    assert is_final(error) is final
