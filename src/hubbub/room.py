"""Room and Broadcast: the way of a message to the outboxes of all members.

A broadcast is appended to its room; a flush offers what has gathered to every member. No
name -> room mapping and no task lives here, and no policy. Used by the hub, which keeps the
rooms and runs the flushes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from hubbub.outbox import QUEUED, Verdict
from hubbub.prepared import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubbub.member import Member
    from hubbub.prepared import Prepared

__all__ = ("Broadcast", "Delivery", "Room", "RoomStatistics")

_MEMBERS_PER_CHECKPOINT = 64
_MEMBERS_PER_OVERFLOW = 4  # as many could be served while a policy speaks and one has to go
_MESSAGES_PER_CHECKPOINT = 512  # to all of these members together


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one broadcast."""

    members: int = 0
    """To how many members it went: those of the room, less the excluded."""
    sent: int = 0
    """How many of them have it in their outbox."""
    dropped: int = 0
    """How many messages, older ones included, were dropped because of it."""
    disconnected: int = 0
    """How many members were disconnected because of it."""


@dataclass(frozen=True, slots=True)
class RoomStatistics:
    """One moment of a room; the counts are of all its time."""

    members: int
    broadcasts: int
    sent: int
    """Messages that went into members' outboxes."""
    dropped: int
    """Messages that broadcasts to this room made members' outboxes drop."""
    disconnected: int
    """Members that were disconnected because of a broadcast."""


class _Tally:
    """Counts what became of messages."""

    __slots__ = ("disconnected", "dropped", "members", "sent")

    def __init__(self) -> None:
        self.members = self.sent = self.dropped = self.disconnected = 0

    def count(self, verdict: Verdict) -> None:
        self.members += 1
        self.sent += verdict.queued
        self.dropped += verdict.dropped
        self.disconnected += verdict.disconnect is not None

    def add(self, other: _Tally) -> None:
        self.members += other.members
        self.sent += other.sent
        self.dropped += other.dropped
        self.disconnected += other.disconnected


class _Held:
    """A member that has no room for a broadcast, while the publisher waits for it."""

    __slots__ = ("_deadline", "_disconnect", "_expelled", "_member", "_ticket")

    def __init__(self, member: Member, message: Prepared, verdict: Verdict) -> None:
        assert verdict.disconnect is not None
        patience = verdict.patience
        self._deadline = math.inf if patience is None else anyio.current_time() + patience
        self._disconnect = verdict.disconnect
        self._expelled = False
        self._member = member
        self._ticket = member.stand_in_line(message)

    async def wait(self) -> None:
        """Wait for room, and end the member when patience has come to its end."""
        with anyio.CancelScope(deadline=self._deadline):
            await self._ticket.settled.wait()
        if not self._ticket.settled.is_set():
            self._expelled = True
            self._member.expel(*self._disconnect)

    def settle(self) -> Verdict:
        """Wait no longer; what became of the message."""
        if self._ticket.admitted:
            return QUEUED
        if self._expelled:
            return Verdict(queued=False, disconnect=self._disconnect)
        return Verdict(queued=False, dropped=self._member.withdraw(self._ticket))


class Broadcast:
    """One message on its way through a room.

    Attributes:
        message: the message.
        exclude: those to whom it does not go.
        tally: what became of it so far.
        room_tally: where its room counts what becomes of it after the flush; until then
            nowhere, because the room will take all of ``tally``.
    """

    __slots__ = ("_flushed", "_held", "_over", "exclude", "message", "room_tally", "tally")

    def __init__(self, message: Prepared, exclude: frozenset[Member], *, awaited: bool) -> None:
        """Make a broadcast.

        Args:
            message: the message.
            exclude: those to whom it does not go.
            awaited: whether ``wait`` will be called.
        """
        self.message = message
        self.exclude = exclude
        self.tally = _Tally()
        self.room_tally = _Tally()
        self._flushed = anyio.Event() if awaited else None
        self._held: list[_Held] = []
        self._over = False  # whether the one that waited does so no longer

    def offer_to(self, member: Member) -> bool:
        """Take it to a member's outbox; True when that may have something to send now."""
        verdict = member.offer(self.message)
        if verdict is QUEUED:
            self.tally.members += 1
            self.tally.sent += 1
            return True
        if verdict.disconnect is not None:
            if self._flushed is None or verdict.patience == 0:
                member.expel(*verdict.disconnect)
            else:
                held = _Held(member, self.message, verdict)
                if not self._over:
                    self._held.append(held)
                    return False
                verdict = held.settle()  # nobody waits, which is not the member's fault
        self.tally.count(verdict)
        return verdict.disconnect is None  # a gap notice may be due, if nothing else

    def finish(self) -> None:
        """Say that the flush is over."""
        if self._flushed is not None:
            self._flushed.set()

    async def wait(self) -> Delivery:
        """Wait until it is in the outbox of every member that is still there."""
        assert self._flushed is not None
        late = _Tally()
        try:
            await self._flushed.wait()
            for held in self._held:
                await held.wait()
        finally:
            self._over = True
            for held in self._held:
                late.count(held.settle())
            self.tally.add(late)
            self.room_tally.add(late)
        return Delivery(
            self.tally.members, self.tally.sent, self.tally.dropped, self.tally.disconnected
        )


