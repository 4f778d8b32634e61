"""Cancellation: wherever it strikes, nothing is left open, and nobody waits for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import ByteStream

from hubbub import App, WebSocket
from hubbub.client import connect
from hubbub.ws_bridge import serve_connection
from tests.client.servers import CLOSE, Server, hosted, scripted
from tests.ws_bridge.peers import MemoryStream, memory_pair

if TYPE_CHECKING:
    from collections.abc import Callable


class Tripwire(ByteStream):
    """A stream that calls back at the n-th beginning or end of its operations."""

    trip: Callable[[], None]

    def __init__(self, stream: MemoryStream, number: int) -> None:
        self.stream = stream
        self.left = number
        self.closed = False

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.trip()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self.count()
        data = await self.stream.receive(max_bytes)
        self.count()
        return data

    async def send(self, item: bytes) -> None:
        self.count()
        await self.stream.send(item)
        self.count()

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        self.closed = True
        await self.stream.aclose()


async def greet(ws: WebSocket) -> None:
    async with ws:
        async for text in ws:
            await ws.send_text(f"hello {text}")


@pytest.mark.parametrize("number", range(1, 17))
async def test_at_every_operation_of_the_stream(number: int) -> None:
    ours, theirs = memory_pair()
    stream = Tripwire(ours, number)
    done = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve_connection, App({"/": greet}), theirs)
        with anyio.CancelScope() as scope:
            stream.trip = scope.cancel
            async with connect("ws://test/", stream=stream) as ws:
                await ws.send("Ann")
                assert await ws.receive() == "hello Ann"
                done = True
    assert stream.closed
    assert stream.left <= 0 or done


async def test_in_the_handshake(link: str) -> None:
    async def script(server: Server) -> None:
        await server.read_request()
        assert await server.rest() == b""

    async with scripted(link, script) as to, anyio.create_task_group() as tasks:

        async def run() -> None:
            async with to(open_timeout=None):
                raise AssertionError

        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def test_while_receiving(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        assert await server.hear() == (CLOSE, b"\x03\xe9")
        assert await server.rest() == b""

    async with scripted(link, script) as to, anyio.create_task_group() as tasks:

        async def run() -> None:
            async with to(close_timeout=None) as ws:
                await ws.receive()

        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def test_in_the_closing_handshake(link: str) -> None:
    async def script(server: Server) -> None:
        await server.open()
        assert await server.hear() == (CLOSE, b"\x03\xe8")
        assert await server.rest() == b""

    async with scripted(link, script) as to, anyio.create_task_group() as tasks:

        async def run() -> None:
            async with to(close_timeout=None):
                pass

        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def test_of_a_receive_loses_no_message(link: str) -> None:
    async with hosted(link, App({"/": greet})) as to, to() as ws:
        for number in range(20):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await ws.receive()
            await ws.send(str(number))
            with anyio.move_on_after(0):
                await ws.receive_bytes()
            assert await ws.receive() == f"hello {number}"


async def test_of_a_send_leaves_no_half_message(link: str) -> None:
    """What is taken is sent whole, what is not leaves no trace."""
    size = 3_000_000
    heard: list[int] = []

    async def listen(ws: WebSocket) -> None:
        async with ws:
            await reading.wait()
            async for data in ws.iter_bytes():
                heard.append(len(data))
                assert data == data[:1] * size

    reading = anyio.Event()
    async with hosted(link, App({"/": listen}), max_queue=1) as to:
        async with to(deflate=False) as ws:
            sent = 0
            async with anyio.create_task_group() as tasks:

                async def flood() -> None:
                    nonlocal sent
                    while True:
                        await ws.send(bytes([sent % 256]) * size)
                        sent += 1

                tasks.start_soon(flood)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            assert sent > 0
            reading.set()
            await ws.send(b"\xff" * size)
        assert heard == [size] * (sent + 1)
