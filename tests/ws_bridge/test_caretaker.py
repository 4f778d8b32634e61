"""Deadlines, each made short."""

from __future__ import annotations

import gc
import logging
import socket
import weakref
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request

from hubbub.exceptions import ClientDisconnected
from hubbub.ws_bridge import Config
from hubbub.ws_bridge.caretaker import Caretaker
from hubbub.ws_bridge.socket_transport import socket_transport
from hubbub.ws_bridge.writer import Writer
from tests.peer import eventually
from tests.wire.frame import frame
from tests.ws_bridge.peers import Application, Client, linked, served, until_disconnect

if TYPE_CHECKING:
    from hubbub.types import Receive, Send

SHORT = 0.04
AMPLE = 0.5  # for what the test itself has to do first, on a busy machine


async def test_a_request_that_takes_too_long(link: str) -> None:
    async with linked(link, Application(), handshake_timeout=SHORT) as client:
        assert (await client.exchange(b"GET / HTTP/1.1\r\n")).startswith(b"HTTP/1.1 408 ")


async def let_time_pass(address: tuple[str, int]) -> None:
    """Wait until the sweeper of a server, if its pings are frequent, has come by some times."""
    async with await anyio.connect_tcp(*address) as stream:
        client = Client(stream)
        await client.open()
        for _ in range(3):
            event = await client.next()
            assert isinstance(event, Ping)
            await client.send(event.response())


async def test_a_peer_may_take_its_time(caplog: pytest.LogCaptureFixture) -> None:
    """To ask, to read, and to answer the close."""

    async def send_what_is_wanted(receive: Receive, send: Send) -> None:
        if "text" in await receive():
            await send({"type": "websocket.send", "bytes": bytes(8_000_000)})

    async with (
        served(Application(send_what_is_wanted), ping_interval=SHORT, ping_timeout=20) as address,
        await anyio.connect_tcp(*address) as stream,
    ):
        client = Client(stream)
        request = client.ws.send(Request(host="x", target="/"))
        await stream.send(request[:20])
        await let_time_pass(address)
        await stream.send(request[20:])
        assert isinstance(await client.next(), AcceptConnection)
        await client.say("much")
        await let_time_pass(address)
        assert await client.hear() == bytes(8_000_000)
        event = await client.next()
        assert isinstance(event, CloseConnection)
        await let_time_pass(address)
        await client.send(event.response())
        assert await client.rest() == b""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_application_that_does_not_answer(link: str) -> None:
    app = Application(until_disconnect, {"type": "none"})
    async with linked(link, app, handshake_timeout=AMPLE, close_timeout=None) as client:
        await client.request()
        await app.over.wait()
        assert (await client.rejected())[0] == 503
    assert app.last["code"] == 1006


async def test_an_application_that_never_answers_is_cancelled(link: str) -> None:
    async def sleep(_receive: Receive, _send: Send) -> None:
        await anyio.sleep_forever()

    app = Application(sleep, {"type": "none"})
    async with linked(link, app, handshake_timeout=AMPLE, grace_timeout=SHORT) as client:
        await client.request()
        assert (await client.rejected())[0] == 503
        await app.over.wait()
    assert isinstance(app.errors[0], anyio.get_cancelled_exc_class())


async def test_a_peer_that_does_not_answer_the_close(link: str) -> None:
    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    async with linked(link, Application(leave), close_timeout=SHORT) as client:
        await client.open()
        assert await client.closed() == (1000, "")
        assert await client.rest() == b""


async def test_a_peer_that_does_not_stop_after_the_close(link: str) -> None:
    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    async with linked(link, Application(leave), close_timeout=SHORT) as client:
        await client.open()
        with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            with anyio.fail_after(5):
                while True:
                    await client.stream.send(frame(0x82, bytes(1000)) + frame(0x89))


async def test_silence_is_asked_for_a_sign_of_life(
    link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.ws_bridge.caretaker._WATCHES_PER_CHECKPOINT", 1)
    async with linked(link, Application(), ping_interval=SHORT, ping_timeout=5) as client:
        await client.open()
        for _ in range(3):
            event = await client.next()
            assert isinstance(event, Ping)
            await client.send(event.response())
        await client.say("alive")
        while isinstance(event := await client.next(), Ping):
            await client.send(event.response())


async def test_no_sign_of_life_is_1011(link: str) -> None:
    app = Application()
    config: dict[str, Any] = {"ping_interval": SHORT, "ping_timeout": SHORT, "close_timeout": None}
    async with linked(link, app, **config) as client:
        await client.open()
        assert isinstance(await client.next(), Ping)
        await app.over.wait()
        await client.rest()  # it has ended, although the peer has not
    assert app.last["code"] == 1011
    assert app.last["reason"] == "keepalive ping timeout"


async def test_a_busy_application_is_no_dead_peer(link: str) -> None:
    """The stand-in reads the pongs, and answers pings, while nobody is in receive."""
    done = anyio.Event()

    async def busy(receive: Receive, send: Send) -> None:
        await done.wait()
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})

    app = Application(busy)
    async with linked(link, app, ping_interval=SHORT, ping_timeout=5) as client:
        await client.open()
        await client.say("early")
        await client.ping(b"there?")
        answered = 0
        while answered < 3:
            event = await client.next()
            if isinstance(event, Ping):
                await client.send(event.response())
                answered += 1
            else:
                assert bytes(event.payload) == b"there?"  # type: ignore[attr-defined]
        done.set()
        assert await client.hear() == "early"
        await client.say("late")
        while isinstance(event := await client.next(), Ping):
            await client.send(event.response())
        assert event.data == "late"  # type: ignore[attr-defined]


