"""Pace: how fast somebody reads: at once, slowly, or not at all.

What is read is not known here. Used by link, for messages, and by FaultyStream, for bytes.
"""

from __future__ import annotations

from math import inf

import anyio

__all__ = ("Pace",)


class Pace:
    """A reader's speed, which may change while others wait for it."""

    __slots__ = ("_changed", "_rate")

    def __init__(self) -> None:
        self._rate = inf
        self._changed = anyio.Event()

    def stall(self) -> None:
        """Read nothing."""
        self._change(0)

    def resume(self) -> None:
        """Read everything at once."""
        self._change(inf)

    def read_slowly(self, bytes_per_second: float) -> None:
        """Read that many bytes in a second.

        Raises:
            ValueError: if that is not above 0.
        """
        if not bytes_per_second > 0:
            raise ValueError(f"Expected more than 0 bytes per second, got {bytes_per_second}")
        self._change(bytes_per_second)

    async def wait(self, size: int) -> None:
        """Wait for as long as it takes to read so many bytes."""
        left = float(size)
        while left > 0 and self._rate != inf:
            rate, began = self._rate, anyio.current_time()
            with anyio.move_on_after(left / rate if rate else inf):
                await self._changed.wait()
            left -= rate * (anyio.current_time() - began)

    def _change(self, rate: float) -> None:
        self._rate = rate
        self._changed.set()
        self._changed = anyio.Event()
