"""The deadlines of a server at their full length, on a clock that does not wait.

Over streams in memory; what sockets do about deadlines is tested with short ones, in real time.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from wsproto.events import Ping

from hubbub.exceptions import ClientDisconnected
from hubbub.types import Receive, Send
from hubbub.ws_bridge import Config
from tests.wire.frame import frame
from tests.ws_bridge.peers import Application, linked, until_disconnect

pytestmark = pytest.mark.usefixtures("virtual_clock")

Elapsed = Callable[[], float]


@pytest.fixture
async def elapsed(virtual_clock: None) -> Elapsed:
    began = anyio.current_time()
    return lambda: anyio.current_time() - began


def about(seconds: float | None) -> tuple[float, float]:
    """Deadlines are looked at once in a while: they may come later by a quarter."""
    assert seconds is not None
    return seconds, seconds * 1.25


async def test_a_request_that_takes_too_long(elapsed: Elapsed) -> None:
    async with linked("memory", Application()) as client:
        await client.stream.send(b"GET / HTTP/1.1\r\n")
        assert (await client.stream.receive()).startswith(b"HTTP/1.1 408 ")
        soonest, latest = about(Config().handshake_timeout)
        assert soonest <= elapsed() <= latest


async def test_an_application_that_does_not_answer(elapsed: Elapsed) -> None:
    app = Application(until_disconnect, {"type": "none"})
    async with linked("memory", app) as client:
        await client.request()
        assert (await client.stream.receive()).startswith(b"HTTP/1.1 503 ")
        soonest, latest = about(Config().handshake_timeout)
        assert soonest <= elapsed() <= latest


async def test_a_peer_that_does_not_answer_the_close(elapsed: Elapsed) -> None:
    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    async with linked("memory", Application(leave)) as client:
        await client.open()
        assert await client.closed() == (1000, "")
        with pytest.raises(anyio.EndOfStream):
            await client.stream.receive()
        soonest, latest = about(Config().close_timeout)
        assert soonest <= elapsed() <= latest


async def test_a_peer_that_answers_pings_is_kept_for_an_hour(elapsed: Elapsed) -> None:
    app = Application()
    pings = 0
    async with linked("memory", app) as client:
        await client.open()
        while elapsed() < 3600:
            data = await client.stream.receive()
            client.ws.receive_data(data)
            for event in client.ws.events():
                assert isinstance(event, Ping)
                await client.send(event.response())
                pings += 1
        assert not app.over.is_set()
        await client.close()
    soonest, latest = about(Config().ping_interval)
    assert 3600 / latest - 1 <= pings <= 3600 / soonest + 1


async def test_no_sign_of_life_is_1011(elapsed: Elapsed) -> None:
    config = Config()
    assert config.ping_interval is not None
    assert config.ping_timeout is not None
    app = Application()
    async with linked("memory", app) as client:
        await client.open()
        await app.over.wait()
        soonest, latest = about(config.ping_interval + config.ping_timeout)
        assert soonest <= elapsed() <= latest
        assert isinstance(await client.next(), Ping)
    assert app.last["code"] == 1011


async def test_whoever_speaks_is_not_asked(elapsed: Elapsed) -> None:
    async with linked("memory", Application()) as client:
        await client.open()
        while elapsed() < 600:
            await client.say("still here")
            assert await client.hear() == "still here"  # and no ping before it
            await anyio.sleep(5)
        await client.close()


async def test_a_peer_that_does_not_read_is_given_up(elapsed: Elapsed) -> None:
    async def flood(_: Receive, send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(1_000_000)})

    app = Application(flood)
    async with linked("memory", app, ping_interval=None) as client:
        await client.open()
        await app.over.wait()
        soonest, latest = about(Config().write_timeout)
        assert soonest <= elapsed() <= latest
    assert isinstance(app.errors[0], ClientDisconnected)
    assert app.errors[0].code == 1006


async def test_a_peer_that_goes_on_after_the_close(elapsed: Elapsed) -> None:
    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    async with linked("memory", Application(leave)) as client:
        await client.open()
        with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await client.stream.send(frame(0x82, bytes(1000)))
                await anyio.sleep(0.5)
        assert elapsed() <= about(Config().close_timeout)[1] + 1
