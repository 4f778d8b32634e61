"""The access log: what a connection leaves behind, and that it is one line."""

from __future__ import annotations

import logging
import re
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from hubbub.ws_bridge import serve
from tests.wire.frame import frame
from tests.ws_bridge.peers import REQUEST, Application, Client, linked

if TYPE_CHECKING:
    from pathlib import Path

    from hubbub.types import Receive, Send

CLOSE_3000 = frame(0x88, (3000).to_bytes(2))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "hubbub.access")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the access log, with a T for each duration."""
    messages = [record.getMessage() for record in log.records if record.name == "hubbub.access"]
    return [re.sub(r" \d+\.\d{3}s ", " T ", message, count=1) for message in messages]


async def test_a_conversation(link: str, log: pytest.LogCaptureFixture) -> None:
    said = REQUEST.replace(b"GET /", b"GET /a/b?token=secret") + frame(0x81, b"hi") + CLOSE_3000
    async with linked(link, Application()) as client:
        address = client.stream.extra(SocketAttribute.local_address, None)
        heard = await client.exchange(said)
    who = "-" if address is None else f"127.0.0.1:{address[1]}"
    assert lines(log) == [
        f'{who} - "GET /a/b HTTP/1.1" 101 T in={len(said)} out={len(heard)} close=3000'
    ]
    figures = log.records[-1].args
    assert isinstance(figures, dict)
    duration: Any = figures["duration"]
    assert 0 <= duration < 60


async def fail(receive: Receive, send: Send) -> None:
    raise LookupError


async def leave(receive: Receive, send: Send) -> None:
    pass


async def deny(receive: Receive, send: Send) -> None:
    await send({"type": "websocket.http.response.start", "status": 429})
    await send({"type": "websocket.http.response.body"})


UNANSWERED = {"type": "none"}


@pytest.mark.parametrize(("body", "end"), [(fail, "close=1011"), (leave, "close=1000")])
async def test_how_the_application_ends_it(
    link: str, body: Any, end: str, log: pytest.LogCaptureFixture
) -> None:
    async with linked(link, Application(body)) as client:
        await client.exchange(REQUEST + CLOSE_3000)
    [line] = lines(log)
    assert '"GET / HTTP/1.1" 101 T ' in line
    assert line.endswith(end)


@pytest.mark.parametrize(
    ("request_", "answer", "line"),
    [
        (REQUEST, {"type": "websocket.close"}, '"GET / HTTP/1.1" 403'),
        (REQUEST, deny, '"GET / HTTP/1.1" 429'),
        (REQUEST, fail, '"GET / HTTP/1.1" 500'),
        (b"GET /page?x HTTP/1.1\r\nHost: x\r\n\r\n", None, '"GET /page HTTP/1.1" 426'),
        (b"HEAD http://x/p HTTP/1.0\r\n\r\n", None, '"HEAD http://x/p HTTP/1.0" 426'),
        (b"\x16\x03\x01\r\n\r\n", None, '"-" 400'),
    ],
)
async def test_a_refusal(
    link: str, request_: bytes, answer: Any, line: str, log: pytest.LogCaptureFixture
) -> None:
    app = (
        Application(leave, answer) if isinstance(answer, dict) else Application(answer, UNANSWERED)
    )
    async with linked(link, app) as client:
        heard = await client.exchange(request_)
    [logged] = lines(log)
    assert logged.endswith(f" - {line} T in={len(request_)} out={len(heard)} close=-")


async def test_a_request_that_takes_too_long(link: str, log: pytest.LogCaptureFixture) -> None:
    async with linked(link, Application(), handshake_timeout=0.05) as client:
        heard = await client.rest()
    [line] = lines(log)
    assert line.endswith(f' - "-" 408 T in=0 out={len(heard)} close=-')


async def test_a_peer_that_leaves_in_the_middle(link: str, log: pytest.LogCaptureFixture) -> None:
    async with linked(link, Application()) as client:
        await client.stream.send(b"GET / HT")
        await client.stream.send_eof()
        await client.rest()
    [line] = lines(log)
    assert line.endswith(' - "-" - T in=8 out=0 close=-')


async def test_a_peer_that_says_nothing(link: str, log: pytest.LogCaptureFixture) -> None:
    async with linked(link, Application()) as client:
        await client.stream.send_eof()
        await client.rest()
    assert not lines(log)


async def test_a_request_stays_within_its_quotation_marks(log: pytest.LogCaptureFixture) -> None:
    target = b"/\"200\\%0a%22'<|?"
    async with linked("memory", Application()) as client:
        await client.exchange(REQUEST.replace(b"GET /", b"GET " + target) + CLOSE_3000)
    [line] = lines(log)
    assert line.startswith('- - "GET /%22200%5C%0a%22\'<| HTTP/1.1" 101 T ')


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_a_peer_by_its_address(host: str, shown: str, log: pytest.LogCaptureFixture) -> None:
    app = Application()
    async with anyio.create_task_group() as tasks:
        [address] = await tasks.start(partial(serve, app, host, 0))
        async with await anyio.connect_tcp(*address[:2]) as stream:
            await Client(stream).exchange(REQUEST + CLOSE_3000)
        tasks.cancel_scope.cancel()
    [line] = lines(log)
    assert line.startswith(f'{shown}:{app.scopes[0]["client"][1]} - "GET ')


@pytest.mark.parametrize(("name", "shown"), [(None, "-"), ("a\n127.0.0.1 b", "a%0A127.0.0.1%20b")])
async def test_a_peer_by_its_path(
    name: str | None,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as peer:
        if name is not None:
            peer.bind(name)
        async with anyio.create_task_group() as tasks:
            await tasks.start(partial(serve, Application(), uds="served"))
            peer.connect("served")
            peer.sendall(REQUEST + CLOSE_3000)
            while await anyio.to_thread.run_sync(peer.recv, 4096):
                pass
            tasks.cancel_scope.cancel()
    [line] = lines(log)
    assert line.startswith(f'{shown} - "GET ')
