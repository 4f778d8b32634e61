from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from hubbub.ws_bridge.streams import SocketStream
from hubbub.ws_bridge.transport import SocketTransport, StreamTransport, send_some
from tests.ws_bridge.peers import MemoryStream, memory_pair

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


async def test_a_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    transport = SocketTransport(ours)
    assert transport.try_receive() is None
    theirs.send(b"hi")
    await transport.wait_readable()
    assert transport.try_receive() == b"hi"
    sent = 0
    while taken := send_some(transport, memoryview(bytes(65536))):
        sent += taken
    with pytest.raises(BlockingIOError):
        transport.try_send(b"x")
    theirs.setblocking(False)
    while sent:
        sent -= len(theirs.recv(65536))
    await transport.wait_writable()
    assert transport.try_send(b"x") == 1
    theirs.close()
    with pytest.raises(BrokenPipeError):
        transport.try_send(b"x")
    assert transport.try_receive() == b""
    transport.send_eof()
    for _ in range(2):
        transport.close()
    assert transport.try_receive() == b""
    for wait in (transport.wait_readable, transport.wait_writable):
        with pytest.raises(anyio.ClosedResourceError):
            await wait()


async def test_closing_a_socket_wakes_who_waits(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    transport = SocketTransport(pair[0])
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await transport.wait_readable()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        transport.close()


async def test_who_waits_for_a_socket_can_be_woken(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    transport = SocketTransport(pair[0])
    transport.wake()  # for nobody
    await look_in_vain(transport)
    pair[1].send(b"hi")
    await transport.wait_readable()
    assert transport.try_receive() == b"hi"
    for _ in range(2):
        transport.close()
        transport.wake()


async def test_who_waits_for_a_stream_can_be_woken() -> None:
    ours, theirs = memory_pair()
    transport = StreamTransport(theirs)
    async with anyio.create_task_group() as tasks, ours:
        tasks.start_soon(transport.run)
        await look_in_vain(transport)
        await ours.send(b"hi")
        await transport.wait_readable()
        assert transport.try_receive() == b"hi"
        for _ in range(3):  # nobody, and no place for it; then it is closed
            transport.wake()
        transport.close()
        transport.wake()


async def look_in_vain(transport: SocketTransport | StreamTransport) -> None:
    """Wait for what comes, and be woken although nothing does."""
    async with anyio.create_task_group() as tasks:

        async def wake() -> None:
            await anyio.wait_all_tasks_blocked()
            transport.wake()

        tasks.start_soon(wake)
        await transport.wait_readable()
        assert transport.try_receive() is None


async def test_a_socket_that_is_gone_already() -> None:
    with socket.socket() as sock, pytest.raises(OSError, match="not connected"):
        SocketTransport(sock)


async def test_a_stream() -> None:
    ours, theirs = memory_pair(1)
    transport = StreamTransport(theirs)
    async with anyio.create_task_group() as tasks, ours:
        tasks.start_soon(transport.run)
        assert transport.try_receive() is None
        for part in (b"1", b"2", b"3"):
            await ours.send(part)
        assert [await self_read(transport) for _ in range(3)] == [b"1", b"2", b"3"]
        # One with the peer, one on its way.
        assert transport.try_send(b"a") == 1
        await transport.wait_writable()
        assert transport.try_send(b"b") == 1
        await anyio.wait_all_tasks_blocked()
        assert transport.unsent
        with pytest.raises(BlockingIOError):
            transport.try_send(b"c")
        assert await ours.receive() == b"a"
        await transport.wait_writable()
        assert not transport.unsent
        transport.send_eof()
        assert await ours.receive() == b"b"
        with pytest.raises(anyio.EndOfStream):
            await ours.receive()
        await ours.send(b"last")
        assert await self_read(transport) == b"last"
        await ours.send_eof()
        assert await self_read(transport) == b""
        assert await self_read(transport) == b""
        transport.finish()
    assert transport.closed
    with pytest.raises(BrokenPipeError):
        transport.try_send(b"x")
    for wait in (transport.wait_readable, transport.wait_writable):
        with pytest.raises(anyio.ClosedResourceError):
            await wait()


async def self_read(transport: StreamTransport) -> bytes | None:
    await transport.wait_readable()
    await transport.wait_readable()  # what is there stays
    return transport.try_receive()


async def test_closing_a_stream_wakes_who_waits() -> None:
    ours, theirs = memory_pair(0)
    transport = StreamTransport(theirs)
    async with anyio.create_task_group() as tasks, ours:
        tasks.start_soon(transport.run)
        transport.try_send(b"stuck")

        async def wait_readable() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await transport.wait_readable()

        async def wait_writable() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await transport.wait_writable()

        tasks.start_soon(wait_readable)
        tasks.start_soon(wait_writable)
        await anyio.wait_all_tasks_blocked()
        transport.close()
    assert transport.try_receive() == b""


async def test_a_stream_that_breaks_is_closed() -> None:
    ours, theirs = memory_pair(0)
    transport = StreamTransport(theirs)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.run)
        await ours.aclose()
        transport.try_send(b"x")
    assert transport.closed
    assert transport.try_receive() == b""


class Failing(MemoryStream):
    """A stream as one of TLS is once it has failed: without a turn for anybody else."""

    def __init__(self, error: Exception, *ends: Any) -> None:
        super().__init__(*ends)
        self.error = error

    async def send(self, item: bytes) -> None:
        raise self.error

    async def aclose(self) -> None:
        await super().aclose()
        raise self.error


@pytest.mark.parametrize("error", [anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError])
async def test_a_stream_that_has_failed_is_given_up(error: type[Exception]) -> None:
    outgoing, incoming = (anyio.create_memory_object_stream[bytes](0) for _ in range(2))
    transport = StreamTransport(Failing(error(), outgoing[0], incoming[1]))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.run)
        transport.try_send(b"x")
    assert transport.closed
    outgoing[1].close()
    incoming[0].close()


async def test_a_socket_as_a_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = map(SocketStream, pair)
    size, received = 3_000_000, 0
    async with anyio.create_task_group() as tasks:

        async def send() -> None:
            await ours.send(bytes(size))
            await ours.send_eof()

        tasks.start_soon(send)
        with pytest.raises(anyio.EndOfStream):
            while True:
                received += len(await theirs.receive())
    assert received == size
    await ours.aclose()
    await theirs.aclose()
