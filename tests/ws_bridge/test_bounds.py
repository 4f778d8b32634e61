"""What many bad peers can take together: memory and file descriptors have their bounds."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from wsproto.extensions import PerMessageDeflate

from hubbub import App, WebSocket
from hubbub.exceptions import ClientDisconnected
from hubbub.wire.deflate import Inflater
from hubbub.ws_bridge import Config
from hubbub.ws_bridge.connection import Connection
from tests.peer import eventually
from tests.wire.frame import frame
from tests.ws_bridge.peers import REQUEST, Application, Client, linked, served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from hubbub.types import Receive, Send

KIB, MIB = 1024, 1024 * 1024
PEERS = 16
BOMBS = 64
LIMIT = 256 * KIB
FLOOD = 20_000


def bomb(size: int) -> bytes:
    """A message of so many zeros, compressed (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(9, wbits=-15)
    data = compressor.compress(bytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(0xC2, data.removesuffix(b"\0\0\xff\xff"), key=bytes(4))


@pytest.fixture
def traced() -> Iterator[None]:
    """Count what is allocated from here on."""
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
async def test_many_small_zip_bombs_are_inflated_one_by_one() -> None:
    """Each is within the limit; what they are together is never in memory."""
    go_on = anyio.Event()
    heard: list[int] = []

    async def busy(ws: WebSocket) -> None:
        await ws.accept()
        await go_on.wait()
        heard.extend([len(await ws.receive_bytes()) for _ in range(BOMBS)])
        await ws.close(1000, "all")

    bombs = bomb(LIMIT) * BOMBS
    config = Config(max_message_size=LIMIT, grace_timeout=0.1)  # for an early stand-in
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(served(App({"/": busy}), config))
        clients = []
        for _ in range(PEERS):
            stream = await stack.enter_async_context(await anyio.connect_tcp(*address))
            clients.append(Client(stream))
            await clients[-1].open(extensions=[PerMessageDeflate()])
        connections = [it for it in gc.get_objects() if isinstance(it, Connection)]
        requests = {it: it.received for it in connections if not it.transport.closed}
        assert len(requests) == PEERS
        tracemalloc.reset_peak()
        for client in clients:
            await client.stream.send(bombs)
        await eventually(  # the stand-ins have come, and gone when it was enough
            lambda: all(it.received > size and not it.reading for it, size in requests.items())
        )
        go_on.set()
        for client in clients:
            assert await client.answer_close() == (1000, "all")
    assert heard == [LIMIT] * PEERS * BOMBS  # 256 MiB
    assert tracemalloc.get_traced_memory()[1] < 64 * MIB


@pytest.mark.usefixtures("traced")
async def test_many_large_zip_bombs_are_not_inflated() -> None:
    large = bomb(32 * MIB)
    tracemalloc.reset_peak()
    async with served(Application(), max_message_size=LIMIT) as address:
        for _ in range(PEERS):
            async with await anyio.connect_tcp(*address) as stream:
                client = Client(stream)
                await client.open(extensions=[PerMessageDeflate()])
                await client.stream.send(large)
                assert await client.closed() == (1009, f"message of more than {LIMIT} bytes")
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB


async def test_bombs_after_the_end_are_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    inflated: list[bytes] = []
    monkeypatch.setattr(Inflater, "inflate", lambda _, payload: inflated.append(payload))

    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    async with linked("memory", Application(leave)) as client:
        await client.open(extensions=[PerMessageDeflate()])
        await client.exchange(bomb(KIB) * 3 + frame(0x88))
    assert not inflated


async def turns_of_others(function: Callable[[], Awaitable[object]]) -> int:
    """Call a function; tell how many turns another task has had meanwhile."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await function()
        tasks.cancel_scope.cancel()
    return turns


FLOODS = [
    pytest.param(frame(0x8A) * FLOOD, id="control frames"),
    pytest.param(frame(0x01) + frame(0x00, b"x") * FLOOD + frame(0x80), id="fragments"),
]


@pytest.mark.parametrize("flood", FLOODS)
async def test_others_have_their_turns_while_many_small_frames_come(flood: bytes) -> None:
    async with linked("memory", Application()) as client:
        await client.open()

        async def exchange() -> None:
            await client.stream.send(flood + frame(0x81, b"last"))
            while await client.hear() != "last":
                pass

        assert await turns_of_others(exchange) > FLOOD / 200


@pytest.mark.parametrize("flood", [*FLOODS, pytest.param(frame(0x81) * FLOOD, id="messages")])
async def test_others_have_their_turns_while_what_comes_after_the_end_is_thrown_away(
    flood: bytes,
) -> None:
    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    async with linked("memory", Application(leave)) as client:
        await client.open()
        assert await client.closed() == (1000, "")
        talk_on = partial(client.exchange, flood + frame(0x88))
        assert await turns_of_others(talk_on) > FLOOD / 200


@pytest.mark.parametrize("accepts", [True, False])
async def test_an_application_has_to_wait_for_a_peer_that_does_not_read(accepts: bool) -> None:
    message: dict[str, Any] = {"type": "websocket.send", "bytes": bytes(MIB)}
    sent = 0

    async def send_much(_receive: Receive, send: Send) -> None:
        nonlocal sent
        if not accepts:
            message.update(type="websocket.http.response.body", body=bytes(MIB), more_body=True)
            await send({"type": "websocket.http.response.start", "status": 403})
        while sent < 200:
            await send(message)
            sent += 1

    app = Application(send_much, None if accepts else {"type": "none"})
    async with linked("socket", app, write_timeout=0.5) as client:
        await client.request()
        await app.over.wait()
    assert sent < 100  # the kernel's buffers, and ours
    assert isinstance(app.errors[0], ClientDisconnected)


@pytest.mark.parametrize("sends", [True, False])
async def test_others_have_their_turns_while_an_application_need_not_wait(sends: bool) -> None:
    count = 3200

    async def talk(receive: Receive, send: Send) -> None:
        for number in range(count):
            await (send({"type": "websocket.send", "text": str(number)}) if sends else receive())

    app = Application(talk)
    async with linked("socket", app) as client:
        await client.open()

        async def hear_all() -> None:
            if not sends:
                await client.stream.send(frame(0x81) * count)
            await app.over.wait()

        assert await turns_of_others(hear_all) > count / 100


PROGRAM = """
import logging, resource, sys
from hubbub import App
from hubbub.ws_bridge import run

async def listen(ws):
    async with ws:
        await ws.receive()

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
run(App({"/": listen}), port=0, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_those_for_whom_there_is_no_file_descriptor_are_served_later(backend: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, backend], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        try:
            while not (line := process.stdout.readline()).startswith("Listening on"):
                assert line
            address = ("127.0.0.1", int(line.rpartition(",")[2].strip(" )\n")))
            sockets = [socket.create_connection(address, timeout=20) for _ in range(100)]
            for sock in sockets:
                sock.sendall(REQUEST)
            while not (line := process.stdout.readline()).startswith("Cannot accept"):
                assert line
            for sock in sockets:  # in the order in which they came
                with sock:
                    assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        finally:
            process.kill()
