"""cancel_at: the n-th await is where it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from hubbub.testing import cancel_at, memory_streams


class FunctionError(Exception):
    """What a function fails with, on purpose."""


async def test_each_await_in_turn() -> None:
    reached: list[int] = []

    async def work() -> None:
        for step in range(3):
            reached.append(step)
            await checkpoint()

    cancelled: list[list[int]] = []
    number = 1
    while await cancel_at(number, work):
        cancelled.append(reached.copy())
        reached.clear()
        number += 1
    assert cancelled == [[0], [0, 1], [0, 1, 2]]
    assert reached == [0, 1, 2]


async def test_what_is_waited_for_is_given_back() -> None:
    async def add(a: int, b: int) -> None:
        sender, receiver = anyio.create_memory_object_stream[int]()
        async with anyio.create_task_group() as tasks, sender, receiver:
            tasks.start_soon(sender.send, a)
            sums.append(await receiver.receive() + b)
        await checkpoint()

    sums: list[int] = []
    assert not await cancel_at(1000, add, 1, 2)
    assert sums == [3]


async def test_cleanup_runs() -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
            log.append("clean")

    assert await cancel_at(1, work)
    assert log == ["clean"]


async def test_what_it_raises_comes_out() -> None:
    async def fail() -> None:
        await checkpoint()
        raise FunctionError

    with pytest.raises(FunctionError):
        await cancel_at(10, fail)
    with pytest.raises(TimeoutError):

        async def time_out() -> None:
            with anyio.fail_after(0):
                await anyio.sleep_forever()

        await cancel_at(10, time_out)


async def test_a_send_that_loses_nothing_wherever_it_is_cancelled() -> None:
    """A use: whoever is cancelled while receiving must not have taken anything."""
    a, b = memory_streams()
    await a.send(b"x")

    async def receive() -> None:
        received.append(await b.receive())

    received: list[bytes] = []
    number = 1
    while await cancel_at(number, receive):
        assert not received
        number += 1
    assert received == [b"x"]
    await a.aclose()
    await b.aclose()


async def test_a_number_that_is_none() -> None:
    function: Callable[[], Awaitable[None]] = checkpoint
    with pytest.raises(ValueError, match="at least 1"):
        await cancel_at(0, function)