class Room:
    """The members that share broadcasts under one name.

    Attributes:
        name: the name.
    """

    __slots__ = ("_flushing", "_gathered", "_members", "_published", "_tally", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._published = 0
        self._tally = _Tally()
        # Each member with the number of the last broadcast that it needs no more: it has come
        # later, or it has had it. So it gets each once, whoever takes it there.
        self._members: dict[Member, int] = {}
        self._gathered: list[tuple[int, Broadcast]] = []
        self._flushing: list[tuple[int, Broadcast]] = []  # what a flush has not taken to all yet

    def __repr__(self) -> str:
        return f"<Room {self.name!r} of {len(self._members)}>"

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> tuple[Member, ...]:
        """The members at this moment, in the order in which they entered."""
        return tuple(self._members)

    def statistics(self) -> RoomStatistics:
        """Look at the room as it is now."""
        return RoomStatistics(
            members=len(self._members),
            broadcasts=self._published,
            sent=self._tally.sent,
            dropped=self._tally.dropped,
            disconnected=self._tally.disconnected,
        )

    # -- For the hub --------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """Let a member in."""
        self._members[member] = self._published

    def remove(self, member: Member) -> None:
        """Let a member go."""
        del self._members[member]

    def publish(self, broadcast: Broadcast) -> bool:
        """Append a broadcast; True when it is the first since the last flush."""
        self._published += 1
        self._gathered.append((self._published, broadcast))
        return len(self._gathered) == 1

    async def flush(self, schedule: Callable[[Member], None], wake: Callable[[], None]) -> None:
        """Take what has gathered to every member's outbox.

        One flush at a time, by one task: so all members get a room's messages in the same
        order, whoever published them.

        Args:
            schedule: called with each member that has something to send now.
            wake: called now and then, when members have been scheduled.
        """
        gathered, self._gathered = self._gathered, []
        self._flushing = gathered
        everything = [broadcast for _, broadcast in gathered]
        whole = _batch(everything)
        excluded = frozenset().union(*(broadcast.exclude for broadcast in everything))
        (first, _), (last, _) = gathered[0], gathered[-1]
        at_once = max(1, min(_MEMBERS_PER_CHECKPOINT, _MESSAGES_PER_CHECKPOINT // len(gathered)))
        sent = 0  # how many have the whole batch in their outbox, or beyond
        served = 0  # since the last checkpoint
        try:
            for member in self.members:
                since = self._members.get(member, last)  # it may have left meanwhile
                if since < last:
                    self._members[member] = last
                    if since >= first or member in excluded:
                        if self._flush_to(member, since, gathered):
                            schedule(member)
                    elif member.try_send(whole):
                        sent += 1
                    elif member.try_queue(whole):
                        sent += 1
                        schedule(member)
                    else:
                        served += _MEMBERS_PER_OVERFLOW - 1
                        if self._offer(member, everything):
                            schedule(member)
                served += 1
                if served >= at_once:
                    served = 0
                    wake()
                    await checkpoint()
        finally:
            self._flushing = []
            for broadcast in everything:
                broadcast.tally.members += sent
                broadcast.tally.sent += sent
            self.abandon(gathered)
        wake()

    def flush_to(self, member: Member) -> bool:
        """Take to one member now what a flush would take to it later.

        Returns:
            Whether it may have something to send now.
        """
        since = self._members.get(member)
        if since is None:
            return False
        self._members[member] = self._published
        return self._flush_to(member, since, [*self._flushing, *self._gathered])

    def _flush_to(self, member: Member, since: int, gathered: list[tuple[int, Broadcast]]) -> bool:
        """Take to a member what is for it; True when it has something to send now."""
        its = [
            broadcast
            for number, broadcast in gathered
            if number > since and member not in broadcast.exclude
        ]
        if its and member.try_send(_batch(its)):
            for broadcast in its:
                broadcast.tally.count(QUEUED)
            return False
        return self._offer(member, its)

    def _offer(self, member: Member, its: list[Broadcast]) -> bool:
        """Offer a member some broadcasts; True when it has something to send now."""
        queued = False
        for broadcast in its:
            if member not in self._members:  # the one before was too much for it
                return False
            queued = broadcast.offer_to(member) or queued
        return queued

    def abandon(self, gathered: list[tuple[int, Broadcast]] | None = None) -> None:
        """Finish broadcasts, whether or not they have reached everybody."""
        for _, broadcast in self._gathered if gathered is None else gathered:
            self._tally.add(broadcast.tally)
            broadcast.room_tally = self._tally
            broadcast.finish()


def _batch(broadcasts: list[Broadcast]) -> Batch:
    return Batch([broadcast.message for broadcast in broadcasts])
