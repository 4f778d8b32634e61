"""Broadcast: one message on its way to the members of a room, and what became of it.

Who the members are, and in which order they get messages, is Room's business; how a message gets
into an outbox is the outbox's. No task lives here. Made by the hub, for a room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from hubbub.outbox import QUEUED, Verdict

if TYPE_CHECKING:
    from hubbub.member import Member
    from hubbub.prepared import Prepared

__all__ = ("AwaitedBroadcast", "Broadcast", "Delivery", "Tally")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one broadcast."""

    members: int = 0
    """How many members it was for: those of the room, without the excluded."""
    sent: int = 0
    """How many of them have it in their outbox."""
    dropped: int = 0
    """How many messages, older ones included, were dropped because of it."""
    disconnected: int = 0
    """How many members were disconnected because of it."""


class Tally:
    """Counts what became of messages."""

    __slots__ = ("disconnected", "dropped", "members", "sent")

    def __init__(self) -> None:
        self.members = self.sent = self.dropped = self.disconnected = 0

    def count(self, verdict: Verdict) -> None:
        """Count what became of one message, for one member."""
        self.members += 1
        self.sent += verdict.queued
        self.dropped += verdict.dropped
        self.disconnected += verdict.disconnect is not None

    def add(self, other: Tally) -> None:
        """Count all that another has counted."""
        self.members += other.members
        self.sent += other.sent
        self.dropped += other.dropped
        self.disconnected += other.disconnected


class _Held:
    """A member that has no room for a broadcast whose publisher waits for room."""

    __slots__ = ("_disconnect", "_expelled", "_ticket", "deadline", "member")

    def __init__(self, member: Member, message: Prepared, verdict: Verdict) -> None:
        assert verdict.disconnect is not None
        patience = verdict.patience
        self.deadline = math.inf if patience is None else anyio.current_time() + patience
        self._disconnect = verdict.disconnect
        self._expelled = False
        self.member = member
        self._ticket = member.stand_in_line(message)

    async def wait(self) -> None:
        """Wait for room; when the policy's patience ends, disconnect the member."""
        with anyio.CancelScope(deadline=self.deadline):
            await self._ticket.settled.wait()
        if not self._ticket.settled.is_set():
            self._expelled = True
            self.member.expel(*self._disconnect)

    def settle(self) -> Verdict:
        """Stop waiting, and tell what became of the message."""
        if self._ticket.admitted:
            return QUEUED
        if self._expelled:
            return Verdict(queued=False, disconnect=self._disconnect)
        return Verdict(queued=False, dropped=self.member.withdraw(self._ticket))


class Broadcast:
    """One message on its way through a room.

    Attributes:
        message: the message.
        exclude: the members that do not get it.
        tally: counts what becomes of it: the room's own, because nobody asks about this one.
    """

    __slots__ = ("exclude", "message", "tally")

    tally: Tally

    def __init__(self, message: Prepared, exclude: frozenset[Member]) -> None:
        self.message = message
        self.exclude = exclude

    def start(self, room_tally: Tally) -> None:
        """Take the tally in which its room counts what becomes of messages."""
        self.tally = room_tally

    def offer_to(self, member: Member) -> bool:
        """Offer it to a member's outbox; True when that may have something to send now."""
        verdict = member.offer(self.message)
        if verdict.disconnect is not None:
            return self._meet_refusal(member, verdict)
        self.tally.count(verdict)
        return True  # a gap notice may be due, if nothing else

    def _meet_refusal(self, member: Member, verdict: Verdict) -> bool:
        """Disconnect a member whose policy demands it, or asks to wait, which nobody does here.

        Returns:
            As ``offer_to``.
        """
        assert verdict.disconnect is not None
        member.expel(*verdict.disconnect)
        self.tally.count(verdict)
        return False

    def finish(self) -> None:
        """Note that the flush is over, or that the room does not exist."""


class AwaitedBroadcast(Broadcast):
    """A broadcast whose publisher waits: for its flush, and for outboxes to have room."""

    __slots__ = ("_flushed", "_held", "_over", "_room_tally")

    def __init__(self, message: Prepared, exclude: frozenset[Member]) -> None:
        super().__init__(message, exclude)
        self.tally = Tally()
        self._room_tally = Tally()  # nobody's, if the room does not exist
        self._flushed = anyio.Event()
        self._held: list[_Held] = []
        self._over = False  # whether the publisher no longer waits

    def start(self, room_tally: Tally) -> None:
        """Take the tally to which its own is added when the flush is over."""
        self._room_tally = room_tally

    def _meet_refusal(self, member: Member, verdict: Verdict) -> bool:
        if verdict.patience == 0:
            return super()._meet_refusal(member, verdict)
        held = _Held(member, self.message, verdict)
        if self._over:
            self.tally.count(held.settle())  # nobody waits, which is not the member's fault
            return True
        self._held.append(held)
        return False

    def finish(self) -> None:
        """Note that the flush is over, or that the room does not exist."""
        self._room_tally.add(self.tally)
        self._flushed.set()

    async def wait(self) -> Delivery:
        """Wait until it is in the outbox of every member that is still there."""
        late = Tally()
        try:
            await self._flushed.wait()
            # By deadline: a wait that may have no end must not make another one late.
            for held in sorted(self._held, key=lambda held: held.deadline):
                await held.wait()
        finally:
            self._over = True
            for held in self._held:
                late.count(held.settle())
            self.tally.add(late)
            if self._flushed.is_set():
                self._room_tally.add(late)
            for held in self._held:
                held.member.report_dropped()
        tally = self.tally
        return Delivery(tally.members, tally.sent, tally.dropped, tally.disconnected)
