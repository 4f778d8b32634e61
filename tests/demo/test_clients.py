"""The demo as a process: clients of two other libraries, and its end by Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio
import websockets.asyncio.client
import websockets.sync.client
from trio_websocket import open_websocket_url
from websockets.exceptions import ConnectionClosed

from tests.demo.process import Demo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

BACKENDS = ["asyncio", "uvloop", "trio"]
_PATIENCE = 20.0  # seconds


@pytest.fixture(params=BACKENDS)
def demo(request: pytest.FixtureRequest) -> Iterator[Demo]:
    with Demo(request.param) as demo:
        yield demo


async def talk(
    receive: Callable[[], Awaitable[str | bytes]],
    send: Callable[[str], Awaitable[None]],
    mine: str,
    theirs: str,
) -> None:
    """Say something when the other one is here, and stay until both have been heard."""
    here: set[str] = set()
    heard: set[tuple[str, str]] = set()
    said = False
    while len(heard) < 2:
        message = json.loads(await receive())
        payload: dict[str, Any] = message["payload"]
        if message["type"] == "chat.members":
            here = set(payload["members"])
        elif message["type"] == "chat.joined":
            here.add(payload["nick"])
        elif message["type"] == "chat.said":
            heard.add((payload["nick"], payload["text"]))
        if not said and here == {mine, theirs}:
            said = True
            text = {"room": "lobby", "text": f"{mine} was here"}
            await send(json.dumps({"type": "chat.say", "payload": text}))
    assert heard == {(nick, f"{nick} was here") for nick in (mine, theirs)}


async def talk_by_websockets(demo: Demo) -> None:
    async with asyncio.timeout(_PATIENCE):
        url = demo.websocket_url("ann")
        async with websockets.asyncio.client.connect(url, proxy=None) as ws:
            await talk(ws.recv, ws.send, "ann", "bob")


async def talk_by_trio_websocket(demo: Demo) -> None:
    with trio.fail_after(_PATIENCE):
        async with open_websocket_url(demo.websocket_url("bob")) as ws:
            await talk(ws.get_message, ws.send_message, "bob", "ann")


def test_clients_on_asyncio_and_on_trio_talk_to_each_other(demo: Demo) -> None:
    with ThreadPoolExecutor(2) as threads:
        ann = threads.submit(asyncio.run, talk_by_websockets(demo))
        bob = threads.submit(trio.run, talk_by_trio_websocket, demo)
        ann.result()
        bob.result()


def test_the_first_line_says_where_it_is(demo: Demo) -> None:
    assert demo.output.startswith(f"hubbub demo: open {demo.url} in your browser (")
    assert "Ctrl-C" in demo.output


def test_ctrl_c_sends_everybody_away_to_come_back(demo: Demo) -> None:
    with ExitStack() as stack:  # as many connections as a page has
        sockets = [
            stack.enter_context(websockets.sync.client.connect(url, proxy=None))
            for url in (demo.websocket_url("ann"), f"ws://127.0.0.1:{demo.port}/ws/outboxes")
        ]
        for ws, kind in zip(sockets, ("chat.welcome", "outboxes"), strict=True):
            assert json.loads(ws.recv(_PATIENCE))["type"] == kind
        demo.interrupt()
        for ws in sockets:
            with pytest.raises(ConnectionClosed) as end:
                while True:
                    ws.recv(_PATIENCE)
            assert end.value.rcvd is not None
            assert end.value.rcvd.code == 1012
        assert demo.wait() == 0
    assert len(demo.output.splitlines()) == 1


def test_ctrl_c_ends_it_with_nobody_there_too(demo: Demo) -> None:
    demo.interrupt()
    assert demo.wait() == 0
    assert len(demo.output.splitlines()) == 1


def connect_without_reading(demo: Demo) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(_PATIENCE)
    sock.connect(("127.0.0.1", demo.port))
    lines = [
        "GET /ws/chat?nick=stuck HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
    ]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    assert sock.recv(12) == b"HTTP/1.1 101"
    return sock


def talk_until_left(demo: Demo) -> None:
    """Say so much that somebody who does not read has to go."""
    talk = {"type": "chat.say", "payload": {"room": "lobby", "text": "x" * 2000}}
    with websockets.sync.client.connect(demo.websocket_url("ann"), proxy=None) as ws:
        while json.loads(ws.recv(_PATIENCE))["type"] != "chat.left":
            ws.send(json.dumps(talk))


def test_ctrl_c_ends_it_with_a_peer_that_does_not_read(demo: Demo) -> None:
    with connect_without_reading(demo):
        talk_until_left(demo)
        demo.interrupt()
        assert demo.wait() == 0
    assert len(demo.output.splitlines()) == 1


def test_a_second_ctrl_c_ends_it_at_once(demo: Demo) -> None:
    with connect_without_reading(demo):
        talk_until_left(demo)
        demo.interrupt()
        while demo.is_listening():
            pass
        demo.interrupt()
        assert demo.wait() == -signal.SIGINT
