"""A client's connection, from its opening to its end."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from hubbub import App, Hub, WebSocket, WebSocketDisconnect, WebSocketState
from hubbub.client import ConnectOptions, connect
from tests.client.servers import CLOSE, PING, PONG, TEXT, Server, hosted, scripted
from tests.peer import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hubbub.client import ClientWebSocket
    from hubbub.types import Data

MESSAGES: list[Data] = ["", "hé", b"", bytes(range(256)), "x" * 100_000, b"y" * 500_000]


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for data in ws.iter_messages():
            await ws.send(data)


class Recorder:
    """An application that echoes, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[WebSocket] = []
        self.over = anyio.Event()

    async def __call__(self, ws: WebSocket) -> None:
        self.seen.append(ws)
        offered = ws.subprotocols
        await ws.accept(subprotocol=offered[-1] if offered else None, headers={"X-Room": "tea"})
        try:
            await echo(ws)
        finally:
            self.over.set()

    async def ended_with(self) -> tuple[int | None, str | None]:
        with anyio.fail_after(5):
            await self.over.wait()
        [ws] = self.seen
        return ws.close_code, ws.close_reason


# -- Messages -------------------------------------------------------------------------


async def test_messages_of_both_kinds_and_all_sizes(link: str) -> None:
    async with hosted(link, App({"/": echo})) as to, to() as ws:
        for data in MESSAGES:
            await ws.send(data)
            assert await ws.receive() == data
        await ws.send_json({"a": [1]})
        assert await ws.receive_json() == {"a": [1]}
        await ws.send_bytes(b"b")
        with pytest.raises(TypeError, match="binary"):
            await ws.receive_text()


async def test_without_compression(link: str) -> None:
    recorder = Recorder()
    async with hosted(link, App({"/": recorder})) as to, to(deflate=False) as ws:
        await ws.send_text("x" * 1000)
        assert await ws.receive_text() == "x" * 1000
        assert "sec-websocket-extensions" not in ws.headers
        assert "sec-websocket-extensions" not in recorder.seen[0].headers


async def test_iteration_ends_when_the_server_leaves(link: str) -> None:
    async def count(ws: WebSocket) -> None:
        await ws.accept()
        for number in range(3):
            await ws.send_text(str(number))
        await ws.close(4000, "that is all")

    async with hosted(link, App({"/": count})) as to, to() as ws:
        assert [text async for text in ws] == ["0", "1", "2"]
        assert (ws.close_code, ws.close_reason) == (4000, "that is all")
        for use in (ws.receive(), ws.send("x"), ws.ping()):
            with pytest.raises(WebSocketDisconnect) as raised:
                await use
            assert (raised.value.code, raised.value.reason) == (4000, "that is all")


async def test_a_sender_that_never_receives_learns_that_the_server_has_gone(link: str) -> None:
    async def leave(ws: WebSocket) -> None:
        await ws.accept()
        await ws.close(4001)

    async with hosted(link, App({"/": leave})) as to, to(ping_interval=0.1) as ws:
        with pytest.raises(WebSocketDisconnect) as raised, anyio.fail_after(20):
            while True:
                await ws.send_text("?")
                await anyio.sleep(0.01)
        assert raised.value.code == 4001


async def test_a_client_in_rooms(link: str) -> None:
    async with Hub() as hub, hosted(link, App({"/": echo})) as to, to() as ws:
        async with hub.join("room", ws) as member:
            assert (await hub.broadcast("room", "to all")).sent == 1
            assert await ws.receive_text() == "to all"
            await member.send(b"to one")
            assert await ws.receive_bytes() == b"to one"


# -- What is known of the other side --------------------------------------------------


