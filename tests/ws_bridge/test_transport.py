from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from hubbub.ws_bridge.socket_transport import (
    SocketTransport,
    WatchedSocketTransport,
    socket_transport,
)
from hubbub.ws_bridge.stream_transport import StreamTransport
from hubbub.ws_bridge.streams import SocketStream
from hubbub.ws_bridge.transport import send_some
from tests.ws_bridge.peers import MemoryStream, memory_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(params=[SocketTransport, socket_transport])
def transport_of(request: pytest.FixtureRequest) -> Callable[[socket.socket], SocketTransport]:
    """The way that serves every loop, and the one that the loop likes best."""
    way: Callable[[socket.socket], SocketTransport] = request.param
    return way


async def test_a_socket(
    pair: tuple[socket.socket, socket.socket],
    transport_of: Callable[[socket.socket], SocketTransport],
) -> None:
    ours, theirs = pair
    transport = transport_of(ours)
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
    transport_of: Callable[[socket.socket], SocketTransport],
) -> None:
    transport = transport_of(pair[0])
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await transport.wait_readable()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        transport.close()


async def test_who_waits_for_a_socket_can_be_woken(
    pair: tuple[socket.socket, socket.socket],
    transport_of: Callable[[socket.socket], SocketTransport],
) -> None:
    transport = transport_of(pair[0])
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


async def test_a_socket_that_is_gone_already(
    transport_of: Callable[[socket.socket], SocketTransport],
) -> None:
    with socket.socket() as sock, pytest.raises(OSError, match="not connected"):
        transport_of(sock)


async def test_only_one_may_wait_for_a_socket(
    pair: tuple[socket.socket, socket.socket],
    transport_of: Callable[[socket.socket], SocketTransport],
) -> None:
    transport = transport_of(pair[0])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.wait_readable)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await transport.wait_readable()
        pair[1].send(b"hi")
    assert transport.try_receive() == b"hi"
    transport.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_wait_that_is_cancelled_when_something_comes_loses_nothing(
    pair: tuple[socket.socket, socket.socket],
    transport_of: Callable[[socket.socket], SocketTransport],
    turns: int,
) -> None:
    transport = transport_of(pair[0])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.wait_readable)
        await anyio.wait_all_tasks_blocked()
        pair[1].send(b"hi")
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await transport.wait_readable()
    assert transport.try_receive() == b"hi"
    assert transport.try_receive() is None
    transport.close()


async def test_what_comes_while_nobody_waits_stays_with_the_system_and_lets_the_loop_rest(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    on_readable = WatchedSocketTransport._on_readable

    def count(transport: WatchedSocketTransport) -> None:
        nonlocal calls
        calls += 1
        on_readable(transport)

    monkeypatch.setattr(WatchedSocketTransport, "_on_readable", count)
    transport = socket_transport(pair[0])
    pair[1].send(b"hi")
    for _ in range(50):
        await anyio.lowlevel.checkpoint()
    assert calls <= 1
    await look(transport, b"hi")
    for _ in range(50):
        await anyio.lowlevel.checkpoint()
    pair[1].send(b"again")
    await look(transport, b"again")
    transport.close()


async def test_a_socket_that_is_woken_while_something_comes(
    pair: tuple[socket.socket, socket.socket],
    transport_of: Callable[[socket.socket], SocketTransport],
) -> None:
    transport = transport_of(pair[0])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look, transport, b"hi")
        await anyio.wait_all_tasks_blocked()
        pair[1].send(b"hi")
        for _ in range(2):
            transport.wake()
    transport.close()


async def look(transport: SocketTransport, expected: bytes) -> None:
    """Take what has come, or comes."""
    while (data := transport.try_receive()) is None:
        await transport.wait_readable()
    assert data == expected


async def test_a_loop_that_cannot_watch_sockets(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(WatchedSocketTransport, "_watch", refuse)
    transport = socket_transport(pair[0])
    assert type(transport) is SocketTransport
    pair[1].send(b"hi")
    await look(transport, b"hi")
    transport.close()


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
    ours, theirs = map(SocketStream, map(socket_transport, pair))
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