async def test_the_close_of_a_busy_application_is_answered(link: str) -> None:
    async def busy(_: Receive, send: Send) -> None:
        with pytest.raises(ClientDisconnected):
            while True:
                await anyio.sleep(SHORT / 4)
                await send({"type": "websocket.send", "text": "still here"})

    app = Application(busy)
    async with linked(link, app, grace_timeout=5, ping_interval=SHORT) as client:
        await client.open()
        await client.stream.send(frame(0x88, b"\x0f\xa1why"))
        await client.rest()
        await app.over.wait()
    assert not app.errors


async def test_what_is_read_ahead_is_bounded(link: str) -> None:
    go_on = anyio.Event()
    count = 50
    message = frame(0x82, b"x" * 400_000, key=bytes(4))

    async def busy(receive: Receive, send: Send) -> None:
        await go_on.wait()
        heard = [(await receive())["bytes"][:1] for _ in range(count)]
        await send({"type": "websocket.send", "text": "all" if heard == [b"x"] * count else ""})
        await until_disconnect(receive, send)

    async with linked(link, Application(busy), max_queue=3, ping_interval=SHORT) as client:
        await client.open()
        async with anyio.create_task_group() as tasks:

            async def say() -> None:
                for _ in range(count):
                    await client.stream.send(message)

            tasks.start_soon(say)
            await anyio.sleep(SHORT * 3)
            go_on.set()
        while isinstance(event := await client.next(), Ping):
            await client.send(event.response())
        assert event.data == "all"  # type: ignore[attr-defined]


async def test_a_peer_that_does_not_read_is_given_up(link: str) -> None:
    async def flood(_: Receive, send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(1_000_000)})

    app = Application(flood)
    async with linked(link, app, write_timeout=SHORT) as client:
        await client.open()
        with anyio.fail_after(5):
            await app.over.wait()
            if link == "socket":  # the kernel does not keep what nobody reads
                with pytest.raises(anyio.BrokenResourceError):
                    while await client.stream.receive():
                        pass
    assert isinstance(app.errors[0], ClientDisconnected)
    assert app.errors[0].code == 1006


async def test_who_is_gone_is_missed_although_nobody_reads(link: str) -> None:
    async def neither_read_nor_send(_receive: Receive, _send: Send) -> None:
        await anyio.sleep_forever()

    app = Application(neither_read_nor_send)
    timeouts = {"ping_interval": SHORT, "grace_timeout": SHORT}
    async with linked(link, app, max_queue=1, **timeouts) as client:
        await client.open()
        await client.stream.send(frame(0x81, b"more than is read ahead") * 2)
        assert isinstance(await client.next(), Ping)
        await client.stream.aclose()
        await app.over.wait()


async def test_an_application_that_ignores_the_end_is_cancelled(link: str) -> None:
    async def ignore(_receive: Receive, _send: Send) -> None:
        await anyio.sleep_forever()

    app = Application(ignore)
    async with linked(link, app, grace_timeout=SHORT) as client:
        await client.open()
        await client.stream.aclose()
        with anyio.fail_after(5):
            await app.over.wait()
    assert isinstance(app.errors[0], anyio.get_cancelled_exc_class())


async def test_an_application_has_its_grace(link: str) -> None:
    async def linger(receive: Receive, send: Send) -> None:
        await until_disconnect(receive, send)
        await anyio.sleep(SHORT)

    app = Application(linger)
    async with linked(link, app) as client:
        await client.open()
        await client.close()
        await app.over.wait()
    assert not app.errors


async def test_an_application_that_lingers_after_its_own_close(link: str) -> None:
    """The stand-in completes the close, whatever the application is at."""
    go_on = anyio.Event()

    async def close(_: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4000})
        await go_on.wait()

    app = Application(close)
    async with linked(link, app, ping_interval=SHORT) as client:
        await client.open()
        assert await client.answer_close() == (4000, "")
        go_on.set()


async def test_everything_switched_off() -> None:
    off: dict[str, Any] = dict.fromkeys(
        (
            "handshake_timeout",
            "close_timeout",
            "ping_interval",
            "ping_timeout",
            "write_timeout",
            "grace_timeout",
        )
    )
    async with linked("memory", Application(), **off) as client:
        await client.open()
        await client.say("hi")
        assert await client.hear() == "hi"
        await client.close()


async def test_a_task_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError("ours")

    async with anyio.create_task_group() as tasks:
        caretaker = Caretaker(Config(), tasks)
        caretaker.start(fail)
        await eventually(lambda: caplog.records)
        tasks.cancel_scope.cancel()
    assert caplog.records[0].levelno == logging.ERROR


async def flush_once(caretaker: Caretaker) -> weakref.ref[socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs, closing(socket_transport(ours)) as transport:
        writer = Writer(transport, caretaker)
        writer.cork(b"corked")
        await eventually(lambda: writer.sent)
    return weakref.ref(ours)


@pytest.mark.may_leak("sockets")  # the check would keep it
async def test_it_keeps_nothing_of_what_it_has_flushed() -> None:
    async with anyio.create_task_group() as tasks:
        flushed = await flush_once(Caretaker(Config(), tasks))
        gc.collect()
        assert flushed() is None
        tasks.cancel_scope.cancel()
