"""RateLimit, and the token buckets that hold one connection to it.

What is done with a message beyond the limit is not decided here. Used by sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

__all__ = ("RateLimit", "TokenBuckets")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How much one connection may send.

    Attributes:
        messages: messages a second; None: any number.
        bytes: bytes of messages a second (text counts in characters); None: any number.
        burst: how many seconds' worth may be sent at once.
    """

    messages: float | None = None
    bytes: float | None = None
    burst: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what lets nothing through.

        Raises:
            ValueError: if a number is not above 0.
        """
        for name in ("messages", "bytes", "burst"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"Expected {name} above 0, got {value}")


class TokenBuckets:
    """One bucket for messages and one for bytes, each full at first."""

    __slots__ = ("_buckets",)

    def __init__(self, limit: RateLimit) -> None:
        rates = ((limit.messages, 1), (limit.bytes, 0))
        self._buckets = [_Bucket(rate, limit.burst, each) for rate, each in rates if rate]

    def take(self, size: int) -> bool:
        """Take a message's tokens; False, and nothing taken, when a bucket is empty."""
        now = anyio.current_time()
        for bucket in self._buckets:
            if not bucket.has_some(now):
                return False
        for bucket in self._buckets:
            bucket.take(size)
        return True


class _Bucket:
    """Tokens that are refilled at a steady rate.

    A message may take more than there are, or one that is larger than the bucket would never
    get through; the next one has to wait longer.
    """

    __slots__ = ("_capacity", "_each", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float, each: int) -> None:
        self._rate = rate
        self._capacity = max(rate * burst, 1)
        self._each = each  # tokens for a message; 0: as many as it has bytes
        self._tokens = self._capacity
        self._updated = anyio.current_time()

    def has_some(self, now: float) -> bool:
        earned = (now - self._updated) * self._rate
        self._tokens = min(self._tokens + earned, self._capacity)
        self._updated = now
        return self._tokens >= 1

    def take(self, size: int) -> None:
        self._tokens -= self._each or size
