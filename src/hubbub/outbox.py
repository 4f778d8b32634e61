"""Outbox: one member's bounded send channel.

Messages to a member wait here until they are handed to its socket. The bound is in messages and
in bytes; a policy decides about a message that does not fit and whose sender does not wait. No
task, no socket and no room lives here. Used by Member.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio
from anyio.abc import ObjectSendStream
from anyio.lowlevel import checkpoint

from hubbub.exceptions import MessageTooBig
from hubbub.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hubbub.prepared import Batch

__all__ = ("QUEUED", "Outbox", "OutboxStatistics", "Policy", "Ticket", "Verdict")


class Verdict(NamedTuple):
    """What became of a message that was offered to an outbox."""

    queued: bool
    """Whether it waits in the outbox now."""
    dropped: int = 0
    """How many messages were dropped for it, itself included when it is not queued."""
    disconnect: tuple[int, str] | None = None
    """Code and reason to disconnect the member with instead."""
    patience: float | None = 0
    """Seconds that a publisher may wait for room before that; None for no limit."""


QUEUED = Verdict(queued=True)


class Policy(Protocol):
    """Decides what happens to a message that does not fit into an outbox."""

    def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
        """Make room for a message in an outbox, or refuse the message, or the member.

        It is synchronous, so that nothing else happens to the outbox meanwhile.
        """
        ...


class Ticket:
    """A message's place in the line before a full outbox, while its publisher waits.

    Attributes:
        message: the message.
        settled: set when it is in the outbox, or never will be.
        admitted: whether it is, or was, in the outbox.
    """

    __slots__ = ("admitted", "message", "settled")

    def __init__(self, message: Prepared) -> None:
        self.message = message
        self.settled = anyio.Event()
        self.admitted = False


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """A snapshot of an outbox.

    Attributes:
        waiting: how many messages wait.
        waiting_bytes: how many bytes of payload wait.
        taken: how many messages were taken to be sent so far.
        dropped: how many messages were dropped so far.
        capacity: how many messages may wait.
        max_bytes: how many bytes of payload may wait.
    """

    waiting: int
    waiting_bytes: int
    taken: int
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
        taken: how many messages were taken so far.
        dropped: how many messages were dropped so far.
    """

    def __init__(self, policy: Policy, capacity: int, max_bytes: int) -> None:
        """Make an empty outbox.

        Raises:
            TypeError: if ``policy`` is not a policy.
            ValueError: if a bound is not at least 1.
        """
        if isinstance(policy, type) or not hasattr(policy, "overflow"):
            raise TypeError(f"Expected a policy, DropOldest() for example; got {policy!r}")
        if capacity < 1:
            raise ValueError(f"Expected a capacity of at least 1 message, got {capacity}")
        if max_bytes < 1:
            raise ValueError(f"Expected max_bytes of at least 1, got {max_bytes}")
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.taken = 0
        self.dropped = 0
        self._missed = 0  # dropped since take_missed() last told
        self._gap_at = 0  # the value of ``taken`` at which the first of these is missing
        self._policy = policy
        self._queue: deque[Prepared] = deque()
        self._bytes = 0
        self._line: deque[Ticket] = deque()
        self._closed = False
        self._room: anyio.Event | None = None  # set when there is more room, or it is closed

    def __iter__(self) -> Iterator[Prepared]:
        return iter(self._queue)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """Whether the outbox accepts no more messages."""
        return self._closed

    def fits(self, message: Prepared) -> bool:
        """Tell whether the message could be queued now."""
        return not self._line and self._has_room(message)

    def _has_room(self, message: Prepared) -> bool:
        return len(self._queue) < self.capacity and self._bytes + message.size <= self.max_bytes

    def try_queue(self, batch: Batch) -> bool:
        """Queue messages if there is room for all of them. The outbox must be open."""
        queue, size = self._queue, self._bytes + batch.size
        if len(queue) + batch.count > self.capacity or size > self.max_bytes or self._line:
            return False
        queue.extend(batch.messages)
        self._bytes = size
        return True

    def offer(self, message: Prepared) -> Verdict:
        """Queue the message, or let the policy decide what becomes of it.

        The outbox must be open.
        """
        size = self._bytes + message.size
        if len(self._queue) >= self.capacity or size > self.max_bytes or self._line:
            return self._policy.overflow(self, message)
        self._queue.append(message)
        self._bytes = size
        return QUEUED

    def stand_in_line(self, message: Prepared) -> Ticket:
        """Put a message in line for room, ahead of all that is offered later.

        The caller waits for the ticket to be settled, or withdraws it: so the line is never
        longer than the number of publishers that wait.
        """
        ticket = Ticket(message)
        self._line.append(ticket)
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Give up a place in the line; does nothing for a ticket that is settled."""
        if not ticket.settled.is_set():
            self._line.remove(ticket)
            ticket.settled.set()
            self.refuse()
            self._admit()  # the next in line may be smaller
            self._tell_senders()

    def send_nowait(self, message: Prepared) -> None:
        """Queue the message.

        Raises:
            anyio.ClosedResourceError: if the outbox is closed.
            anyio.WouldBlock: if it does not fit.
            MessageTooBig: if it could not fit into an empty outbox.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if message.size > self.max_bytes:
            raise MessageTooBig(
                f"Expected a message of at most {self.max_bytes} bytes, got {message.size}"
            )
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
        self.taken += 1
        if self._line:
            self._admit()
        if self._room is not None:  # else a call for nothing, for each message
            self._tell_senders()
        return message

    def take_missed(self) -> int:
        """Tell, once, how many messages are missing before the next one to be taken."""
        if self.taken < self._gap_at:
            return 0
        missed, self._missed = self._missed, 0
        return missed

    def close(self) -> None:
        """Accept no more messages, discard those that wait, and wake whoever waits for room."""
        self._closed = True
        self._queue.clear()
        self._bytes = 0
        for ticket in self._line:
            ticket.settled.set()
        self._line.clear()
        self._tell_senders()

    # -- For policies -------------------------------------------------------------------

    def refuse(self) -> Verdict:
        """Drop the message that was offered."""
        self._count_dropped(1, behind=len(self._queue))
        return Verdict(queued=False, dropped=1)

    def drop_oldest(self) -> None:
        """Drop the oldest message that waits."""
        self._bytes -= self._queue.popleft().size
        self._count_dropped(1, behind=0)
        self._tell_senders()

    def rewrite(self, messages: Iterable[Prepared], offered: Prepared) -> Verdict:
        """Replace the messages that wait, and drop the oldest of the new ones if they do not fit.

        Args:
            messages: some of those that wait and the one that was offered, in any order.
            offered: the message that was offered.
        """
        before = len(self._queue) + 1
        self._queue = deque(messages)
        self._bytes = sum(message.size for message in self._queue)
        dropped = before - len(self._queue)
        self._count_dropped(dropped, behind=0)
        while len(self._queue) > self.capacity or self._bytes > self.max_bytes:
            self.drop_oldest()
            dropped += 1
        self._tell_senders()
        return Verdict(queued=any(kept is offered for kept in self._queue), dropped=dropped)

    def _count_dropped(self, count: int, *, behind: int) -> None:
        at = self.taken + behind
        self._gap_at = min(self._gap_at, at) if self._missed else at
        self.dropped += count
        self._missed += count

    def _admit(self) -> None:
        while self._line and self._has_room(self._line[0].message):
            ticket = self._line.popleft()
            self._queue.append(ticket.message)
            self._bytes += ticket.message.size
            ticket.admitted = True
            ticket.settled.set()

    async def aclose(self) -> None:
        """Do what ``close`` does, as every anyio stream can."""
        self.close()
        await checkpoint()

    def statistics(self) -> OutboxStatistics:
        """Look at the outbox as it is now."""
        return OutboxStatistics(
            waiting=len(self._queue),
            waiting_bytes=self._bytes,
            taken=self.taken,
            dropped=self.dropped,
            capacity=self.capacity,
            max_bytes=self.max_bytes,
        )

    def _tell_senders(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
