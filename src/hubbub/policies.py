"""The backpressure policies: what happens to a message that does not fit into an outbox.

Each is one decision, taken at once and about one outbox. How an outbox counts and keeps its
messages is not known here, nor what becomes of a member. Chosen by applications, at ``join``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubbub.close_codes import check_close
from hubbub.outbox import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from hubbub.outbox import Outbox
    from hubbub.prepared import Prepared
    from hubbub.types import Data

__all__ = ("Block", "Coalesce", "Disconnect", "DropNewest", "DropOldest")

_SLOW_CONSUMER = (1013, "slow consumer")  # 1013: try again later


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Disconnect a member that cannot keep up: it gets everything or is told that it did not.

    Attributes:
        code: the close code; 1013 (try again later) by default.
        reason: the close reason, at most 123 bytes of UTF-8.
    """

    code: int = _SLOW_CONSUMER[0]
    reason: str = _SLOW_CONSUMER[1]

    def __post_init__(self) -> None:
        check_close(self.code, self.reason)

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Refuse the message, and disconnect the member."""
        del outbox, message
        return Verdict(queued=False, disconnect=(self.code, self.reason))


@dataclass(frozen=True, slots=True)
class DropOldest:
    """Drop the oldest messages that wait, for members to whom only the latest matter."""

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Drop from the front until the message fits; drop the message if it never can."""
        if message.size > outbox.max_bytes:
            return outbox.refuse()
        dropped = 0
        while not outbox.fits(message):
            outbox.drop_oldest()
            dropped += 1
        outbox.send_nowait(message)
        return Verdict(queued=True, dropped=dropped)


@dataclass(frozen=True, slots=True)
class DropNewest:
    """Drop the message that does not fit, for members who must not miss the beginning."""

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Drop the message."""
        del message
        return outbox.refuse()


@dataclass(frozen=True, slots=True)
class Coalesce:
    """Keep the last value of each key, for members who want to know how things stand.

    When the outbox is full, each key's newest message takes the place of its oldest, and the
    others of that key are dropped; so a key that changes often cannot starve the others.
    Messages of different keys may change their order; messages without a key stay. When that
    does not make room, the oldest messages are dropped. Choose a capacity above the number of
    keys.

    Attributes:
        key: returns a message's key, or None for a message that has none. It is called once for
            each message, whatever the number of members, and only if one of them is slow.
    """

    key: Callable[[Data], Hashable | None]

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            TypeError: if the key is not a function.
        """
        if not callable(self.key):
            raise TypeError(f"Expected a function that gives a message's key, got {self.key!r}")

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Keep the newest message of each key."""
        if message.size > outbox.max_bytes:
            return outbox.refuse()
        newest: dict[Hashable, Prepared] = {}
        for waiting in (*outbox, message):
            key = waiting.key(self.key)
            newest[waiting if key is None else (key,)] = waiting  # a dict keeps the first place
        return outbox.rewrite(newest.values(), message)


@dataclass(frozen=True, slots=True)
class Block:
    """Make ``broadcast`` wait for room, then disconnect: until then nothing is lost.

    One slow member holds up its publishers, and with them everybody who waits for them: this is
    for a few members that must get everything. A ``broadcast_nowait`` cannot wait: it
    disconnects a member that has no room.

    Attributes:
        timeout: seconds to wait for room; None for no limit but the member's ``stall_timeout``.
    """

    timeout: float | None = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: if the timeout is below 0.
        """
        if self.timeout is not None and self.timeout < 0:
            raise ValueError(f"Expected a timeout of at least 0, got {self.timeout}")

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Ask for time, unless time would not help."""
        fits_ever = message.size <= outbox.max_bytes
        return Verdict(
            queued=False,
            disconnect=_SLOW_CONSUMER,
            patience=self.timeout if fits_ever else 0,
        )
