"""Wakeup: what a task of ours sleeps on until there is something to do.

No loop is known by name here, only by what it can do. Used by the hub's flusher, senders and
warden, by the caretaker's flusher, and by the writer of a stream that is no socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ("Future", "Wakeup")


class Future(Protocol):
    """What asyncio's loops create for one waiter."""

    def done(self) -> bool:
        """Tell whether it has a result, or was cancelled."""
        ...

    def set_result(self, result: None) -> None:
        """Wake the waiter."""
        ...

    def __await__(self) -> Generator[None, None, None]:
        """Wait for that."""
        ...


class Wakeup:
    """Wakes one task, as often as it goes to sleep.

    A new ``anyio.Event`` for each time would do the same, but cost more than twice as much on
    asyncio, where it keeps a list of waiters, and an eighth more on trio (measured).
    """

    __slots__ = ("_create_future", "_event", "_future", "_is_set")

    def __init__(self) -> None:
        loop = current_token().native_token
        self._create_future: Callable[[], Future] | None = getattr(loop, "create_future", None)
        self._future: Future | None = None
        self._event = anyio.Event() if self._create_future is None else None
        self._is_set = False

    def set(self) -> None:
        """Wake the task; if it is awake, it will not go to sleep the next time."""
        self._is_set = True
        if self._event is not None:
            self._event.set()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Sleep until ``set`` is called; not at all if it was called since the last sleep."""
        if self._is_set:
            pass
        elif self._create_future is not None:
            self._future = self._create_future()
            await self._future
        else:
            assert self._event is not None
            self._event = type(self._event)()  # anyio.Event() would look for the loop first
            await self._event.wait()
        self._is_set = False