async def test_what_the_server_sees(link: str) -> None:
    recorder = Recorder()
    headers = [("X-A", "1"), ("X-A", "2"), ("User-Agent", "mine")]
    async with hosted(link, App({"/a b": recorder}, origins=["http://o"])) as to:
        async with to(
            "/a%20b?q=1&q=%20", subprotocols=["one", "two"], headers=headers, origin="http://o"
        ):
            [seen] = recorder.seen
            assert seen.subprotocols == ("one", "two")
            assert seen.query_params.getall("q") == ["1", " "]
            assert seen.headers.getall("x-a") == ["1", "2"]
            assert seen.headers.getall("user-agent") == ["mine"]
            assert seen.headers["origin"] == "http://o"
            assert "authorization" not in seen.headers


async def test_what_the_client_sees(link: str) -> None:
    async with hosted(link, App({"/a b": Recorder()})) as to:
        async with to("/a%20b?q=1", subprotocols=["one", "two"]) as ws:
            assert ws.connection_state is WebSocketState.CONNECTED
            assert ws.subprotocols == ("one", "two")
            assert ws.accepted_subprotocol == "two"
            assert ws.headers["x-room"] == "tea"
            assert (ws.scheme, ws.path, ws.query_params["q"]) == ("ws", "/a b", "1")
            assert ws.url.path_qs == "/a b?q=1"
            assert (ws.client is None) is (link == "memory")
            assert repr(ws) == "<ClientWebSocket /a b CONNECTED>"
        assert repr(ws) == "<ClientWebSocket /a b DISCONNECTED>"


# -- The end --------------------------------------------------------------------------


async def test_leaving_the_block_closes(link: str) -> None:
    recorder = Recorder()
    async with hosted(link, App({"/": recorder})) as to:
        async with to() as ws:
            pass
        assert await recorder.ended_with() == (1000, "")
        assert (ws.close_code, ws.close_reason) == (1000, "")
        with pytest.raises(RuntimeError, match="Cannot send: connection in DISCONNECTED state"):
            await ws.send("x")


async def test_an_error_in_the_block_comes_out_as_it_is(link: str) -> None:
    recorder = Recorder()
    async with hosted(link, App({"/": recorder})) as to:
        with pytest.raises(ZeroDivisionError):
            async with to():
                _ = 1 / 0
        assert await recorder.ended_with() == (1011, "")


async def test_a_group_in_the_block_stays_that_group(link: str) -> None:
    group = ExceptionGroup("mine", [ValueError(), KeyError()])
    async with hosted(link, App({"/": echo})) as to:
        with pytest.raises(ExceptionGroup) as raised:
            async with to():
                raise group
    assert raised.value.message == "mine"
    assert raised.value.exceptions == group.exceptions


async def test_closing_ends_another_task_s_iteration(link: str) -> None:
    recorder = Recorder()
    async with hosted(link, App({"/": recorder})) as to, to() as ws:
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                async for _ in ws:
                    pass

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await ws.close(3000, "enough")
        assert await recorder.ended_with() == (3000, "enough")


async def test_a_task_that_still_receives_when_the_block_is_left(link: str) -> None:
    recorder = Recorder()
    got: list[Any] = []

    async def read(ws: ClientWebSocket) -> None:
        try:
            await ws.receive()
        except (RuntimeError, WebSocketDisconnect) as error:
            got.append(error)

    async with hosted(link, App({"/": recorder})) as to:
        async with anyio.create_task_group() as tasks:
            async with to() as ws:
                tasks.start_soon(read, ws)
                await anyio.wait_all_tasks_blocked()
        assert await recorder.ended_with() == (1000, "")
    assert len(got) == 1


async def test_the_server_closes_the_socket_first(link: str) -> None:
    """RFC 6455 §7.1.1."""

    async def script(server: Server) -> None:
        await server.open()
        await server.say(CLOSE, b"\x0f\xa0bye")
        assert await server.hear() == (CLOSE, b"\x0f\xa0bye")
        with anyio.move_on_after(0.2) as scope:
            await server.rest()
        assert scope.cancelled_caught
        assert await_end.is_set()

    async with scripted(link, script) as to:
        await_end = anyio.Event()
        async with to(close_timeout=None) as ws:
            assert [text async for text in ws] == []
            await_end.set()
        assert (ws.close_code, ws.close_reason) == (4000, "bye")


