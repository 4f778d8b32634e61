"""Backoff: how long to wait before another attempt.

Nothing is attempted and nothing waited for here. Used by whoever comes back after a failure.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ("Backoff",)

_MAX_EXPONENT = 64  # beyond, every maximum is reached, and in the end a float overflows


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays that grow from failure to failure, and that differ from client to client.

    Attributes:
        first: the longest delay after one failure, in seconds.
        factor: how many times longer each further failure makes it.
        maximum: the longest delay of all, in seconds.
    """

    first: float = 0.5
    factor: float = 2.0
    maximum: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: if a delay is below zero, or they shrink.
        """
        if self.first < 0 or self.maximum < 0 or self.factor < 1:
            raise ValueError(f"Expected delays from 0 and a factor from 1, got {self}")

    def delay(self, failures: int) -> float:
        """Choose a delay, in seconds, at random: at least half of the longest one.

        Args:
            failures: how many there were in a row, at least one.
        """
        longest = self.first * self.factor ** min(failures - 1, _MAX_EXPONENT)
        return min(longest, self.maximum) * random.uniform(0.5, 1.0)
