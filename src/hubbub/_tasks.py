"""The task group that raises a single exception as itself, and whether a task is cancelled.

Every task group of the package is made here; nothing else lives here.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

__all__ = ("create_task_group", "is_cancelled")


@asynccontextmanager
async def create_task_group() -> AsyncIterator[TaskGroup]:
    """Open a task group that leaves no trace of itself in what it raises.

    Yields:
        The task group.

    Raises:
        BaseExceptionGroup: if more than one task failed. A single failure comes out as it
            is, so that a caller's ``except ValueError`` works; a group that the caller's
            own code raised comes out as it is, too.
    """
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        single = group.exceptions[0]
    else:
        return
    # Raised outside of the handler, so that it keeps the context it had.
    raise single


def is_cancelled() -> bool:
    """Tell whether a scope that this task is in was cancelled.

    If none was, a cancellation that it meets came from elsewhere: on asyncio, from a task that it
    awaited. If that escaped from a task of ours, it would cancel the whole group.
    """
    return anyio.current_effective_deadline() == -math.inf
