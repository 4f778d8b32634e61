"""Clients that others have made."""

from __future__ import annotations

import gc
import os
import socket
import struct
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
import websockets
from sniffio import current_async_library
from trio_websocket import ConnectionClosed as TrioClosed
from trio_websocket import open_websocket_url

from hubbub import App, WebSocket, WebSocketDisconnect
from hubbub.prepared import OUTLET
from hubbub.ws_bridge.connection import Connection
from tests.peer import eventually
from tests.wire.frame import frame
from tests.ws_bridge.peers import REQUEST, Client, served

if TYPE_CHECKING:
    from hubbub.types import Data


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for data in ws.iter_messages():
            await ws.send(data)


MESSAGES: list[Data] = ["", "hé", b"", bytes(range(256)), "x" * 100_000, b"y" * 500_000]


async def test_websockets() -> None:
    if current_async_library() != "asyncio":
        pytest.skip("websockets knows asyncio")
    async with served(App({"/": echo})) as (host, port):
        async with websockets.connect(f"ws://{host}:{port}/") as client:
            for data in MESSAGES:
                await client.send(data)
                assert await client.recv() == data
            await client.send(["frag", "men", "ts"])
            assert await client.recv() == "fragments"
            await (await client.ping())
        assert client.close_code == 1000


async def test_trio_websocket() -> None:
    if current_async_library() != "trio":
        pytest.skip("trio-websocket knows trio")
    async with served(App({"/": echo})) as (host, port):
        async with open_websocket_url(f"ws://{host}:{port}/") as client:
            for data in MESSAGES:
                await client.send_message(data)
                assert await client.get_message() == data
            await client.ping(b"there?")
        with pytest.raises(TrioClosed) as raised:
            await client.get_message()
        assert raised.value.reason is not None
        assert raised.value.reason.code == 1000


async def test_two_thousand_peers_that_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of them: no file descriptor, no task, and nothing to be collected."""
    monkeypatch.setattr("hubbub.ws_bridge.caretaker._MAX_PERIOD", 0.05)  # for many looks at them
    app = App({"/": echo})

    async def come_and_go(address: tuple[str, int], turn: int) -> None:
        with socket.socket() as sock:
            sock.connect(address)
            if turn % 4:
                sock.send(REQUEST[: 40 * (turn % 4) ** 2])
            if turn % 4 == 3:
                await anyio.lowlevel.checkpoint()
            if turn % 2:  # a reset
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await anyio.lowlevel.checkpoint()

    def connections() -> list[Connection]:
        gc.collect()
        return [thing for thing in gc.get_objects() if isinstance(thing, Connection)]

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with served(app) as address:
        await anyio.wait_all_tasks_blocked()
        others = set(map(id, connections()))  # that earlier tests still hold
        before = open_files(), len(anyio.get_running_tasks())
        for turn in range(2000):
            await come_and_go(address, turn)
        await eventually(lambda: (open_files(), len(anyio.get_running_tasks())) == before)
        # The kernel may not have handed over the last ones by then; and to look for them takes so
        # long that the loop needs more than a turn between two looks.
        with anyio.fail_after(30):
            while not set(map(id, connections())) <= others:
                await anyio.wait_all_tasks_blocked()
        client = Client(await anyio.connect_tcp(*address))
        await client.open()
        await client.close()
        await client.stream.aclose()


async def test_a_send_after_the_peers_close_says_how_it_ended() -> None:
    ended: list[WebSocketDisconnect] = []
    left = anyio.Event()

    async def only_send(ws: WebSocket) -> None:
        outlet = ws.scope["extensions"][OUTLET]
        async with ws:
            await eventually(lambda: outlet.closed)
            for _ in range(2):
                with pytest.raises(WebSocketDisconnect) as raised:
                    await ws.send("late")
                ended.append(raised.value)
        left.set()

    app = App({"/": only_send})
    async with served(app, ping_interval=0.04) as address:  # for an early stand-in
        client = Client(await anyio.connect_tcp(*address))
        await client.open()
        await client.stream.send(frame(0x88, b"\x0f\xa1why"))
        await left.wait()
        await client.stream.aclose()
    assert [(error.code, error.reason) for error in ended] == [(4001, "why")] * 2
