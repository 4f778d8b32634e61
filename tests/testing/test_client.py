"""TestClient at the ASGI border: what a test says, hears and is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from hubbub import App, DropOldest, Hub, WebSocket, WebSocketDisconnect
from hubbub.testing import Peer, Rejected, TestClient
from hubbub.types import Receive, Scope, Send
from hubbub.ws_bridge import StartupFailed


class HandlerError(Exception):
    """What a handler fails with, on purpose."""


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for message in ws.iter_messages():
            await ws.send(message)


def app_of(handler: Any, **options: Any) -> App:
    return App({"/": handler}, **options)


# -- Messages ---------------------------------------------------------------------------


async def test_the_program_of_the_manual() -> None:
    hub = Hub()

    async def chat(ws: WebSocket) -> None:
        async with ws, hub.join("lobby", ws, policy=DropOldest(), capacity=64) as me:
            async for text in ws:
                await hub.broadcast("lobby", text, exclude=me)

    app = App({"/chat": chat}, lifespan=hub)
    async with (
        TestClient(app) as client,
        client.connect("/chat") as a,
        client.connect("/chat") as b,
    ):
        await a.send_text("hi")
        assert await b.receive_text() == "hi"


async def test_messages_of_every_kind() -> None:
    async with TestClient(app_of(echo)) as client, client.connect("/") as ws:
        await ws.send("text")
        assert await ws.receive() == "text"
        await ws.send_text("")
        assert await ws.receive_text() == ""
        await ws.send_bytes(b"")
        assert await ws.receive_bytes() == b""
        await ws.send_json({"a": [1, None]})
        assert await ws.receive_json() == {"a": [1, None]}


async def test_the_kinds_are_kept_apart() -> None:
    async with TestClient(app_of(echo)) as client, client.connect("/") as ws:
        await ws.send("text")
        with pytest.raises(TypeError, match="binary message, got text 'text'"):
            await ws.receive_bytes()
        await ws.send(b"bytes")
        with pytest.raises(TypeError, match="text message, got bytes b'bytes'"):
            await ws.receive_text()
        with pytest.raises(TypeError, match="str, got bytes"):
            await ws.send_text(b"")  # type: ignore[arg-type]  # the misuse
        with pytest.raises(TypeError, match="bytes, got str"):
            await ws.send_bytes("")  # type: ignore[arg-type]  # the misuse


async def test_iteration_ends_with_the_connection() -> None:
    async def count(ws: WebSocket) -> None:
        async with ws:
            for number in range(3):
                await ws.send_json(number)

    async with TestClient(app_of(count)) as client:
        async with client.connect("/") as ws:
            assert [text async for text in ws] == ["0", "1", "2"]
        async with client.connect("/") as ws:
            assert [value async for value in ws.iter_json()] == [0, 1, 2]
        async with client.connect("/") as ws:
            assert [message async for message in ws.iter_messages()] == ["0", "1", "2"]
        async with client.connect("/") as ws:
            with pytest.raises(TypeError):
                [data async for data in ws.iter_bytes()]


# -- The handshake ----------------------------------------------------------------------


async def test_what_the_application_sees_of_the_request() -> None:
    seen: list[WebSocket] = []

    async def look(ws: WebSocket) -> None:
        seen.append(ws)
        async with ws:
            pass

    headers = [("X-Many", "1"), ("x-many", "2"), ("Authorization", "Bearer é")]
    async with TestClient(App({"/grüße": look})) as client:
        async with client.connect("/grüße?a=1&a=2", headers=headers, subprotocols=["x", "y"]):
            pass
        async with client.connect("wss://example.org/gr%C3%BC%C3%9Fe"):
            pass
    first, second = seen
    assert first.path == "/grüße"
    assert first.query_params.getall("a") == ["1", "2"]
    assert first.headers.getall("X-Many") == ["1", "2"]
    assert first.headers["Authorization"] == "Bearer é"
    assert first.headers["Host"] == "testserver"
    assert first.subprotocols == ("x", "y")
    assert first.scheme == "ws"
    assert (second.scheme, second.headers["Host"]) == ("wss", "example.org")


async def test_what_the_peer_sees_of_the_answer() -> None:
    async def answer(ws: WebSocket) -> None:
        await ws.accept("y", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        async for _ in ws:
            pass

    async with (
        TestClient(app_of(answer)) as client,
        client.connect("/", subprotocols=["x", "y"]) as ws,
    ):
        assert ws.accepted_subprotocol == "y"
        assert ws.headers.getall("set-cookie") == ["a=1", "b=2"]


async def test_a_rejection() -> None:
    async def reject(ws: WebSocket) -> None:
        await ws.reject(401, {"WWW-Authenticate": "Bearer"}, b"Who are you?")

    async with TestClient(app_of(reject)) as client:
        with pytest.raises(Rejected, match="401") as rejected:
            async with client.connect("/"):
                raise AssertionError("connected")
        assert rejected.value.status == 401
        assert rejected.value.headers["www-authenticate"] == "Bearer"
        assert rejected.value.body == b"Who are you?"
        with pytest.raises(Rejected) as rejected:
            async with client.connect("/nowhere"):
                raise AssertionError("connected")
        assert rejected.value.status == 404


async def test_a_close_before_accept_is_a_rejection() -> None:
    async def close(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})

    async with TestClient(close) as client:
        with pytest.raises(Rejected) as rejected:
            async with client.connect("/"):
                raise AssertionError("connected")
        assert rejected.value.status == 403


async def test_a_request_that_is_none() -> None:
    async with TestClient(app_of(echo)) as client:
        with pytest.raises(ValueError, match="without CR"):
            async with client.connect("/", headers={"a": "b\n"}):
                raise AssertionError("connected")
        with pytest.raises(ValueError, match="server's own"):
            async with client.connect("/", headers={"Sec-WebSocket-Key": "mine"}):
                raise AssertionError("connected")
        with pytest.raises(ValueError, match="Host"):
            async with client.connect("/", headers={"Host": "another"}):
                raise AssertionError("connected")
        with pytest.raises(ValueError, match="Expected a request for a WebSocket"):
            async with client.connect("/" + "a" * 70_000):
                raise AssertionError("connected")
        with pytest.raises(ValueError, match="URL"):
            async with client.connect("ws://[:1"):
                raise AssertionError("connected")
        with pytest.raises(ValueError, match="at least 1 message"):
            async with client.connect("/", capacity=0):
                raise AssertionError("connected")


# -- The end ----------------------------------------------------------------------------


async def test_the_peer_closes() -> None:
    ends: list[tuple[int | None, str | None]] = []

    async def listen(ws: WebSocket) -> None:
        async with ws:
            async for _ in ws:
                pass
        ends.append((ws.close_code, ws.close_reason))

    async with TestClient(app_of(listen)) as client:
        async with client.connect("/") as ws:
            assert (ws.close_code, ws.close_reason) == (None, None)
            await ws.close(4321, "why")
            await ws.close(1000)
            assert (ws.close_code, ws.close_reason) == (4321, "why")
            with pytest.raises(WebSocketDisconnect, match="4321"):
                await ws.send("too late")
            with pytest.raises(WebSocketDisconnect, match="4321"):
                await ws.receive()
        async with client.connect("/") as ws:
            await ws.close(None)
            assert ws.close_code == 1005
        async with client.connect("/") as ws:
            ws.abort()
            ws.abort()
        async with client.connect("/"):
            pass
        async with client.connect("/") as ws:
            with pytest.raises(ValueError, match="1006"):
                await ws.close(1006)
    assert ends == [(4321, "why"), (1005, ""), (1006, ""), (1000, ""), (1000, "")]


async def test_the_application_closes() -> None:
    async def close(ws: WebSocket) -> None:
        async with ws:
            await ws.send("last words")
            await ws.close(4009, "app says")

    async with TestClient(app_of(close)) as client:
        async with client.connect("/") as ws:
            assert await ws.receive_text() == "last words"
            await ws.expect_close(4009, "app says")
            await ws.expect_close()
            with pytest.raises(WebSocketDisconnect) as end:
                await ws.receive()
            assert (end.value.code, end.value.reason) == (4009, "app says")
            for other in [(1000, None), (None, ""), (4009, "")]:
                with pytest.raises(AssertionError, match="got WebSocket disconnected: code=4009"):
                    await ws.expect_close(*other)
        async with client.connect("/") as ws:
            with pytest.raises(AssertionError, match="to close, got text 'last words'"):
                await ws.expect_close()


async def test_what_had_come_before_the_end_is_still_there() -> None:
    async def talk(ws: WebSocket) -> None:
        async with ws:
            await ws.send("1")
            await ws.send("2")
            async for _ in ws:
                pass

    async with TestClient(app_of(talk)) as client:
        async with client.connect("/") as ws:
            await anyio.wait_all_tasks_blocked()
            ws.half_close()
            assert [text async for text in ws] == ["1", "2"]
            assert ws.close_code == 1006
        async with client.connect("/") as ws:
            await anyio.wait_all_tasks_blocked()
            ws.abort()
            assert [text async for text in ws] == []


async def test_what_the_peer_said_before_its_end_is_heard() -> None:
    heard: list[str] = []

    async def listen(ws: WebSocket) -> None:
        async with ws:
            heard.extend([text async for text in ws])

    async with TestClient(app_of(listen)) as client, client.connect("/") as ws:
        await ws.send("1")
        await ws.send("2")
    assert heard == ["1", "2"]


# -- Silence and time -------------------------------------------------------------------


async def test_silence() -> None:
    async with TestClient(app_of(echo)) as client, client.connect("/") as ws:
        await ws.expect_silence()
        await ws.send("hi")
        with pytest.raises(AssertionError, match="Expected silence, got text 'hi'"):
            await ws.expect_silence()
        assert await ws.receive() == "hi"  # it is still there
        await ws.expect_silence(0.01)
        await ws.close(4001)
        with pytest.raises(AssertionError, match="Expected silence, got WebSocket disc"):
            await ws.expect_silence()


async def test_silence_that_time_breaks() -> None:
    async def late(ws: WebSocket) -> None:
        async with ws:
            await anyio.sleep(0.05)
            await ws.send("at last")

    async with TestClient(app_of(late)) as client, client.connect("/") as ws:
        with pytest.raises(AssertionError, match="at last"):
            await ws.expect_silence(30)


async def test_nothing_comes() -> None:
    async with TestClient(app_of(echo)) as client, client.connect("/") as ws:
        ws.timeout = 0.05
        with pytest.raises(TimeoutError) as failure:
            await ws.receive()
        assert str(failure.value) == (
            "No message within 0.05 s\n"
            "/: the application is running, and waits in receive()\n"
            "    1  peer  connects\n"
            "    2  app   accepts"
        )
        with pytest.raises(TimeoutError, match="No close"):
            await ws.expect_close()


async def test_the_application_does_not_answer() -> None:
    async def think(ws: WebSocket) -> None:
        await anyio.sleep_forever()

    async with TestClient(app_of(think)) as client:
        client.timeout = 0.05
        with pytest.raises(TimeoutError, match="No answer to the handshake"):
            async with client.connect("/"):
                raise AssertionError("connected")


async def test_the_application_does_not_read() -> None:
    async def sleep(ws: WebSocket) -> None:
        await ws.accept()
        await go.wait()

    go = anyio.Event()
    async with TestClient(app_of(sleep)) as client, client.connect("/", capacity=3) as ws:
        for _ in range(3):
            await ws.send("hello?")
        ws.timeout = 0.05
        with pytest.raises(TimeoutError, match="No room for a message"):
            await ws.send("hello?")
        ws.timeout = 5
        go.set()


async def test_the_application_does_not_return() -> None:
    async def stay(ws: WebSocket) -> None:
        await ws.accept()
        await anyio.sleep_forever()

    async with TestClient(app_of(stay)) as client:
        with pytest.raises(TimeoutError, match="No return of the application"):
            async with client.connect("/") as ws:
                ws.timeout = 0.05
        with pytest.raises(HandlerError):  # which is more than that it did not return
            async with client.connect("/") as ws:
                ws.timeout = 0.05
                raise HandlerError


# -- What the application raises ----------------------------------------------------------


async def fail(ws: WebSocket) -> None:
    async with ws:
        await ws.receive()
        raise HandlerError("of the handler")


async def meet_end(ws: Peer) -> None:
    await ws.send("go")
    await ws.receive()


async def look_away(ws: Peer) -> None:
    await ws.send("go")
    await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("do", [meet_end, look_away])
async def test_a_handler_raises(do: Any) -> None:
    async with TestClient(app_of(fail)) as client:
        with pytest.raises(HandlerError) as error:
            async with client.connect("/") as ws:
                await do(ws)
        [transcript] = error.value.__notes__
        assert transcript == (
            "/: the application raised HandlerError('of the handler')\n"
            "    1  peer  connects\n"
            "    2  app   accepts\n"
            "    3  peer  sends text 'go'\n"
            "    4  app   closes with 1011 ''"
        )


async def test_a_handler_raises_and_so_does_the_test() -> None:
    async with TestClient(app_of(fail)) as client:
        with pytest.raises(AssertionError, match="of the test") as error:
            async with client.connect("/") as ws:
                await look_away(ws)
                raise AssertionError("of the test")
        failed_too, transcript = error.value.__notes__
        assert failed_too == "The application failed, too: HandlerError('of the handler')"
        assert "peer  sends text 'go'" in transcript


async def test_a_handler_raises_instead_of_an_answer() -> None:
    async def fail_early(ws: WebSocket) -> None:
        raise HandlerError

    async with TestClient(app_of(fail_early)) as client:
        with pytest.raises(HandlerError):
            async with client.connect("/"):
                raise AssertionError("connected")


async def test_what_a_peer_sees_of_a_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async with TestClient(app_of(fail), raise_app_exceptions=False) as client:
        async with client.connect("/") as ws:
            await ws.send("go")
            await ws.expect_close(1011, "")
    assert "HandlerError: of the handler" in caplog.text


async def test_the_test_fails_and_shows_what_was_said() -> None:
    async with TestClient(app_of(echo)) as client:
        with pytest.raises(AssertionError) as error:
            async with client.connect("/?room=1") as ws:
                await ws.send("ping")
                assert await ws.receive() == "pong"
    [transcript] = error.value.__notes__
    assert transcript.splitlines()[0].startswith("/?room=1: the application")
    assert "peer  sends text 'ping'" in transcript
    assert "app   sends text 'ping'" in transcript


async def test_a_failure_that_shows_it_does_so_once() -> None:
    async with TestClient(app_of(echo)) as client:
        with pytest.raises(AssertionError, match="Expected silence") as error:
            async with client.connect("/") as ws:
                await ws.send("ping")
                await ws.expect_silence()
    assert "app   sends text 'ping'" in str(error.value)
    assert not getattr(error.value, "__notes__", [])


async def test_a_group_that_the_application_raises_stays_one() -> None:
    async def fail_twice(scope: Scope, receive: Receive, send: Send) -> None:
        raise ExceptionGroup("two", [HandlerError(), KeyError()])

    async with TestClient(fail_twice) as client:
        with pytest.raises(ExceptionGroup, match="two"):
            async with client.connect("/"):
                raise AssertionError("connected")


async def test_that_the_peer_has_gone_may_leave_the_application() -> None:
    async def talk(scope: Scope, receive: Receive, send: Send) -> None:
        ws = WebSocket(scope, receive, send)
        await ws.accept()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.receive)  # raises WebSocketDisconnect in a group

    async def send_on(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "news"})  # raises an OSError

    for app in (talk, send_on):
        async with TestClient(app) as client, client.connect("/"):
            pass


async def test_what_starlette_raises() -> None:
    async def echo(ws: StarletteWebSocket) -> None:
        await ws.accept()
        while True:  # until it raises Starlette's own WebSocketDisconnect
            await ws.send_text(await ws.receive_text())

    async def fail(ws: StarletteWebSocket) -> None:
        await ws.accept()
        raise HandlerError

    app = Starlette(routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/fail", fail)])
    async with TestClient(app) as client:
        async with client.connect("/echo") as ws:
            await ws.send("hi")
            assert await ws.receive() == "hi"
        with pytest.raises(HandlerError):
            async with client.connect("/fail") as ws:
                await ws.receive()


async def test_a_disconnect_that_was_none_is_an_error() -> None:
    async def lie(scope: Scope, receive: Receive, send: Send) -> None:
        raise WebSocketDisconnect(1000)

    async with TestClient(lie) as client:
        with pytest.raises(WebSocketDisconnect, match="1000"):
            async with client.connect("/"):
                raise AssertionError("connected")


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([{"type": "websocket.send", "text": "early"}], "Expected websocket.accept"),
        ([{"type": "websocket.accept"}] * 2, "Expected websocket.send"),
        ([{"type": "websocket.accept"}, {"type": "websocket.send"}], "either text or bytes"),
        ([{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1006}], "got 1006"),
        ([{"type": "websocket.accept"}, *[{"type": "websocket.close"}] * 2], "no further event"),
        ([{"type": "websocket.accept", "subprotocol": "x"}], "Expected a subprotocol"),
    ],
)
async def test_events_that_asgi_has_not(events: list[dict[str, Any]], text: str) -> None:
    async def misbehave(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for event in events:
            await send(event)

    async with TestClient(misbehave) as client:
        with pytest.raises((RuntimeError, ValueError), match=text):
            async with client.connect("/") as ws:
                await ws.expect_close()


async def test_cancellation_ends_the_application() -> None:
    over = anyio.Event()

    async def stay(ws: WebSocket) -> None:
        try:
            async with ws:
                await anyio.sleep_forever()
        finally:
            over.set()

    async with TestClient(app_of(stay)) as client:
        with anyio.CancelScope() as scope:
            async with client.connect("/"):
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert over.is_set()


# -- The lifespan -----------------------------------------------------------------------


async def test_the_lifespan_runs_around_the_block_and_gives_state() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[Mapping[str, Any]]:
        log.append("started")
        yield {"database": "here"}
        log.append("stopped")

    async def look(ws: WebSocket) -> None:
        log.append(ws.state.database)
        async with ws:
            pass

    async with TestClient(app_of(look, lifespan=lifespan)) as client:
        async with client.connect("/"):
            pass
        assert log == ["started", "here"]
    assert log == ["started", "here", "stopped"]


async def test_state_of_the_lifespan_is_in_the_scope() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await receive()
        if scope["type"] == "lifespan":
            scope["state"]["a"] = 1
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "websocket.accept"})

    async with TestClient(app) as client, client.connect("/"):
        pass
    assert [scope["type"] for scope in scopes] == ["lifespan", "websocket"]
    assert scopes[1]["state"] == {"a": 1}
    assert scopes[1]["state"] is not scopes[0]["state"]


async def test_an_application_without_a_lifespan() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        assert "state" not in scope
        await receive()
        await send({"type": "websocket.accept"})

    async with TestClient(app) as client, client.connect("/") as ws:
        await ws.expect_close(1000)


def failing(*, at: str) -> App:
    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        if at == "startup":
            raise HandlerError
        yield
        if at == "shutdown":
            raise HandlerError

    return app_of(echo, lifespan=lifespan)


async def test_the_startup_fails() -> None:
    with pytest.raises(HandlerError):
        async with TestClient(failing(at="startup")):
            raise AssertionError("started")
    with pytest.raises(StartupFailed, match="HandlerError"):
        async with TestClient(failing(at="startup"), raise_app_exceptions=False):
            raise AssertionError("started")


async def test_the_shutdown_fails() -> None:
    with pytest.raises(HandlerError):
        async with TestClient(failing(at="shutdown")):
            pass
    async with TestClient(failing(at="shutdown"), raise_app_exceptions=False):
        pass
    with pytest.raises(AssertionError, match="of the test") as error:
        async with TestClient(failing(at="shutdown")):
            raise AssertionError("of the test")
    assert error.value.__notes__ == ["The application failed, too: HandlerError()"]


@pytest.mark.parametrize("message", ["out of order", ""])
async def test_the_shutdown_fails_in_words_only(message: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": message})

    with pytest.raises(RuntimeError, match=message or "The shutdown failed"):
        async with TestClient(app):
            pass


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_the_lifespan_takes_too_long(phase: str) -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        if phase == "startup":
            await anyio.sleep_forever()
        yield
        await anyio.sleep_forever()

    client = TestClient(app_of(echo, lifespan=lifespan))
    client.timeout = 0.05 if phase == "startup" else 5
    with pytest.raises(TimeoutError, match=f"No end of the {phase}"):
        async with client:
            client.timeout = 0.05


# -- Misuse -----------------------------------------------------------------------------


def test_a_server_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match=r"Expected a server of \['asgi'.*got 'apache'"):
        TestClient(app_of(echo), server="apache")


def test_pytest_takes_no_client_for_a_test() -> None:
    assert not TestClient.__test__
