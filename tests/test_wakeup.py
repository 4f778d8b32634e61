from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from hubbub._wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@asynccontextmanager
async def woken_by(wakeup: Wakeup) -> AsyncGenerator[list[None]]:
    """Run a task that goes to sleep again whenever it is woken, and notes that."""
    woken: list[None] = []

    async def sleep() -> None:
        while True:
            await wakeup.wait()
            woken.append(None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep)
        await anyio.wait_all_tasks_blocked()
        yield woken
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def test_it_wakes_a_task_as_often_as_it_is_set() -> None:
    wakeup = Wakeup()
    async with woken_by(wakeup) as woken:
        for expected in range(4):
            assert len(woken) == expected
            wakeup.set()
            await anyio.wait_all_tasks_blocked()
    assert len(woken) == 4


async def test_what_was_set_while_nobody_waits_is_kept_once() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    async with woken_by(wakeup) as woken:
        assert len(woken) == 1


async def test_several_sets_wake_once() -> None:
    wakeup = Wakeup()
    async with woken_by(wakeup) as woken:
        wakeup.set()
        wakeup.set()
    assert len(woken) == 1


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_set_is_not_lost_to_a_wait_that_is_cancelled(turns: int) -> None:
    wakeup = Wakeup()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakeup.wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            for _ in range(turns):
                await checkpoint()
        wakeup.set()
    with anyio.fail_after(1):
        await wakeup.wait()
