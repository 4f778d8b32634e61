from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from hubbub import senders as module
from hubbub.senders import Senders

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Worker:
    """Something to drain: it counts, and may be made to get stuck or to be slow."""

    def __init__(self, *, stall_timeout: float | None = None) -> None:
        self.in_line = False
        self.sender: object = None
        self.progress = 0
        self.stall_timeout = stall_timeout
        self.drained = 0
        self.stalls = 0
        self.entered = anyio.Event()
        self.free = anyio.Event()
        self.free.set()

    async def drain(self) -> bool:
        self.entered.set()
        await anyio.lowlevel.checkpoint()
        await self.free.wait()
        self.progress += 1
        self.drained += 1
        return False

    def stalled(self) -> None:
        self.stalls += 1


def stuck(stall_timeout: float | None = None) -> Worker:
    worker = Worker(stall_timeout=stall_timeout)
    worker.free = anyio.Event()
    return worker


@asynccontextmanager
async def running() -> AsyncGenerator[Senders]:
    async with anyio.create_task_group() as tasks:
        senders = Senders(tasks)
        try:
            yield senders
        finally:
            senders.stop()  # they are shielded: a test that fails would hang


def submit(senders: Senders, *workers: Worker) -> None:
    for worker in workers:
        senders.submit(worker)
    senders.wake()


async def drained(*workers: Worker) -> None:
    with anyio.fail_after(5):
        while not all(worker.drained for worker in workers):
            await anyio.lowlevel.checkpoint()


async def test_all_in_line_are_drained() -> None:
    workers = [Worker() for _ in range(200)]
    async with running() as senders:
        submit(senders, *workers)
        await drained(*workers)
        await anyio.wait_all_tasks_blocked()
        assert [worker.drained for worker in workers] == [1] * 200
        assert not any(worker.in_line for worker in workers)
        assert len(senders) == 1


async def test_a_worker_is_in_line_once() -> None:
    async with running() as senders:
        worker = Worker()
        submit(senders, worker, worker)
        await drained(worker)
        assert worker.drained == 1
        submit(senders, worker)
        await anyio.wait_all_tasks_blocked()
        assert worker.drained == 2


async def test_who_has_more_goes_to_the_end_of_the_line() -> None:
    order: list[Worker] = []

    class Rich(Worker):
        async def drain(self) -> bool:
            order.append(self)
            await super().drain()
            return self.drained < 3

    async with running() as senders:
        workers = [Rich() for _ in range(3)]
        submit(senders, *workers)
        await anyio.wait_all_tasks_blocked()
        assert order == workers * 3
        assert not any(worker.in_line for worker in workers)


async def test_nothing_in_line_wakes_nobody() -> None:
    async with running() as senders:
        senders.wake()
        await anyio.wait_all_tasks_blocked()
        assert len(senders) == 0


@pytest.mark.parametrize("crowd", [1, 3, 4, 50])
async def test_those_who_are_stuck_hold_up_nobody_else(crowd: int) -> None:
    async with running() as senders:
        blockers = [stuck() for _ in range(crowd)]
        others = [Worker() for _ in range(20)]
        submit(senders, *blockers, *others)
        await drained(*others)
        assert not any(blocker.drained for blocker in blockers)
        for blocker in blockers:
            blocker.free.set()
        await drained(*blockers)
        await anyio.wait_all_tasks_blocked()
        assert len(senders) <= 4  # those that were put to work for the crowd have left


@pytest.mark.usefixtures("virtual_clock")
async def test_a_crowd_that_is_stuck_at_once_holds_up_others_for_a_few_looks() -> None:
    async with running() as senders:
        blockers, other = [stuck() for _ in range(100)], Worker()
        submit(senders, *blockers, other)
        began = anyio.current_time()
        await other.entered.wait()
        assert anyio.current_time() - began < 10 * module._PATIENCE


@pytest.mark.usefixtures("virtual_clock")
async def test_a_line_that_moves_needs_no_more_senders() -> None:
    class Slow(Worker):
        async def drain(self) -> bool:
            await anyio.sleep(module._PATIENCE / 3)
            return await super().drain()

    async with running() as senders:
        workers = [Slow() for _ in range(20)]
        submit(senders, *workers)
        await workers[-1].entered.wait()
        assert len(senders) == 1


