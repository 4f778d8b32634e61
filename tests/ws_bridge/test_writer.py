from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import anyio
import pytest

from hubbub.ws_bridge import Config
from hubbub.ws_bridge.caretaker import Caretaker
from hubbub.ws_bridge.socket_transport import socket_transport
from hubbub.ws_bridge.stream_transport import StreamTransport
from hubbub.ws_bridge.writer import Writer
from tests.peer import eventually
from tests.ws_bridge.peers import memory_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from anyio.abc import TaskGroup

Pair = tuple[socket.socket, socket.socket]


class Idle:
    """A helper that has other things to do."""

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        pass

    def mark(self, writer: Writer) -> None:
        pass


class Busy(Idle):
    """A helper that starts the drain."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        self._tasks.start_soon(run, task)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(20)
        yield ours, theirs


def fill(writer: Writer) -> None:
    """Write until the peer would have to read."""
    while not writer.draining:
        writer.write(bytes(30_000))


async def test_what_is_corked_is_bounded(pair: Pair) -> None:
    transport = socket_transport(pair[0])
    writer = Writer(transport, Idle())
    for sent in (0, 0, 90_000, 90_000, 90_000, 180_000):
        writer.cork(bytes(30_000))
        assert writer.sent == sent
    transport.close()


async def test_what_is_written_does_not_wait_for_what_is_corked_to_be_sent(pair: Pair) -> None:
    transport = socket_transport(pair[0])
    writer = Writer(transport, Idle())
    writer.cork(b"a")
    writer.write(b"b")
    assert pair[1].recv(3) == b"ab"
    writer.cork(b"c")
    assert writer.try_write(b"d")
    assert pair[1].recv(3) == b"cd"
    transport.close()


async def test_what_is_corked_is_sent_before_the_last_thing_is_done(pair: Pair) -> None:
    transport = socket_transport(pair[0])
    writer = Writer(transport, Idle())
    writer.cork(b"a")
    writer.finish(transport.send_eof)
    assert [pair[1].recv(2), pair[1].recv(2)] == [b"a", b""]
    transport.close()


async def test_there_is_room_until_so_much_waits_for_the_peer(pair: Pair) -> None:
    transport = socket_transport(pair[0])
    async with anyio.create_task_group() as tasks:
        writer = Writer(transport, Busy(tasks))
        writer.cork(bytes(64 * 1024))
        assert writer.has_room
        fill(writer)
        assert writer.has_room
        writer.write(bytes(32 * 1024))
        assert writer.has_room
        writer.write(bytes(32 * 1024))
        assert not writer.has_room
        tasks.start_soon(read, pair[1])
        with anyio.fail_after(20):
            await writer.wait_room()
        tasks.cancel_scope.cancel()
    transport.close()


async def test_of_pongs_that_have_to_wait_the_newest_is_sent_once(pair: Pair) -> None:
    transport = socket_transport(pair[0])
    heard = bytearray()
    async with anyio.create_task_group() as tasks:
        writer = Writer(transport, Busy(tasks))
        fill(writer)
        writer.write_pong(b"old")
        writer.write_pong(b"new")
        tasks.start_soon(read, pair[1], heard)
        with anyio.fail_after(20):
            await writer.wait_drained()
        writer.write(b"end")
        await eventually(lambda: len(heard) == writer.sent)
        tasks.cancel_scope.cancel()
    assert heard.lstrip(b"\0") == b"newend"
    transport.close()


async def test_a_peer_that_has_gone_is_told_of(pair: Pair) -> None:
    transport = socket_transport(pair[0])
    writer = Writer(transport, Idle())
    pair[1].close()
    assert not writer.try_write(b"a")
    assert writer.broken
    assert writer.sent == 0
    transport.close()


async def test_a_peer_that_goes_while_something_waits_for_it_is_told_of(pair: Pair) -> None:
    transport = socket_transport(pair[0])
    async with anyio.create_task_group() as tasks:
        writer = Writer(transport, Busy(tasks))
        fill(writer)
        assert not writer.broken
        pair[1].close()
        with anyio.fail_after(20):
            await writer.wait_drained()
        assert writer.broken
    transport.close()


async def test_what_a_stream_has_in_hand_is_not_sent_yet() -> None:
    ours, theirs = memory_pair(1)
    transport = StreamTransport(ours)
    async with anyio.create_task_group() as tasks, theirs:
        tasks.start_soon(transport.run)
        writer = Writer(transport, Idle())
        for byte in (b"a", b"b"):  # one with the peer, one on its way
            writer.write(byte)
            await anyio.wait_all_tasks_blocked()
        assert not writer.draining
        assert writer.unsent
        await theirs.receive()
        await anyio.wait_all_tasks_blocked()
        assert not writer.unsent
        transport.close()


async def test_nothing_follows_half_a_frame() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        transport = socket_transport(ours)
        async with anyio.create_task_group() as tasks:
            writer = Writer(transport, Caretaker(Config(), tasks))
            writer.write(bytes(10_000_000))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await eventually(lambda: not writer.draining)
            half = writer.sent
            assert 0 < half < 10_000_000
            received = 0
            while received < half:
                received += len(theirs.recv(half))
            writer.write(b"the close frame")
            assert writer.broken
            assert not writer.unsent
            with pytest.raises(BlockingIOError):
                theirs.recv(1)
        transport.close()


async def run(task: Callable[[], Awaitable[None]]) -> None:
    await task()


async def read(peer: socket.socket, heard: bytearray | None = None) -> None:
    while True:
        await anyio.wait_readable(peer)
        data = peer.recv(2**16)
        if heard is not None:
            heard += data
