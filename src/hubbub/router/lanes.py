"""Lanes: lines of jobs, in each of which one job is done at a time, and has its time.

Whose job is in which lane is decided elsewhere, and so is what a job is. A lane has a task of
its own; how long its job may take is measured in ticks of a sweeper that runs while there are
jobs, because a scope with a deadline would cost more than all that is done for a message.
Made by a session, for its connection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Hashable

    from anyio.abc import TaskGroup

__all__ = ("ORDERED", "Job", "Lanes")

ORDERED: Final = "ordered"
"""The lane that most messages are in. It keeps its task: to wait for the next job costs half of
what a new task does."""

_TICKS = 8  # in the shortest time that a job may have; it is late by one at most
_SHORTEST_TICK = 0.001  # seconds


class Job(ABC):
    """Something to be done in a lane.

    Attributes:
        timeout: seconds that it may take; None: as many as it likes.
    """

    __slots__ = ("timeout",)

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout

    @abstractmethod
    async def do(self, lane: Lane) -> None:
        """Do it; ``lane.restart()`` gives it its time once more."""

    @abstractmethod
    async def give_up(self) -> None:
        """Say that it took too long; it was cancelled."""


class Lane:
    """A line of jobs.

    Attributes:
        jobs: the first one is being done.
        scope: around it.
        due: the tick at which its time is over.
    """

    __slots__ = ("_lanes", "due", "jobs", "scope")

    def __init__(self, lanes: Lanes, job: Job) -> None:
        self._lanes = lanes
        self.jobs = deque((job,))
        self.scope = anyio.CancelScope()
        self.due = inf

    def restart(self) -> None:
        """Let the time of the first job begin now."""
        self.due = self._lanes.due(self.jobs[0])


class Lanes:
    """The lanes of one connection.

    Attributes:
        running: how many jobs there are in all of them.
    """

    def __init__(self, tasks: TaskGroup, shortest: float | None) -> None:
        """Make lanes without a job.

        Args:
            tasks: the tasks of the lanes belong to it.
            shortest: the shortest timeout that a job will have; None: none will have one.
        """
        self.running = 0
        self._tasks = tasks
        self._tick = max(shortest / _TICKS, _SHORTEST_TICK) if shortest is not None else None
        self._ticks = 0
        self._sweeping = False
        self._lanes: dict[Hashable, Lane] = {}
        self._change: anyio.Event | None = None  # set when a job is done, if anybody waits
        self._wakeup = anyio.Event()  # set when there is a job in the ordered lane again

    def put(self, job: Job, key: Hashable = None) -> None:
        """Put a job at the end of a lane.

        Args:
            job: what is to be done.
            key: names the lane; None: a new one.

        Raises:
            TypeError: if the key is not hashable.
        """
        lane = self._lanes.get(key)  # first, because a key need not be one
        self.running += 1
        if lane is not None:
            lane.jobs.append(job)
            if len(lane.jobs) == 1:
                self._wakeup.set()
        else:
            lane = Lane(self, job)
            key = lane if key is None else key
            self._lanes[key] = lane
            self._tasks.start_soon(self._work, key, lane)
        if self._tick is not None and not self._sweeping:
            self._sweeping = True
            self._tasks.start_soon(self._sweep, self._tick)

    def is_busy(self, key: Hashable) -> bool:
        """Tell whether there are jobs in a lane."""
        lane = self._lanes.get(key)
        return lane is not None and bool(lane.jobs)

    async def changed(self) -> None:
        """Wait until a job is done, or ``notify`` is called."""
        self._change = anyio.Event()
        await self._change.wait()

    def notify(self) -> None:
        """Let ``changed`` return."""
        if self._change is not None:
            self._change.set()
            self._change = None

    async def _work(self, key: Hashable, lane: Lane) -> None:
        lasting = key == ORDERED
        while lane.jobs or lasting:
            with anyio.CancelScope() as lane.scope:  # around many jobs: until one is cancelled
                while not lane.scope.cancel_called:
                    if lane.jobs:
                        job = lane.jobs[0]
                        lane.due = self.due(job)
                        await job.do(lane)
                        self._finish(lane)
                    elif lasting:
                        self._wakeup = anyio.Event()
                        await self._wakeup.wait()
                    else:
                        break
            if lane.scope.cancelled_caught:
                lane.due = inf
                await lane.jobs[0].give_up()
                self._finish(lane)
        del self._lanes[key]

    def _finish(self, lane: Lane) -> None:
        lane.due = inf
        lane.jobs.popleft()
        self.running -= 1
        self.notify()

    # -- Time ---------------------------------------------------------------------------

    def due(self, job: Job) -> float:
        """Tell at which tick the time of a job that begins now will be over."""
        if job.timeout is None or self._tick is None:
            return inf
        return self._ticks + job.timeout / self._tick + 1

    async def _sweep(self, tick: float) -> None:
        rested = False
        while not rested:
            await anyio.sleep(tick)
            self._ticks += 1
            rested = not self.running
            for lane in self._lanes.values():
                if lane.due <= self._ticks:
                    lane.scope.cancel()
        self._sweeping = False