async def test_one_that_got_stuck_alone_leaves_the_others_asleep_but_ready() -> None:
    async with running() as senders:
        first = [stuck(), stuck()]
        for blocker in first:
            submit(senders, blocker)
            await blocker.entered.wait()
        for blocker in first:
            blocker.free.set()
        await drained(*first)
        await anyio.wait_all_tasks_blocked()
        assert len(senders) == 2  # both idle
        blocker, other = stuck(), Worker()
        submit(senders, blocker, other)
        await drained(other)
        assert not blocker.drained


async def test_those_who_take_much_but_take_it_need_no_more_senders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    look = module._Sender.look

    def take_more_and_look(self: module._Sender) -> None:
        nonlocal looks
        looks += 1
        if self.current is not None:
            self.current.progress += 1
        look(self)

    async def looked(times: int) -> None:
        until = looks + times
        with anyio.fail_after(5):
            while looks < until:
                await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(module, "_PATIENCE", 0)
    monkeypatch.setattr(module._Sender, "look", take_more_and_look)
    async with running() as senders:
        busy: list[Worker] = []
        with anyio.fail_after(5):
            while len(busy) < max(4, len(senders)):  # until each has one in hand
                busy.append(stuck())
                submit(senders, busy[-1])
                await busy[-1].entered.wait()
        before = len(senders)
        await looked(3 * before)  # at each of them, three times
        last = Worker()
        submit(senders, last)
        await looked(100)
        assert len(senders) == before
        assert not last.drained
        for worker in busy:
            worker.free.set()
        await drained(last, *busy)


async def test_a_released_worker_costs_no_sender() -> None:
    async with running() as senders:
        blocker, other = stuck(), Worker()
        submit(senders, blocker)
        await blocker.entered.wait()
        senders.release(other)
        assert len(senders) == 1
        senders.release(blocker)
        await anyio.wait_all_tasks_blocked()
        assert len(senders) == 0
        assert not blocker.in_line
        submit(senders, other)
        await drained(other)


async def test_who_stands_behind_a_released_worker_is_not_cancelled_with_it() -> None:
    async with running() as senders:
        blocker, other = stuck(), Worker()
        submit(senders, blocker)
        await anyio.wait_all_tasks_blocked()
        senders.submit(other)
        blocker.free.set()  # in the very turn in which it is given up
        senders.release(blocker)
        await drained(blocker, other)


@pytest.mark.usefixtures("virtual_clock")
async def test_nobody_waits_for_a_sender_that_was_released() -> None:
    async with running() as senders:
        blocker, other = stuck(), Worker()
        submit(senders, blocker)
        await blocker.entered.wait()
        await anyio.sleep(1)
        blocker.free.set()
        senders.release(blocker)
        await anyio.sleep(1)
        submit(senders, other)
        began = anyio.current_time()
        await other.entered.wait()
        assert anyio.current_time() == began


async def test_they_go_on_when_their_task_group_is_cancelled() -> None:
    async with anyio.create_task_group() as tasks:
        senders = Senders(tasks)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            try:
                other = Worker()
                submit(senders, *[stuck() for _ in range(4)], other)
                await drained(other)
            finally:
                senders.stop()


@pytest.mark.usefixtures("virtual_clock")
async def test_no_progress_for_too_long_is_a_stall() -> None:
    async with running() as senders:
        patient, hasty = stuck(), stuck(stall_timeout=30)
        submit(senders, patient, hasty)
        await anyio.sleep(29)
        assert hasty.stalls == 0
        await anyio.sleep(2)
        assert hasty.stalls == 1
        await anyio.sleep(60)
        assert hasty.stalls == 3
        assert patient.stalls == 0


async def test_progress_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = module._Sender.look

    def move_and_look(self: module._Sender) -> None:
        nonlocal looks
        looks += 1
        if self.current is not None and looks < 100:
            self.current.progress += 1
        look(self)

    monkeypatch.setattr(module, "_PATIENCE", 0)
    monkeypatch.setattr(module._Sender, "look", move_and_look)
    async with running() as senders:
        worker = stuck(stall_timeout=0)
        submit(senders, worker)
        with anyio.fail_after(5):
            while not worker.stalls:
                await anyio.lowlevel.checkpoint()
        assert looks in {100, 101}  # the warden may look once more before this task has its turn


async def test_the_warden_sleeps_when_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    look = Senders._look_for_stalled

    def count(self: Senders) -> None:
        nonlocal looks
        looks += 1
        look(self)

    monkeypatch.setattr(Senders, "_look_for_stalled", count)
    monkeypatch.setattr(module, "_PATIENCE", 0)
    async with running() as senders:
        worker = Worker()
        submit(senders, worker)
        await drained(worker)
        await anyio.wait_all_tasks_blocked()
        seen = looks
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert looks == seen > 0
