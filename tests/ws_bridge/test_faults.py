"""The faults of an earlier bridge, one by one: none of them is here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from wsproto.events import Pong
from wsproto.extensions import PerMessageDeflate

from hubbub.exceptions import ClientDisconnected
from hubbub.ws_bridge import build_ws_scope
from hubbub.ws_bridge.scope import endpoint
from tests.peer import eventually
from tests.wire.frame import frame, octets
from tests.ws_bridge.peers import REQUEST, Application, linked, until_disconnect
from tests.ws_bridge.test_scope import request

if TYPE_CHECKING:
    from hubbub.types import Receive, Send

SHORT = 0.04
AMPLE = 0.4  # for what the test itself has to do first, on a busy machine


async def test_01_the_accept_key_is_that_of_the_rfc() -> None:
    async with linked("memory", Application()) as client:
        await client.stream.send(REQUEST)
        answer = await client.stream.receive()
    assert b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer


async def test_02_no_compression_unless_offered() -> None:
    async with linked("memory", Application()) as client:
        assert not (await client.open()).extensions
    async with linked("memory", Application()) as client:
        assert (await client.open(extensions=[PerMessageDeflate()])).extensions
        await client.say("x" * 1000)
        assert await client.hear() == "x" * 1000


async def test_03_accept_headers_are_sent() -> None:
    answer = {"type": "websocket.accept", "headers": [(b"x-mine", b"1")]}
    async with linked("memory", Application(accept=answer)) as client:
        assert (b"x-mine", b"1") in (await client.open()).extra_headers


async def test_04_a_subprotocol_is_one_of_all_that_were_offered() -> None:
    app = Application(accept={"type": "websocket.accept", "subprotocol": "c"})
    async with linked("memory", app) as client:
        fields = b"\r\nSec-WebSocket-Protocol: a, ,b\r\nSec-WebSocket-Protocol: c\r\n\r\n"
        await client.stream.send(REQUEST[:-4] + fields)
        assert b"sec-websocket-protocol: c\r\n" in await client.stream.receive()
    assert app.scopes[0]["subprotocols"] == ["a", "b", "c"]


@pytest.mark.parametrize("limit", [5, 6])
async def test_05_fragments_are_one_message_with_one_limit(limit: int) -> None:
    app = Application()
    async with linked("memory", app, max_message_size=limit) as client:
        await client.open()
        for octet in octets(frame(0x01, b"ab") + frame(0x00, b"cd") + frame(0x80, b"ef")):
            await client.stream.send(octet)
        if limit < 6:
            assert (await client.closed())[0] == 1009
        else:
            assert await client.hear() == "abcdef"
            assert app.last == {"type": "websocket.receive", "text": "abcdef"}


async def test_06_a_disconnect_has_a_reason_and_comes_as_one() -> None:
    app = Application()
    async with linked("memory", app) as client:
        await client.open()
        await client.close(4000, "why")
        await app.over.wait()
    ends = [event for event in app.events if event["type"] == "websocket.disconnect"]
    assert ends == [{"type": "websocket.disconnect", "code": 4000, "reason": "why"}]


async def test_06_no_code_is_1005() -> None:
    app = Application()
    async with linked("memory", app) as client:
        await client.open()
        await client.stream.send(frame(0x88))
        await app.over.wait()
    assert app.last["code"] == 1005


async def test_07_a_close_frame_is_answered() -> None:
    async with linked("memory", Application()) as client:
        await client.open()
        assert await client.close(3001) == (3001, "")


async def test_08_the_application_learns_of_its_own_close_and_the_peers_is_awaited() -> None:
    async def close(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4001})
        assert (await receive())["code"] == 4001

    app = Application(close)
    async with linked("memory", app) as client:
        await client.open()
        assert await client.answer_close() == (4001, "")
    assert not app.errors


async def test_09_cleaning_up_after_the_disconnect_is_not_cancelled() -> None:
    cleaned = anyio.Event()

    async def clean_up(receive: Receive, send: Send) -> None:
        await until_disconnect(receive, send)
        await anyio.sleep(SHORT)
        cleaned.set()

    async with linked("memory", Application(clean_up)) as client:
        await client.open()
        await client.stream.aclose()
        await cleaned.wait()


@pytest.mark.parametrize(("raises", "code", "status"), [(True, 1011, 500), (False, 1000, 500)])
@pytest.mark.parametrize("accepts", [True, False])
async def test_10_every_end_of_an_application_is_told(
    raises: bool, accepts: bool, code: int, status: int
) -> None:
    async def end(_receive: Receive, _send: Send) -> None:
        if raises:
            raise LookupError

    app = Application(end, None if accepts else {"type": "none"})
    async with linked("memory", app) as client:
        await client.request()
        if accepts:
            await client.next()
            assert (await client.answer_close())[0] == code
        else:
            assert (await client.rejected())[0] == status


async def test_11_before_the_answer_a_peer_that_leaves_is_noticed() -> None:
    app = Application(until_disconnect, {"type": "none"})
    async with linked("memory", app) as client:
        await client.request()
        await eventually(lambda: app.events)
        await client.stream.aclose()
        await app.over.wait()


async def test_11_an_application_that_never_answers_does_not_hang() -> None:
    async def sleep(_receive: Receive, _send: Send) -> None:
        await anyio.sleep_forever()

    app = Application(sleep, {"type": "none"})
    async with linked("memory", app, handshake_timeout=AMPLE, grace_timeout=SHORT) as client:
        await client.request()
        assert (await client.rejected())[0] == 503
        await app.over.wait()


async def test_12_an_idle_connection_is_kept(link: str) -> None:
    app = Application()
    async with linked(link, app, handshake_timeout=AMPLE, write_timeout=AMPLE) as client:
        await client.open()
        await anyio.sleep(2 * AMPLE)
        await client.say("still")
        assert await client.hear() == "still"


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 7", b"426"),
        (b"Sec-WebSocket-Key", b"X-Key", b"400"),
        (b"Host: x", b"Host: x\r\nOrigin: https://evil.example", b"403"),
    ],
)
async def test_13_version_key_and_origin_are_judged(old: bytes, new: bytes, status: bytes) -> None:
    async with linked("memory", Application(), origins=[None]) as client:
        assert (await client.exchange(REQUEST.replace(old, new)))[9:12] == status


async def test_14_what_waits_for_the_application_is_bounded() -> None:
    async def sleep(_receive: Receive, _send: Send) -> None:
        await anyio.sleep_forever()

    message = frame(0x82, bytes(100_000), key=bytes(4))
    async with linked("socket", Application(sleep), max_queue=2, grace_timeout=SHORT) as client:
        await client.open()
        sent = 0
        with anyio.move_on_after(0.5):
            while True:
                await client.stream.send(message)
                sent += 1
    assert sent < 200  # the kernel's buffers, and ours


async def test_15_pongs_and_messages_do_not_mix() -> None:
    async with linked("socket", Application()) as client:
        await client.open()
        both = frame(0x81, b"m" * 200_000, key=bytes(4)) + frame(0x89, b"ping")
        for _ in range(10):
            await client.stream.send(both)
            heard: list[Any] = []
            while len(heard) < 2:
                event = await client.next()
                if isinstance(event, Pong):
                    heard.append(bytes(event.payload))
                elif event.message_finished:  # type: ignore[attr-defined]
                    heard.append("message")
            assert heard == ["message", b"ping"]


async def test_16_a_send_to_a_peer_that_left_is_an_oserror() -> None:
    async def send_late(receive: Receive, send: Send) -> None:
        await until_disconnect(receive, send)
        await send({"type": "websocket.send", "text": "late"})

    app = Application(send_late)
    async with linked("memory", app) as client:
        await client.open()
        await client.close()
        await app.over.wait()
    assert isinstance(app.errors[0], OSError)
    assert isinstance(app.errors[0], ClientDisconnected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": "a", "bytes": b"b"},
        {"type": "websocket.send"},
    ],
)
async def test_17_invalid_events_raise_and_harm_nothing(wrong: Any) -> None:
    async def send_wrong(_: Receive, send: Send) -> None:
        with pytest.raises((RuntimeError, ValueError)):
            await send(wrong)
        await send({"type": "websocket.send", "text": "right"})

    async with linked("memory", Application(send_wrong)) as client:
        await client.open()
        assert await client.hear() == "right"


async def test_18_the_denial_response_is_announced_and_begins_with_its_start() -> None:
    async def deny(_: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match=r"Expected websocket\.accept"):
            await send({"type": "websocket.http.response.body", "body": b""})
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    app = Application(deny, {"type": "none"})
    async with linked("memory", app) as client:
        assert b" 401 Unauthorized\r\n" in await client.exchange(REQUEST)
    assert "websocket.http.response" in app.scopes[0]["extensions"]


def test_19_addresses_are_of_every_family() -> None:
    scope = build_ws_scope(
        request(), client=endpoint(("::1", 1, 0, 0)), server=endpoint("/run/sock")
    )
    assert (scope["client"], scope["server"]) == (("::1", 1), ("/run/sock", None))


async def test_20_a_broken_protocol_is_no_error_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with linked("memory", Application()) as client:
        await client.open()
        await client.stream.send(frame(0xF1, b"bad"))
        assert await client.closed() == (1002, "reserved bit set")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_21_nothing_claims_101_where_there_was_none() -> None:
    app = Application(until_disconnect, {"type": "websocket.close"})
    async with linked("memory", app) as client:
        assert b" 101 " not in await client.exchange(REQUEST)


async def test_22_a_zip_bomb_is_1009() -> None:
    app = Application()
    async with linked("memory", app, max_message_size=10_000) as client:
        await client.open(extensions=[PerMessageDeflate()])
        await client.say(bytes(10_000))
        assert await client.hear() == bytes(10_000)
        await client.say(bytes(50_000_000))
        assert await client.closed() == (1009, "message of more than 10000 bytes")
    assert len(app.events) == 3


def test_23_there_is_one_module_for_all_of_it() -> None:
    """HTTP/2 is refused in the handshake, not served by something with other features."""
    assert build_ws_scope(request())["http_version"] == "1.1"
