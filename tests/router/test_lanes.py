from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import ref

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from hubbub.router.lanes import ORDERED, Lane, Lanes
from tests.peer import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []


class Task:
    """A job that says when it begins and how it ends, which a test decides."""

    def __init__(self, log: Log, name: str, timeout: float | None = None) -> None:
        self.log = log
        self.name = name
        self.timeout = timeout
        self.may_end = anyio.Event()
        self.stubborn = False

    async def do(self, lane: Lane) -> None:
        del lane
        self.log.lines.append(f"{self.name} begins")
        if self.stubborn:
            with anyio.CancelScope(shield=True):
                await self.may_end.wait()
        else:
            await self.may_end.wait()
        self.log.lines.append(f"{self.name} ends")

    async def give_up(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.log.lines.append(f"{self.name} is given up")


@asynccontextmanager
async def running(shortest: float | None = None) -> AsyncGenerator[tuple[Lanes, Log]]:
    async with anyio.create_task_group() as tasks:
        yield Lanes(tasks, shortest), Log()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("key", [ORDERED, "a"])
async def test_one_at_a_time(key: str) -> None:
    async with running() as (lanes, log):
        first, second, third = (Task(log, name) for name in ("first", "second", "third"))
        lanes.put(first, key)
        lanes.put(second, key)
        second.may_end.set()
        await wait_all_tasks_blocked()
        assert log.lines == ["first begins"]
        assert lanes.running == 2
        assert lanes.is_busy(key)
        first.may_end.set()
        await eventually(lambda: not lanes.running)
        assert log.lines[1:] == ["first ends", "second begins", "second ends"]
        assert not lanes.is_busy(key)
        await wait_all_tasks_blocked()
        lanes.put(third, key)
        await wait_all_tasks_blocked()
        assert log.lines[4:] == ["third begins"]


async def test_lanes_do_not_wait_for_each_other() -> None:
    async with running() as (lanes, log):
        for name, key in (("a", "a"), ("b", "b"), ("c", None), ("d", None)):
            lanes.put(Task(log, name), key)
        await wait_all_tasks_blocked()
        assert sorted(log.lines) == ["a begins", "b begins", "c begins", "d begins"]
        assert not lanes.is_busy(ORDERED)


async def test_a_key_that_is_none() -> None:
    async with running() as (lanes, log):
        key: Any = []
        with pytest.raises(TypeError, match="unhashable"):
            lanes.put(Task(log, "a"), key)
        assert lanes.running == 0


@pytest.mark.parametrize("key", [ORDERED, "a", None])
async def test_a_job_that_takes_too_long_makes_way(key: str | None) -> None:
    async with running(0.01) as (lanes, log):
        slow, next_one = Task(log, "slow", 0.01), Task(log, "next", 10.0)
        lanes.put(slow, key)
        lanes.put(next_one, key)
        next_one.may_end.set()
        await eventually(lambda: not lanes.running)
        assert "slow is given up" in log.lines
        assert "next ends" in log.lines
        assert "slow ends" not in log.lines


async def test_a_job_without_a_timeout_has_any_time() -> None:
    async with running(0.01) as (lanes, log):
        patient, slow = Task(log, "patient"), Task(log, "slow", 0.01)
        lanes.put(patient)
        lanes.put(slow)
        await eventually(lambda: "slow is given up" in log.lines)
        patient.may_end.set()
        await eventually(lambda: not lanes.running)
        assert "patient ends" in log.lines


async def test_when_the_time_of_a_job_is_over() -> None:
    log = Log()
    lane = Lane(Task(log, "first", 10.0))
    lane.jobs += [Task(log, "second", 5.0), Task(log, "patient")]
    looks: list[tuple[float, bool]] = []

    def look(*times: float) -> None:
        for now in times:
            lane.look(now)
            looks.append((now, lane.expired))

    look(100.0, 109.9)
    lane.restart()
    look(110.0, 119.9)
    lane.jobs.popleft()
    look(120.0, 124.9, 125.0)
    assert looks == [*((now, False) for now, _ in looks[:-1]), (125.0, True)]
    assert lane.scope.cancel_called
    lane.expired = False
    lane.jobs.popleft()
    look(130.0, 1e9)
    lane.jobs.popleft()
    look(2e9, 3e9)
    assert not lane.expired


@pytest.mark.usefixtures("virtual_clock")
async def test_what_is_done_is_let_go() -> None:
    """A message may be large, and its connection idle for long."""
    async with running(10.0) as (lanes, log):
        job = Task(log, "large", 10.0)
        lanes.put(job, ORDERED)
        await anyio.sleep(5)  # the sweeper has looked at it
        job.may_end.set()
        done = ref(job)
        del job
        await anyio.sleep(5)
        gc.collect()
        assert done() is None


@pytest.mark.parametrize("key", [ORDERED, None])
async def test_a_job_that_ends_although_its_time_was_over(key: str | None) -> None:
    async with running(0.01) as (lanes, log):
        late, next_one = Task(log, "late", 0.01), Task(log, "next", 10.0)
        late.stubborn = True
        lanes.put(late, key)
        await anyio.sleep(0.05)
        late.may_end.set()
        lanes.put(next_one, key)
        next_one.may_end.set()
        await eventually(lambda: not lanes.running)
        assert "late ends" in log.lines
        assert "next ends" in log.lines
        assert "late is given up" not in log.lines


async def test_the_sweeper_rests_and_comes_back() -> None:
    async with running(0.01) as (lanes, log):
        for number in range(3):
            quick, slow = Task(log, f"quick {number}"), Task(log, f"slow {number}", 0.01)
            quick.may_end.set()
            lanes.put(quick, ORDERED)
            await eventually(lambda: not lanes.running)
            await anyio.sleep(0.01)
            lanes.put(slow, ORDERED)
            await eventually(lambda: not lanes.running)
            assert log.lines[-1] == f"slow {number} is given up"


async def test_changes_can_be_waited_for() -> None:
    async with running() as (lanes, log):
        job = Task(log, "a")
        lanes.put(job)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lanes.changed)
            await wait_all_tasks_blocked()
            job.may_end.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lanes.changed)
            await wait_all_tasks_blocked()
            lanes.notify()
