"""Outbox: one member's bounded send channel, and what happens when it is full.

Messages wait here between whoever sends to a member and whoever hands them to its socket.
The bound is in messages and in bytes; the backpressure policy speaks when a message that
may not wait does not fit. No task, no socket and no room lives here. Used by Member.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import anyio
from anyio.abc import ObjectSendStream
from anyio.lowlevel import checkpoint

from hubbub.close_codes import check_close
from hubbub.exceptions import MessageTooBig
from hubbub.prepared import Prepared

__all__ = (
    "QUEUED",
    "Disconnect",
    "DropOldest",
    "Outbox",
    "OutboxStatistics",
    "Policy",
    "Verdict",
)


class Verdict(NamedTuple):
    """What became of a message that was offered to an outbox."""

    queued: bool
    """Whether it waits in the outbox now."""
    dropped: int = 0
    """How many messages were given up for it, itself included when it is not queued."""
    disconnect: Disconnect | None = None
    """Set when the member is to be disconnected instead."""


QUEUED = Verdict(queued=True)


class Policy(Protocol):
    """Decides what happens to a message that does not fit into an outbox."""

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Make room for a message in an outbox, or refuse the one or the other.

        It is synchronous: nothing else happens to the outbox meanwhile.
        """
        ...


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Disconnect a member that cannot keep up: it gets everything or is told that it did not.

    Attributes:
        code: the close code; 1013 (try again later) by default.
        reason: the close reason, at most 123 bytes of UTF-8.
    """

    code: int = 1013
    reason: str = "slow consumer"

    def __post_init__(self) -> None:
        check_close(self.code, self.reason)

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Refuse the message and the member."""
        del outbox, message
        return Verdict(queued=False, disconnect=self)


@dataclass(frozen=True, slots=True)
class DropOldest:
    """Drop the oldest messages that wait, for members to whom only the news matters."""

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Drop from the front until the message fits; itself when it never can."""
        if message.size > outbox.max_bytes:
            outbox.dropped += 1
            return Verdict(queued=False, dropped=1)
        dropped = 0
        while not outbox.fits(message):
            outbox.drop_oldest()
            dropped += 1
        outbox.send_nowait(message)
        return Verdict(queued=True, dropped=dropped)


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """One moment of an outbox."""

    waiting: int
    waiting_bytes: int
    dropped: int
    capacity: int
    max_bytes: int


class Outbox(ObjectSendStream[Prepared]):
    """A bounded queue of messages to one member.

    The sending side is an anyio send stream: ``send`` waits for room, ``send_nowait`` does
    not. ``offer`` neither waits nor raises: it asks the policy. The other side is ``take``.

    Attributes:
        capacity: how many messages may wait.
        max_bytes: how many bytes of payload may wait.
        dropped: how many messages were dropped so far.
    """

    def __init__(self, policy: Policy, capacity: int, max_bytes: int) -> None:
        """Make an empty outbox.

        Raises:
            ValueError: if a bound is not at least 1.
        """
        if capacity < 1:
            raise ValueError(f"Expected a capacity of at least 1 message, got {capacity}")
        if max_bytes < 1:
            raise ValueError(f"Expected max_bytes of at least 1, got {max_bytes}")
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.dropped = 0
        self._policy = policy
        self._queue: deque[Prepared] = deque()
        self._bytes = 0
        self._closed = False
        self._room: anyio.Event | None = None  # set once there is more room or no outbox

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """Whether the outbox takes nothing more."""
        return self._closed

    def fits(self, message: Prepared) -> bool:
        """Tell whether the message could be queued now."""
        return len(self._queue) < self.capacity and self._bytes + message.size <= self.max_bytes

    def offer(self, message: Prepared) -> Verdict:
        """Queue the message, or let the policy decide what becomes of it.

        The outbox must be open.
        """
        size = self._bytes + message.size
        if len(self._queue) >= self.capacity or size > self.max_bytes:
            return self._policy.overflow(self, message)
        self._queue.append(message)
        self._bytes = size
        return QUEUED

    def send_nowait(self, message: Prepared) -> None:
        """Queue the message.

        Raises:
            anyio.ClosedResourceError: if the outbox is closed.
            anyio.WouldBlock: if it does not fit.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if not self.fits(message):
            raise anyio.WouldBlock
        self._queue.append(message)
        self._bytes += message.size

    async def send(self, item: Prepared) -> None:
        """Queue the message as soon as it fits. A cancelled send queues nothing.

        Raises:
            anyio.ClosedResourceError: if the outbox is closed, also while this waits.
            MessageTooBig: if it could not fit into an empty outbox.
        """
        await checkpoint()
        if item.size > self.max_bytes:
            raise MessageTooBig(
                f"Expected a message of at most {self.max_bytes} bytes, got {item.size}"
            )
        while True:
            try:
                return self.send_nowait(item)
            except anyio.WouldBlock:
                if self._room is None:
                    self._room = anyio.Event()
                await self._room.wait()

    def take(self) -> Prepared | None:
        """Remove the oldest message; None when there is none."""
        if not self._queue:
            return None
        message = self._queue.popleft()
        self._bytes -= message.size
        if self._room is not None:
            self._tell_senders()
        return message

    def drop_oldest(self) -> None:
        """Remove the oldest message for good."""
        self._bytes -= self._queue.popleft().size
        self.dropped += 1

    def close(self) -> None:
        """Take nothing more and forget what waits; who waits for room is told."""
        self._closed = True
        self._queue.clear()
        self._bytes = 0
        self._tell_senders()

    async def aclose(self) -> None:
        """Close as ``close`` does, as a stream is closed."""
        self.close()
        await checkpoint()

    def statistics(self) -> OutboxStatistics:
        """Look at the outbox as it is now."""
        return OutboxStatistics(
            len(self._queue), self._bytes, self.dropped, self.capacity, self.max_bytes
        )

    def _tell_senders(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
