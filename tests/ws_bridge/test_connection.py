"""What an application and its peer see of each other, over a socket and over a stream."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from wsproto.events import CloseConnection

from hubbub import WebSocketDisconnect
from hubbub.exceptions import ClientDisconnected
from hubbub.prepared import OUTLET, Burst, Prepared
from hubbub.ws_bridge import Config, serve_connection
from hubbub.ws_bridge.stream_transport import StreamTransport
from tests.peer import eventually
from tests.wire.frame import frame
from tests.ws_bridge.peers import (
    REQUEST,
    Application,
    Client,
    linked,
    memory_pair,
    until_disconnect,
)

if TYPE_CHECKING:
    from hubbub.types import Receive, Send


async def test_messages_go_both_ways(link: str) -> None:
    app = Application()
    async with linked(link, app) as client:
        await client.open("/room?x=1")
        for data in ("", "hi", "é" * 1000, b"", b"\0" * 70_000, "x" * 3_000_000):
            await client.say(data)
            assert await client.hear() == data
        assert await client.close(4001, "bye") == (4001, "bye")
        await app.over.wait()
    assert app.events[0] == {"type": "websocket.connect"}
    assert app.last == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
    assert app.scopes[0]["path"] == "/room"
    assert app.scopes[0]["scheme"] == "ws"


async def test_many_messages_at_once_come_back_in_order(link: str) -> None:
    count = 300  # more than one checkpoint's worth
    async with linked(link, Application()) as client:
        await client.open()
        await client.stream.send(b"".join(frame(0x81, b"%d" % i) for i in range(count)))
        assert [await client.hear() for _ in range(count)] == [str(i) for i in range(count)]


async def test_replies_are_not_held_back_for_an_application_that_goes_elsewhere(
    link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.ws_bridge.caretaker._MAX_PERIOD", 100)  # no stand-in
    heard = anyio.Event()

    async def reply_once(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.send", "text": "reply"})
        await heard.wait()

    timeouts = dict.fromkeys(("handshake_timeout", "close_timeout", "grace_timeout"), 1000.0)
    timeouts |= dict.fromkeys(("ping_interval", "ping_timeout", "write_timeout"), 1000.0)
    async with linked(link, Application(reply_once), **timeouts) as client:
        await client.open()
        await client.stream.send(frame(0x81, b"one") + frame(0x81, b"two"))
        assert await client.hear() == "reply"
        heard.set()
        assert await client.answer_close() == (1000, "")


async def test_the_disconnect_comes_again_and_again(link: str) -> None:
    async def ask_again(receive: Receive, send: Send) -> None:
        first = await receive()
        assert [await receive() for _ in range(3)] == [first] * 3
        assert first["code"] == 1005

    app = Application(ask_again)
    async with linked(link, app) as client:
        await client.open()
        await client.stream.send(frame(0x88))
        assert await client.closed() == (1005, "")
        await app.over.wait()
    assert not app.errors


async def test_a_send_after_the_end_raises_an_oserror(link: str) -> None:
    async def send_after(receive: Receive, send: Send) -> None:
        await until_disconnect(receive, send)
        await send({"type": "websocket.send", "text": "late"})

    app = Application(send_after)
    async with linked(link, app) as client:
        await client.open()
        await client.close(4002, "gone")
        await app.over.wait()
    [error] = app.errors
    assert isinstance(error, OSError)
    assert isinstance(error, ClientDisconnected)
    assert (error.code, error.reason) == (4002, "gone")


async def test_an_application_that_only_sends_learns_of_the_end(link: str) -> None:
    async def only_send(_: Receive, send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await anyio.sleep(0.01)

    app = Application(only_send)
    async with linked(link, app, grace_timeout=0.2) as client:
        await client.open()
        await client.stream.aclose()
        with anyio.fail_after(5):
            await app.over.wait()
    assert isinstance(app.errors[0], ClientDisconnected)


async def test_a_peer_that_vanishes_is_code_1006(link: str) -> None:
    app = Application()
    async with linked(link, app) as client:
        await client.open()
        await client.stream.aclose()
        await app.over.wait()
    assert app.last == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_half_a_connection_is_none(link: str) -> None:
    app = Application()
    async with linked(link, app) as client:
        await client.open()
        await client.stream.send(frame(0x81, b"last"))
        await client.stream.send_eof()
        await app.over.wait()
    assert [event["type"] for event in app.events] == [
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
    ]


async def test_after_both_close_frames_the_server_closes_first() -> None:
    ours, theirs = memory_pair()
    async with anyio.create_task_group() as tasks, ours:
        client = Client(ours)
        tasks.start_soon(client.open)
        tasks.start_soon(serve_connection, Application(), theirs, Config(close_timeout=None))
        await anyio.wait_all_tasks_blocked()
        assert await client.close(4000) == (4000, "")
        assert await client.rest() == b""
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BrokenResourceError):
            await ours.send(b"x")


async def test_who_breaks_the_protocol_can_read_why_while_it_sends() -> None:
    """Closed at once, the socket would answer with a reset, which overtakes the close frame."""
    async with linked("socket", Application(), close_timeout=None) as client:
        await client.open()
        await client.stream.send(b"\xff" + bytes(10_000_000))
        assert await client.closed() == (1002, "reserved bit set")


async def test_the_application_closes(link: str) -> None:
    async def close(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4009, "reason": "enough"})
        await receive()
        with pytest.raises(RuntimeError, match="Expected no further event"):
            await send({"type": "websocket.send", "text": "late"})

    app = Application(close)
    async with linked(link, app) as client:
        await client.open()
        await client.stream.send(frame(0x81, b"crossing") + frame(0x89, b"ping"))
        assert await client.answer_close() == (4009, "enough")
        await app.over.wait()
    assert app.last == {"type": "websocket.disconnect", "code": 4009, "reason": "enough"}
    assert not app.errors


@pytest.mark.parametrize("unsent", [0, 5_000_000])
async def test_who_receives_learns_of_a_close_before_the_peer_answers(
    link: str, unsent: int
) -> None:
    async def close(receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until_disconnect, receive, send)
            await anyio.wait_all_tasks_blocked()
            await send({"type": "websocket.send", "bytes": bytes(unsent)})
            await send({"type": "websocket.close", "code": 4009})

    app = Application(close)
    async with linked(link, app, close_timeout=None) as client:
        await client.open()
        await app.over.wait()
        assert app.last == {"type": "websocket.disconnect", "code": 4009, "reason": ""}
        assert await client.hear() == bytes(unsent)
        assert await client.answer_close() == (4009, "")


async def test_a_task_that_outlives_the_application(link: str) -> None:
    async with anyio.create_task_group() as tasks:

        async def leave_behind(receive: Receive, send: Send) -> None:
            tasks.start_soon(until_disconnect, receive, send)
            await anyio.wait_all_tasks_blocked()

        async with linked(link, Application(leave_behind), close_timeout=None) as client:
            await client.open()
            assert await client.answer_close() == (1000, "")


async def test_a_return_is_1000(link: str) -> None:
    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    async with linked(link, Application(leave)) as client:
        await client.open()
        assert await client.answer_close() == (1000, "")


async def test_a_crash_is_1011_and_logged_once(link: str, caplog: pytest.LogCaptureFixture) -> None:
    async def crash(_receive: Receive, _send: Send) -> None:
        raise LookupError("oh")

    async with linked(link, Application(crash)) as client:
        await client.open()
        assert await client.answer_close() == (1011, "")
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


@pytest.mark.parametrize(
    "error",
    [
        WebSocketDisconnect(1000),
        ExceptionGroup("", [WebSocketDisconnect(1000), ClientDisconnected(1006)]),
    ],
)
async def test_a_disconnect_that_passes_is_not_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def let_pass(receive: Receive, send: Send) -> None:
        await until_disconnect(receive, send)
        raise error

    app = Application(let_pass)
    async with linked("memory", app) as client:
        await client.open()
        await client.close()
        await app.over.wait()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_no_answer_is_500(link: str, caplog: pytest.LogCaptureFixture) -> None:
    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    async with linked(link, Application(leave, {"type": "none"})) as client:
        await client.request()
        status, headers, body = await client.rejected()
    assert (status, body) == (500, b"Internal server error\n")
    assert headers["server"] == "hubbub"
    assert "without an answer" in caplog.text


async def test_a_crash_before_the_answer_is_500(link: str) -> None:
    async def crash(_receive: Receive, _send: Send) -> None:
        raise LookupError("oh")

    async with linked(link, Application(crash, {"type": "none"})) as client:
        await client.request()
        assert (await client.rejected())[0] == 500


async def test_a_close_before_the_answer_is_403(link: str) -> None:
    app = Application(until_disconnect, {"type": "websocket.close"})
    async with linked(link, app) as client:
        await client.request()
        status, headers, body = await client.rejected()
        await app.over.wait()
    assert (status, body) == (403, b"Forbidden\n")
    assert headers["content-length"] == "10"
    assert app.last["code"] == 1006


async def test_a_denial_in_several_parts(link: str) -> None:
    async def deny(_: Receive, send: Send) -> None:
        headers = [(b"x-why", b"because"), (b"server", b"mine")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        for part in (b"a", bytearray(b"b" * 100_000)):
            await send({"type": "websocket.http.response.body", "body": part, "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"c"})

    async with linked(link, Application(deny, {"type": "none"})) as client:
        await client.request()
        status, headers, body = await client.rejected()
    assert (status, headers["x-why"], headers["server"]) == (401, "because", "mine")
    assert body == b"a" + b"b" * 100_000 + b"c"


async def test_half_a_denial_ends_the_connection(link: str) -> None:
    async def deny(_: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401})

    async with linked(link, Application(deny, {"type": "none"})) as client:
        received = await client.exchange(REQUEST)
    assert received.startswith(b"HTTP/1.1 401 ")
    assert not received.endswith(b"0\r\n\r\n")


async def test_accept_headers_and_subprotocol(link: str) -> None:
    app = Application(
        accept={
            "type": "websocket.accept",
            "subprotocol": "b",
            "headers": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")],
        }
    )
    async with linked(link, app) as client:
        accepted = await client.open(subprotocols=["a", "b"])
        assert accepted.subprotocol == "b"
        cookies = [value for name, value in accepted.extra_headers if name == b"set-cookie"]
        assert cookies == [b"a=1", b"b=2"]
    assert app.scopes[0]["subprotocols"] == ["a", "b"]


async def test_what_comes_with_the_request_is_not_lost(link: str) -> None:
    async with linked(link, Application()) as client:
        await client.stream.send(REQUEST + frame(0x81, b"eager") + frame(0x88, b"\x03\xe8"))
        received = await client.rest()
    assert received.endswith(b"\x81\x05eager\x88\x02\x03\xe8")


async def test_a_peer_that_leaves_before_the_answer_is_noticed(link: str) -> None:
    async def wait(receive: Receive, send: Send) -> None:
        await until_disconnect(receive, send)
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.accept"})

    app = Application(wait, {"type": "none"})
    async with linked(link, app) as client:
        await client.request()
        await eventually(lambda: app.events)
        await client.stream.aclose()
        await app.over.wait()
    assert app.last["code"] == 1006
    assert not app.errors


async def test_frames_before_the_answer_are_bounded(link: str) -> None:
    app = Application(until_disconnect, {"type": "none"})
    async with linked(link, app, max_handshake_size=1000) as client:
        await client.request()
        await eventually(lambda: app.events)
        await client.stream.send(frame(0x82, bytes(2000)))
        assert (await client.rejected())[0] == 400
        await client.stream.send(b"more")


async def test_a_cancelled_receive_loses_nothing(link: str) -> None:
    heard: list[Any] = []

    async def impatient(receive: Receive, _: Send) -> None:
        while len(heard) < 20:
            with anyio.move_on_after(0.001):
                heard.append((await receive()).get("text"))

    app = Application(impatient)
    async with linked(link, app) as client:
        await client.open()
        for i in range(20):
            await client.say(str(i))
            await anyio.sleep(0.0005)
        await app.over.wait()
    assert heard == [str(i) for i in range(20)]


async def test_a_cancelled_send_leaves_whole_frames(link: str) -> None:
    size = 300_000

    async def impatient(_: Receive, send: Send) -> None:
        cancelled = 0
        while not cancelled:
            with anyio.move_on_after(0.02) as scope:
                await send({"type": "websocket.send", "bytes": bytes(size)})
            cancelled += scope.cancelled_caught
        given_up.set()
        await send({"type": "websocket.send", "text": "mark"})

    given_up = anyio.Event()
    async with linked(link, Application(impatient)) as client:
        await client.open()
        await given_up.wait()
        while (data := await client.hear()) != "mark":
            assert data == bytes(size)
        assert await client.answer_close() == (1000, "")


async def test_two_tasks_cannot_receive(link: str) -> None:
    async def twice(receive: Receive, _: Send) -> None:
        async with anyio.create_task_group() as tasks:

            async def receive_too() -> None:
                await receive()

            tasks.start_soon(receive_too)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await receive()
            tasks.cancel_scope.cancel()

    if link == "socket":  # in memory each would get its own
        app = Application(twice)
        async with linked(link, app) as client:
            await client.open()
            await app.over.wait()
        assert not app.errors


async def test_pings_are_answered_in_order_among_messages(link: str) -> None:
    async with linked(link, Application()) as client:
        await client.open()
        await client.stream.send(
            frame(0x89, b"1") + frame(0x81, b"m") + frame(0x89, b"2") + frame(0x8A, b"pong")
        )
        assert await client.pong() == b"1"
        assert await client.hear() == "m"
        assert await client.pong() == b"2"


@pytest.mark.parametrize(
    ("bad", "code", "reason"),
    [
        (b"\x81\x00", 1002, "frame without a mask"),
        (frame(0x83), 1002, "reserved opcode 3"),
        (frame(0x81, b"\xff"), 1007, "invalid UTF-8: invalid start byte"),
        (b"\x82\xff" + (2**63 - 1).to_bytes(8, "big"), 1009, "message of more than 1000 bytes"),
        (frame(0x82, bytes(1001)), 1009, "message of more than 1000 bytes"),
        (frame(0x02) + frame(0x00) * 2000, 1009, "message with more than 1024 empty fragments"),
    ],
)
async def test_faults_have_their_close_code(link: str, bad: bytes, code: int, reason: str) -> None:
    app = Application()
    async with linked(link, app, max_message_size=1000, close_timeout=None) as client:
        await client.open()
        await client.stream.send(frame(0x81, b"good") + bad + bytes(100_000))
        assert await client.hear() == "good"
        assert await client.closed() == (code, reason)
        assert await client.rest() == b""  # the end, although this side has not ended
        await client.stream.aclose()
        await app.over.wait()
    assert app.last == {"type": "websocket.disconnect", "code": code, "reason": reason}


async def test_compressed_messages(link: str) -> None:
    from wsproto.extensions import PerMessageDeflate

    async with linked(link, Application()) as client:
        accepted = await client.open(extensions=[PerMessageDeflate()])
        assert accepted.extensions
        for data in ("x" * 100_000, "y" * 200, "z"):
            await client.say(data)
            assert await client.hear() == data


async def test_no_compression_when_it_is_switched_off() -> None:
    from wsproto.extensions import PerMessageDeflate

    async with linked("memory", Application(), deflate=False) as client:
        assert not (await client.open(extensions=[PerMessageDeflate()])).extensions


async def test_the_outlet(link: str) -> None:
    news = Burst([Prepared("news" * 25_000)])
    outlets: list[Any] = []

    async def through_outlet(receive: Receive, _: Send) -> None:
        outlet = outlets[0]
        assert not outlet.closed
        for _turn in range(3):
            while outlet.try_send(news):
                pass  # until the peer does not read
            await outlet.writable()
        assert outlet.try_send(Burst([Prepared("end")]))
        await until_disconnect(receive, send=_)
        assert outlet.closed
        assert not outlet.try_send(news)
        await outlet.writable()

    app = Application(through_outlet)

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            outlets.append(scope["extensions"][OUTLET])
            assert not outlets[0].try_send(news)  # before the answer
        await app(scope, receive, send)

    async with linked(link, call) as client:
        await client.open()
        while (data := await client.hear()) != "end":
            assert data == "news" * 25_000
        await client.close()
        await app.over.wait()
    assert not app.errors


async def test_frames_and_outlet_share_the_order(link: str) -> None:
    async def mixed(receive: Receive, send: Send) -> None:
        outlet = app.scopes[0]["extensions"][OUTLET]
        await receive()  # another one waits, so that what is sent is corked
        await send({"type": "websocket.send", "text": "1"})
        assert outlet.try_send(Burst([Prepared("2"), Prepared("3")]))
        await send({"type": "websocket.send", "text": "4"})
        await until_disconnect(receive, send)

    app = Application(mixed)
    async with linked(link, app) as client:
        await client.open()
        await client.stream.send(frame(0x81, b"a") + frame(0x81, b"b"))
        assert [await client.hear() for _ in range(4)] == ["1", "2", "3", "4"]


async def test_a_ping_is_answered_after_what_is_unsent(link: str) -> None:
    async def much(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "bytes": bytes(8_000_000)})
        await until_disconnect(receive, send)

    async with linked(link, Application(much)) as client:
        await client.open()
        await client.ping(b"there?")
        await anyio.wait_all_tasks_blocked()
        assert await client.hear() == bytes(8_000_000)
        assert await client.pong() == b"there?"


async def test_the_pings_of_a_flood_are_answered_by_the_newest(link: str) -> None:
    """A peer that pings for ever and never reads costs one pong, and is not read further."""
    count = 0

    async with linked(link, Application()) as client:
        await client.open()
        flood = frame(0x89, b"x" * 125) * 500
        with anyio.move_on_after(10 if link == "socket" else 0.3):
            while count < 150_000:  # more than the kernel holds for who does not read
                await client.stream.send(flood)
                count += 500
        await client.stream.send_eof()
        answered = (await client.rest()).count(b"\x8a\x7d")
    assert 0 < answered < max(count, 500)


async def test_closing_while_much_is_unsent_sends_it_first(link: str) -> None:
    async def much(_: Receive, send: Send) -> None:
        for _turn in range(3):
            await send({"type": "websocket.send", "bytes": bytes(2_000_000)})
        await send({"type": "websocket.close"})

    async with linked(link, Application(much)) as client:
        await client.open()
        for _ in range(3):
            assert await client.hear() == bytes(2_000_000)
        assert await client.answer_close() == (1000, "")


async def test_a_close_frame_is_answered_after_what_is_unsent(link: str) -> None:
    async def much(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "bytes": bytes(5_000_000)})
        await until_disconnect(receive, send)

    async with linked(link, Application(much)) as client:
        await client.open()
        await client.send(CloseConnection(code=4000))
        assert await client.hear() == bytes(5_000_000)
        assert await client.closed() == (4000, "")


async def test_senders_that_wait_are_told_of_the_end(link: str) -> None:
    async def flood(_: Receive, send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(100_000)})

    app = Application(flood)
    async with linked(link, app) as client:
        await client.open()
        await anyio.wait_all_tasks_blocked()
        await client.stream.aclose()
        with anyio.fail_after(5):
            await app.over.wait()
    assert isinstance(app.errors[0], ClientDisconnected)


async def test_a_close_after_the_peers_raises(link: str) -> None:
    async def close_late(receive: Receive, send: Send) -> None:
        await until_disconnect(receive, send)
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.close"})

    app = Application(close_late)
    async with linked(link, app) as client:
        await client.open()
        await client.close()
        await app.over.wait()
    assert not app.errors


async def test_frames_before_the_answer_are_kept(link: str) -> None:
    accept = anyio.Event()

    async def accept_late(receive: Receive, send: Send) -> None:
        with anyio.move_on_after(0.05):
            await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["text"] == "early"
        accept.set()

    async with linked(link, Application(accept_late, {"type": "none"})) as client:
        await client.stream.send(REQUEST)
        await anyio.wait_all_tasks_blocked()
        await client.stream.send(frame(0x81, b"early"))
        await accept.wait()


async def test_a_socket_that_is_readable_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: StreamTransport) -> None:
        await checkpoint()

    with monkeypatch.context() as patch:
        patch.setattr(StreamTransport, "wait_readable", at_once)
        async with linked("memory", Application()) as client:
            await client.open()
            await client.say("hi")
            assert await client.hear() == "hi"
            await client.close()
