"""Broadcast: one message on its way to the members of a room, and what became of it.

Who the members are, and in which order they get it, is Room's business; what it does to an
outbox is the outbox's. No task lives here. Made by the hub, for a room.
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

__all__ = ("Broadcast", "Delivery", "Tally")


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


class Broadcast(Tally):
    """One message on its way through a room, and what became of it so far.

    Attributes:
        message: the message.
        exclude: those to whom it does not go.
    """

    __slots__ = ("_flushed", "_held", "_over", "_room_tally", "exclude", "message")

    def __init__(self, message: Prepared, exclude: frozenset[Member], *, awaited: bool) -> None:
        """Make a broadcast.

        Args:
            message: the message.
            exclude: those to whom it does not go.
            awaited: whether ``wait`` will be called.
        """
        super().__init__()
        self.message = message
        self.exclude = exclude
        self._room_tally: Tally | None = None
        self._flushed = anyio.Event() if awaited else None
        self._held: list[_Held] = []
        self._over = False  # whether the one that waited does so no longer

    def offer_to(self, member: Member) -> bool:
        """Take it to a member's outbox; True when that may have something to send now."""
        verdict = member.offer(self.message)
        if verdict is QUEUED:
            self.members += 1
            self.sent += 1
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
        self.count(verdict)
        return verdict.disconnect is None  # a gap notice may be due, if nothing else

    def finish(self, room_tally: Tally | None = None) -> None:
        """Say that the flush is over.

        Args:
            room_tally: where its room counts what became of it, and what still becomes.
        """
        if room_tally is not None:
            room_tally.add(self)
            self._room_tally = room_tally
        if self._flushed is not None:
            self._flushed.set()

    async def wait(self) -> Delivery:
        """Wait until it is in the outbox of every member that is still there."""
        assert self._flushed is not None
        late = Tally()
        try:
            await self._flushed.wait()
            for held in self._held:
                await held.wait()
        finally:
            self._over = True
            for held in self._held:
                late.count(held.settle())
            self.add(late)
            if self._room_tally is not None:
                self._room_tally.add(late)
        return Delivery(self.members, self.sent, self.dropped, self.disconnected)
