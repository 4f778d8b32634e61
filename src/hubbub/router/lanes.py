"""Lanes: queues of jobs, in each of which one job is done at a time, within its timeout.

Whose job is in which lane is decided elsewhere, and so is what a job is. A lane has a task of
its own. A sweeper that runs while there are jobs looks at them from time to time, and cancels what
takes too long: a scope with a deadline would cost more than all that is done for a message.
Made by a session, for its connection.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import Hashable

    from anyio.abc import TaskGroup

__all__ = ("ORDERED", "Job", "Lanes")

ORDERED: Final = "ordered"
"""The lane that most messages are in. It keeps its task: waiting for the next job costs half of
what a new task does."""

_LOOKS = 16  # within the shortest timeout of a job; the sweeper is late by two looks at most
_SHORTEST_TICK = 0.001  # seconds


class Job(Protocol):
    """Something to be done in a lane."""

    @property
    def timeout(self) -> float | None:
        """Seconds that it may take; None: as many as it likes."""
        ...

    async def do(self, lane: Lane) -> None:
        """Do it; ``lane.restart()`` lets its timeout begin again."""
        ...

    async def give_up(self) -> None:
        """Report that it took too long; it was cancelled."""
        ...


class Lane:
    """A queue of jobs.

    Attributes:
        jobs: all of them; the first one is being done.
        scope: the scope around the first one.
        expired: whether the first one has timed out.
    """

    __slots__ = ("_due", "_watched", "expired", "jobs", "scope")

    def __init__(self, job: Job) -> None:
        self.jobs = deque((job,))
        self.scope = anyio.CancelScope()
        self.expired = False
        self._watched: Job | None = None  # what the sweeper has seen here at its last look
        self._due = inf

    def restart(self) -> None:
        """Let the timeout of the first job begin now."""
        self._watched = None

    def look(self, now: float) -> None:
        """Cancel the first job if it has timed out, counted from the first look that found it."""
        job = self.jobs[0] if self.jobs else None
        if job is not self._watched:
            self._watched = job
            self._due = inf if job is None or job.timeout is None else now + job.timeout
        elif now >= self._due:
            self.expired = True
            self.scope.cancel()


class Lanes:
    """The lanes of one connection.

    Attributes:
        running: how many jobs there are in all of them.
    """

    def __init__(self, tasks: TaskGroup, shortest: float | None) -> None:
        """Make lanes without a job.

        Args:
            tasks: runs the lanes.
            shortest: the shortest timeout that a job will have; None: none will have one.
        """
        self.running = 0
        self._tasks = tasks
        self._tick = max(shortest / _LOOKS, _SHORTEST_TICK) if shortest is not None else None
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
        lane = self._lanes.get(key)  # first, because it raises for a key that is not hashable
        self.running += 1
        if lane is not None:
            lane.jobs.append(job)
            if len(lane.jobs) == 1:
                self._wakeup.set()
        else:
            lane = Lane(job)
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
            lane.expired = False
            with anyio.CancelScope() as lane.scope:  # around many jobs: until one is cancelled
                while not lane.expired:
                    if lane.jobs:
                        await lane.jobs[0].do(lane)
                        self._finish(lane)
                    elif lasting:
                        self._wakeup = anyio.Event()
                        await self._wakeup.wait()
                    else:
                        break
            if lane.scope.cancelled_caught:
                await lane.jobs[0].give_up()
                self._finish(lane)
        del self._lanes[key]

    def _finish(self, lane: Lane) -> None:
        lane.jobs.popleft()
        self.running -= 1
        if self._change is not None:
            self.notify()

    async def _sweep(self, tick: float) -> None:
        rested = False
        while not rested:
            await anyio.sleep(tick)
            rested = not self.running
            now = anyio.current_time()
            for lane in self._lanes.values():
                lane.look(now)
        self._sweeping = False