async def test_a_fault_is_told_to_the_server(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        await server.say(TEXT, b"last words")
        await server.say(TEXT, b"\xff")
        first, payload = await server.hear()
        assert (first, payload[:2]) == (CLOSE, (1007).to_bytes(2, "big"))

    async with scripted(link, script) as to, to() as ws:
        assert await ws.receive() == "last words"
        with pytest.raises(WebSocketDisconnect) as raised:
            await ws.receive()
        assert raised.value.code == 1007


# -- Pings ----------------------------------------------------------------------------


async def test_ping_measures(link: str) -> None:
    async with hosted(link, App({"/": echo})) as to, to() as ws:
        assert ws.latency is None
        seconds = await ws.ping()
        assert 0 < seconds < 5
        assert ws.latency == seconds
        await ws.send("before")
        assert await ws.ping() > 0
        assert await ws.receive() == "before"


async def test_ping_while_another_task_receives(link: str) -> None:
    async with hosted(link, App({"/": echo})) as to, to() as ws:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.receive)
            await anyio.wait_all_tasks_blocked()
            assert await ws.ping() > 0
            await ws.send("go")


async def test_a_pong_answers_all_pings_before_it(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        await server.say(PONG, b"nobody asked")
        pings = [await server.hear() for _ in range(3)]
        assert {first for first, _ in pings} == {PING}
        assert len({payload for _, payload in pings}) == 3
        await server.say(PONG, pings[1][1])
        await two.wait()
        await server.say(CLOSE, b"\x0f\xa0")
        await server.hear()

    two, answered, unanswered = anyio.Event(), list[float](), list[WebSocketDisconnect]()

    async def ping(ws: ClientWebSocket) -> None:
        try:
            answered.append(await ws.ping())
        except WebSocketDisconnect as error:
            unanswered.append(error)
        if len(answered) == 2:
            two.set()

    async with scripted(link, script) as to, to() as ws, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ping, ws)
            await anyio.wait_all_tasks_blocked()
    assert len(answered) == 2
    assert [error.code for error in unanswered] == [4000]


