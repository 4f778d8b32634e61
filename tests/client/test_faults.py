"""Servers that are broken, or hostile: the client says so, and is done with them in time."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from hubbub import WebSocketDisconnect
from hubbub.exceptions import HandshakeError
from tests.client.servers import BINARY, CLOSE, TEXT, Server, scripted
from tests.wire.frame import frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubbub.client import connect

UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade"}
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}


async def refusal(to: Callable[..., connect], **options: Any) -> HandshakeError:
    with pytest.raises(HandshakeError) as raised:
        async with to(**options):
            raise AssertionError
    return raised.value


async def fault(to: Callable[..., connect], **options: Any) -> WebSocketDisconnect:
    async with to(**options) as ws:
        with pytest.raises(WebSocketDisconnect) as raised:
            while True:
                await ws.receive()
    return raised.value


# -- The handshake --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ({"Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, "Sec-WebSocket-Accept"),
        ({"Upgrade": "h2c"}, "Upgrade: websocket"),
        ({"Connection": "keep-alive"}, "Connection: upgrade"),
        ({"Sec-WebSocket-Extensions": "x-unasked"}, "no extension but permessage-deflate"),
        ({"Sec-WebSocket-Protocol": "unasked"}, "subprotocol"),
    ],
)
async def test_a_wrong_101(link: str, headers: dict[str, str], complaint: str) -> None:
    async def script(server: Server) -> None:
        await server.open(**headers)
        assert await server.rest() == b""

    async with scripted(link, script) as to:
        error = await refusal(to)
        assert complaint in str(error)
        assert error.status == 101


async def test_an_extension_that_was_not_offered(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open(**DEFLATE)
        assert await server.rest() == b""

    async with scripted(link, script) as to:
        assert "no extension" in str(await refusal(to, deflate=False))


async def test_a_refusal_has_status_headers_and_body(link: str) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        await server.answer("403 Forbidden", b"not you", X_Why="a whim", Content_Length="7")
        await server.rest()

    async with scripted(link, script) as to:
        error = await refusal(to)
        assert (error.status, error.body) == (403, b"not you")
        assert (b"x-why", b"a whim") in error.headers


async def test_the_status_is_told_though_the_body_never_ends(
    link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        await server.answer("500 Internal Server Error", b"it all began", Content_Length="999")
        await server.rest()

    monkeypatch.setattr("hubbub.client.connecting._BODY_TIMEOUT", 0.1)
    async with scripted(link, script) as to:
        error = await refusal(to, open_timeout=None)
        assert error.status == 500
        assert error.body == b"it all began"


@pytest.mark.parametrize(
    "answer",
    [
        b"\x16\x03\x01\x02\x00\x01\x00" * 100,
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: web",
        b"",
    ],
)
async def test_what_is_no_answer(link: str, answer: bytes) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        if answer:
            await server.stream.send(answer)

    async with scripted(link, script) as to:
        assert "Expected" in str(await refusal(to, open_timeout=30))


async def test_a_server_that_hangs_up_at_once(link: str) -> None:
    async def script(server: Server) -> None:
        pass

    async with scripted(link, script) as to:
        assert "Expected an HTTP response" in str(await refusal(to, open_timeout=30))


@pytest.mark.parametrize("line", [b"X-More: and more\r\n", b"x"])
async def test_headers_without_end(link: str, line: bytes) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        await server.stream.send(b"HTTP/1.1 101 Switching Protocols\r\n")
        with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await server.stream.send(line * 1000)

    async with scripted(link, script) as to:
        assert "Expected an HTTP response" in str(await refusal(to, open_timeout=None))


async def test_a_body_without_end(link: str) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        await server.answer("200 OK", Transfer_Encoding="chunked")
        with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await server.stream.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")

    async with scripted(link, script) as to:
        error = await refusal(to, open_timeout=None)
        assert error.status == 200
        assert len(error.body) == 64 * 1024


async def test_a_server_that_never_answers(link: str) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        assert await server.rest() == b""

    async with scripted(link, script) as to:
        with pytest.raises(TimeoutError, match=r"did not open within 0.1 seconds"):
            async with to(open_timeout=0.1):
                raise AssertionError


# -- The frames -----------------------------------------------------------------------


async def test_an_answer_in_http_1_0(link: str) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        fields = {**UPGRADE, "Sec-WebSocket-Accept": server.accept_key()}
        lines = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
        await server.stream.send(f"HTTP/1.0 101 Switching Protocols\r\n{lines}\r\n".encode())
        await server.rest()

    async with scripted(link, script) as to:
        error = await refusal(to)
        assert error.status == 101
        assert "Expected HTTP/1.1, got 1.0" in str(error)


async def test_frames_in_the_segment_of_the_answer_are_not_lost(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open(b"".join(frame(TEXT, word, key=None) for word in (b"at", b"once")))
        await server.hear()

    async with scripted(link, script) as to, to() as ws:
        assert [await ws.receive(), await ws.receive()] == ["at", "once"]


async def test_an_answer_that_comes_byte_by_byte(link: str) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        head = f"HTTP/1.1 101 \r\nSec-WebSocket-Accept: {server.accept_key()}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items()) + "\r\n"
        for octet in head.encode() + frame(TEXT, b"hi", key=None):
            await server.stream.send(bytes([octet]))
        await server.hear()

    async with scripted(link, script) as to, to() as ws:
        assert await ws.receive() == "hi"


async def test_an_answer_with_a_body(link: str) -> None:
    """A 101 has none (RFC 9110 §6.4.1): what follows it are frames, and these are wrong."""

    async def script(server: Server) -> None:
        await server.open(b"<html>", Content_Length="6")
        await server.rest()

    async with scripted(link, script) as to:
        assert (await fault(to)).code == 1002


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"hi"), 1002),  # with a mask
        (frame(0xC1, b"hi", key=None), 1002),  # compressed, without an agreement
        (frame(0x83, b"hi", key=None), 1002),
        (frame(TEXT, b"\xed\xa0\x80", key=None), 1007),
        (frame(BINARY, b"x" * 2000, key=None), 1009),
        (b"\x82\x7f\x7f" + b"\xff" * 7, 1009),  # the length alone
        (frame(CLOSE, b"\x03\xed", key=None), 1002),  # 1005 on the wire
    ],
)
async def test_wrong_frames(link: str, data: bytes, code: int) -> None:
    async def script(server: Server) -> None:
        await server.open(data)
        first, payload = await server.hear()
        assert (first, int.from_bytes(payload[:2], "big")) == (CLOSE, code)

    async with scripted(link, script) as to:
        assert (await fault(to, max_message_size=1000)).code == code


async def test_a_bomb(link: str) -> None:
    context = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = context.compress(bytes(50_000_000)) + context.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(bomb) < 64 * 1024

    async def script(server: Server) -> None:
        await server.open(frame(0xC2, bomb, key=None), **DEFLATE)
        first, payload = await server.hear()
        assert (first, payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))

    async with scripted(link, script) as to:
        assert (await fault(to, max_message_size=1_000_000)).code == 1009


async def test_a_server_that_vanishes(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open(frame(TEXT, b"half", key=None)[:-1])

    async with scripted(link, script) as to:
        error = await fault(to)
        assert (error.code, error.reason) == (1006, "")


async def test_a_server_that_never_answers_the_close(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        assert await server.hear() == (CLOSE, b"\x03\xe8")
        assert await server.rest() == b""

    async with scripted(link, script) as to:
        with anyio.fail_after(20):
            async with to(close_timeout=0.1) as ws:
                pass
        assert ws.close_code == 1000


async def test_a_server_that_talks_on_after_the_close(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
            while True:
                await server.say(TEXT, b"and another thing")

    async with scripted(link, script) as to:
        with anyio.fail_after(20):
            async with to(close_timeout=0.1) as ws:
                assert await ws.receive() == "and another thing"
        assert ws.close_code == 1000


async def test_a_server_that_closes_and_stays(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        await server.say(CLOSE, b"\x03\xe8")
        await server.hear()
        assert await server.rest() == b""

    async with scripted(link, script) as to:
        with anyio.fail_after(20):
            assert (await fault(to, close_timeout=0.1)).code == 1000


async def test_a_server_that_does_not_read_is_given_up(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        await over.wait()

    over = anyio.Event()
    async with scripted(link, script) as to:
        with anyio.fail_after(20):
            async with to(close_timeout=0.1) as ws, anyio.create_task_group() as tasks:
                tasks.start_soon(ws.send, b"x" * 10_000_000)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        over.set()
