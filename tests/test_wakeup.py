from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from hubbub._wakeup import Wakeup


async def wait(wakeup: Wakeup, woken: list[int]) -> None:
    while True:
        await wakeup.wait()
        woken.append(len(woken))


async def test_it_wakes_a_task_as_often_as_it_is_set() -> None:
    wakeup, woken = Wakeup(), list[int]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, wakeup, woken)
        for expected in range(4):
            await anyio.wait_all_tasks_blocked()
            assert len(woken) == expected
            wakeup.set()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert len(woken) == 4


async def test_what_was_set_while_nobody_waits_is_kept_once() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    with anyio.fail_after(1):
        await wakeup.wait()
    with anyio.move_on_after(0.01) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught


async def test_several_sets_wake_once() -> None:
    wakeup, woken = Wakeup(), list[int]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, wakeup, woken)
        await anyio.wait_all_tasks_blocked()
        wakeup.set()
        wakeup.set()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert len(woken) == 1


async def test_a_set_is_not_lost_to_a_wait_that_is_cancelled_meanwhile() -> None:
    wakeup = Wakeup()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakeup.wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        wakeup.set()
    with anyio.fail_after(1):
        await wakeup.wait()


async def test_a_set_just_after_a_cancelled_wait_is_kept_too() -> None:
    wakeup = Wakeup()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakeup.wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        await checkpoint_shielded()
        wakeup.set()
    with anyio.fail_after(1):
        await wakeup.wait()


async def checkpoint_shielded() -> None:
    with anyio.CancelScope(shield=True):
        await checkpoint()
