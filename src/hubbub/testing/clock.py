"""The clock of a test, which jumps to whatever is due next when every task is blocked.

All of hubbub's time is the event loop's, through anyio; so a loop with another clock is all that
is needed, and this is the one place where loops are known by their names. Called by tests, and by
the plugin for pytest.
"""

from __future__ import annotations

import asyncio
from selectors import DefaultSelector
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from selectors import SelectorKey

__all__ = ("virtual_clock",)


def virtual_clock(loop: str) -> tuple[str, dict[str, Any]]:
    """Choose a backend of anyio with a clock that does not wait.

        @pytest.fixture
        def anyio_backend():
            return virtual_clock("trio")

    Whenever every task is blocked, the time is at once that of the next deadline. Threads and
    the other ends of sockets are not waited for. On asyncio,
    ``anyio.wait_all_tasks_blocked()`` may let a tenth of a second go by.

    Args:
        loop: ``asyncio`` or ``trio``. The clock of uvloop cannot be replaced.

    Returns:
        The name of the backend, and its options.

    Raises:
        ValueError: if there is no such loop.
    """
    if loop == "asyncio":
        return "asyncio", {"loop_factory": _JumpingLoop}
    if loop == "trio":
        from trio.testing import MockClock

        return "trio", {"clock": MockClock(autojump_threshold=0)}
    raise ValueError(f"Expected a loop of ['asyncio', 'trio'], got {loop!r}")


class _JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, with a time that passes only while there is nothing else to do."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Selector(self._jump))

    def time(self) -> float:
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds


class _Selector(DefaultSelector):
    """Looks for what is ready; when it should wait for some time, that time has passed at once."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Look; really wait only when no deadline is set at all: for a thread, say."""
        if timeout is None:
            return super().select()
        ready = super().select(0)
        if not ready:
            self._jump(max(timeout, 0))
        return ready