async def test_an_end_that_nobody_has_come_upon(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        await server.say(CLOSE, b"\x0f\xa0bye")
        await server.hear()

    async with scripted(link, script) as to:
        async with to(ping_interval=0.1) as ws:
            outlet = ws.outlet
            assert outlet is not None
            await eventually(lambda: outlet.closed)
        assert (ws.close_code, ws.close_reason) == (4000, "bye")


async def test_a_ping_that_is_cancelled(link: str) -> None:
    async with hosted(link, App({"/": echo})) as to, to() as ws:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ws.ping()
        assert await ws.ping() > 0


async def test_the_pong_of_a_ping_that_was_cancelled_measures_nothing(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        _, payload = await server.hear()
        await server.say(PONG, payload)
        await server.say(TEXT, b"it is out")
        await server.hear()

    async with scripted(link, script) as to, to() as ws:
        with anyio.move_on_after(0):
            await ws.ping()
        assert await ws.receive() == "it is out"
        assert ws.latency is None


async def test_a_ping_after_an_end_that_nobody_has_received(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        await server.say(CLOSE, b"\x0f\xa0")
        await server.hear()

    async with scripted(link, script) as to, to(ping_interval=0.1) as ws:
        outlet = ws.outlet
        assert outlet is not None
        await eventually(lambda: outlet.closed)
        with pytest.raises(WebSocketDisconnect) as raised:
            await ws.ping()
        assert raised.value.code == ws.close_code == 4000


async def test_a_server_that_is_silent_is_given_up(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        await server.rest()

    async with scripted(link, script) as to:
        async with to(ping_interval=0.05, ping_timeout=0.05) as ws:
            with pytest.raises(WebSocketDisconnect) as raised:
                await ws.receive()
        assert (raised.value.code, raised.value.reason) == (1011, "keepalive ping timeout")


async def test_a_server_that_answers_pings_is_kept(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        for _ in range(3):
            first, payload = await server.hear()
            assert first == PING
            await server.say(PONG, payload)
        await server.say(TEXT, b"still here")
        await server.hear()

    async with scripted(link, script) as to, to(ping_interval=0.05, ping_timeout=30) as ws:
        assert await ws.receive() == "still here"
        assert ws.latency is not None


async def test_the_server_s_pings_are_answered_though_nobody_receives(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        await server.say(TEXT, b"first")
        await server.say(PING, b"there?")
        assert await server.hear() == (PONG, b"there?")
        answered.set()
        await server.hear()

    async with scripted(link, script) as to, to(ping_interval=0.2, ping_timeout=30) as ws:
        answered = anyio.Event()
        await answered.wait()
        assert await ws.receive() == "first"


# -- How it is used -------------------------------------------------------------------


@pytest.fixture
async def connected(link: str) -> AsyncGenerator[ClientWebSocket]:
    async with hosted(link, App({"/": echo})) as to, to() as ws:
        yield ws


async def test_in_a_fixture(connected: ClientWebSocket) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connected.send, "hi")
        assert await connected.receive() == "hi"


async def test_in_a_fixture_when_the_test_s_tasks_are_cancelled(
    connected: ClientWebSocket,
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connected.receive)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    await connected.send("hi")
    assert await connected.receive() == "hi"


async def test_nested_with_task_groups_in_between() -> None:
    async with hosted("socket", App({"/": echo})) as to:
        async with to() as outer, anyio.create_task_group() as tasks, to() as inner:
            tasks.start_soon(outer.send, "outer")
            await inner.send("inner")
            assert (await outer.receive(), await inner.receive()) == ("outer", "inner")
            tasks.cancel_scope.cancel()
        assert outer.close_code == inner.close_code == 1000


async def test_a_failing_sibling_ends_the_block_with_its_own_error() -> None:
    recorder = Recorder()

    async def fail() -> None:
        raise ZeroDivisionError

    async with hosted("socket", App({"/": recorder})) as to:
        with pytest.raises(ExceptionGroup) as raised:
            async with anyio.create_task_group() as tasks, to() as ws:
                tasks.start_soon(fail)
                await ws.receive()
        assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]
        assert await recorder.ended_with() == (1001, "")


async def test_entered_twice() -> None:
    async with hosted("socket", App({"/": echo})) as to, to() as ws:
        with pytest.raises(RuntimeError, match="entered already"):
            async with ws:
                pass
        await ws.send("still here")
        assert await ws.receive() == "still here"


async def test_opened_and_not_entered() -> None:
    async with hosted("socket", App({"/": echo})) as to:
        ws = await to().open()
        assert ws.connection_state is WebSocketState.CONNECTING
        assert ws.latency is None
        for use in (ws.send("x"), ws.receive(), ws.ping()):
            with pytest.raises(RuntimeError, match="connection in CONNECTING state"):
                await use
        for use in (ws.accept(), ws.reject()):
            with pytest.raises(RuntimeError, match="Expected `async with`"):
                await use
        async with ws:
            await ws.send("now")
            assert await ws.receive() == "now"


def test_the_options_are_those_of_connect() -> None:
    assert {"url", *ConnectOptions.__annotations__} == {*signature(connect).parameters}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://example.com/", {}),
        ("ws:///path", {}),
        ("ws://example.com/#fragment", {}),
        ("ws://example.com:99999/", {}),
        ("ws+unix://host/path", {}),
        ("ws+unix:relative.sock", {}),
        ("", {}),
        ("ws://example.com/", {"subprotocols": ["a b"]}),
        ("ws://example.com/", {"headers": {"A B": "c"}}),
        ("ws://example.com/", {"headers": {"Sec-WebSocket-Key": "c"}}),
        ("ws://example.com/", {"headers": {"Host": "other"}}),
        ("ws://example.com/", {"origin": "a\r\nb: c"}),
        ("ws://example.com/", {"max_message_size": 0}),
        ("ws://example.com/", {"close_timeout": -1}),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected|[Pp]ort"):
        connect(url, **options)
