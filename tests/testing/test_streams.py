"""The pair of streams in memory, and the faults that can be put upon any stream."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from hubbub.testing import FaultyStream, memory_streams

pytestmark = pytest.mark.may_leak("streams")  # to close one is part of what is tested


async def receive_all(stream: ByteStream) -> list[bytes]:
    """All pieces up to the end."""
    return [data async for data in stream]


# -- In memory --------------------------------------------------------------------------


async def test_bytes_go_both_ways() -> None:
    a, b = memory_streams()
    await a.send(b"there")
    await b.send(b"back")
    assert await b.receive() == b"there"
    assert await a.receive(2) == b"ba"
    assert await a.receive() == b"ck"
    await a.send(b"")
    await a.send_eof()
    assert await receive_all(b) == []
    await b.send(b"still")
    assert await a.receive() == b"still"
    with pytest.raises(anyio.BrokenResourceError):
        await a.send(b"after the end")


async def test_a_send_waits_until_there_is_room() -> None:
    a, b = memory_streams(capacity=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(a.send, b"0123456789")
        await anyio.wait_all_tasks_blocked()
        assert await b.receive() == b"0123"
        await anyio.wait_all_tasks_blocked()
        assert await b.receive(1) == b"4"
        await anyio.wait_all_tasks_blocked()
        assert await b.receive() == b"5678"
    assert await b.receive() == b"9"


async def test_a_receive_waits_for_bytes() -> None:
    a, b = memory_streams()
    received: list[bytes] = []

    async def receive() -> None:
        received.append(await b.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await a.send(b"at last")
    assert received == [b"at last"]


async def test_what_was_sent_before_the_close_arrives() -> None:
    a, b = memory_streams()
    await a.send(b"last words")
    await a.aclose()
    assert await receive_all(b) == [b"last words"]
    with pytest.raises(anyio.BrokenResourceError):
        await b.send(b"too late")
    for use in (a.receive, lambda: a.send(b"x"), a.send_eof):
        with pytest.raises(anyio.ClosedResourceError):
            await use()


async def test_an_abort_loses_what_was_sent() -> None:
    a, b = memory_streams(capacity=1)
    async with anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(anyio.BrokenResourceError):
                await b.send(b"more than fits")

        tasks.start_soon(send)
        await a.send(b"x")
        await anyio.wait_all_tasks_blocked()
        a.abort()
    with pytest.raises(anyio.BrokenResourceError):
        await b.receive()


def test_a_capacity_that_is_none() -> None:
    with pytest.raises(ValueError, match="at least 1 byte"):
        memory_streams(0)


# -- Faults -----------------------------------------------------------------------------


async def test_split_at_every_byte() -> None:
    a, b = memory_streams()
    faulty = FaultyStream(a, split=1)
    await b.send(b"abc")
    assert [await faulty.receive() for _ in range(3)] == [b"a", b"b", b"c"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(faulty.send, b"xyz")
        assert [await b.receive(1) for _ in range(3)] == [b"x", b"y", b"z"]
    await faulty.send(b"")


async def test_pieces_of_a_size() -> None:
    sent: list[bytes] = []

    class Sink(ByteStream):
        async def send(self, item: bytes) -> None:
            sent.append(item)

        async def receive(self, max_bytes: int = 65536) -> bytes:
            return bytes(max_bytes)

        async def send_eof(self) -> None:
            sent.append(b"eof")

        async def aclose(self) -> None:
            sent.append(b"closed")

        @property
        def extra_attributes(self) -> Any:
            return {SocketAttribute.remote_port: lambda: 8000}

    faulty = FaultyStream(Sink(), split=4)
    await faulty.send(b"0123456789")
    await faulty.send_eof()
    await faulty.aclose()
    assert sent == [b"0123", b"4567", b"89", b"eof", b"closed"]
    assert await faulty.receive() == bytes(4)
    assert await faulty.receive(3) == bytes(3)
    assert faulty.extra(SocketAttribute.remote_port) == 8000


async def test_a_delay() -> None:
    a, b = memory_streams()
    faulty = FaultyStream(a, split=1, delay=0.01)
    began = anyio.current_time()
    await faulty.send(b"abc")
    assert anyio.current_time() - began > 0.029
    assert await b.receive() == b"abc"


async def test_a_cut() -> None:
    a, b = memory_streams()
    faulty = FaultyStream(a, cut_after=5)
    await b.send(b"0123456789")
    assert await faulty.receive(3) == b"012"
    assert await faulty.receive() == b"34"
    for use in (faulty.receive, faulty.receive, lambda: faulty.send(b"x"), faulty.send_eof):
        with pytest.raises(anyio.BrokenResourceError):
            await use()
    with pytest.raises(anyio.BrokenResourceError):
        await b.send(b"x")


async def test_a_stall_lets_the_other_end_wait() -> None:
    a, b = memory_streams(capacity=2)
    faulty = FaultyStream(a)
    faulty.stall()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(b.send, b"abcd")
        with anyio.move_on_after(0.01) as scope:
            await faulty.receive()
        assert scope.cancelled_caught
        faulty.resume()
        assert await faulty.receive() == b"ab"
        assert await faulty.receive() == b"cd"


async def test_reading_slowly() -> None:
    a, b = memory_streams()
    faulty = FaultyStream(a, split=2)
    faulty.read_slowly(100)
    await b.send(b"abcdef")
    began = anyio.current_time()
    assert [await faulty.receive() for _ in range(3)] == [b"ab", b"cd", b"ef"]
    assert anyio.current_time() - began > 0.039


async def test_who_waits_when_it_is_aborted_fails() -> None:
    for stalled in (True, False):
        a, b = memory_streams()
        faulty = FaultyStream(a)
        if stalled:
            faulty.stall()
        async with anyio.create_task_group() as tasks:

            async def receive(stream: ByteStream = faulty) -> None:
                with pytest.raises(anyio.BrokenResourceError):
                    await stream.receive()

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await faulty.abort()
        assert await receive_all(b) == []


async def test_a_closed_stream_is_closed_and_not_broken() -> None:
    a, _ = memory_streams()
    faulty = FaultyStream(a)
    await faulty.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await faulty.receive()


@pytest.mark.parametrize("fault", [{"split": 0}, {"delay": -1}, {"cut_after": -1}])
def test_a_fault_that_is_none(fault: dict[str, Any]) -> None:
    a, _ = memory_streams()
    with pytest.raises(ValueError, match="no negative numbers"):
        FaultyStream(a, **fault)
