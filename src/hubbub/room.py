"""Room: the members that share broadcasts, and the way of these to their outboxes.

A broadcast is appended to its room; a flush passes all members, and takes to each what it lacks
by then. No name -> room mapping and no task lives here, and no policy. Used by the hub, which
keeps the rooms and runs the flushes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Final

from anyio.lowlevel import checkpoint

from hubbub.broadcast import Tally
from hubbub.outbox import QUEUED
from hubbub.prepared import Burst

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hubbub.broadcast import Broadcast
    from hubbub.member import Member
    from hubbub.prepared import Batch

__all__ = ("Room", "RoomStatistics")

_MESSAGES_PER_CHECKPOINT = 512  # to several members together; all else is counted in these
_MESSAGES_PER_MEMBER = 8  # as many cost what the system call does
_OVERFLOWS_PER_CHECKPOINT = 16  # in each of which a policy speaks, and one has to go, perhaps
_GONE: Final = sys.maxsize  # after this broadcast none is lacking


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


class _Place:
    """A member's place in a room."""

    __slots__ = ("member", "since")

    def __init__(self, member: Member, since: int) -> None:
        self.member = member
        # The number of the last broadcast that it needs no more: it has come later, or it has
        # had it. So it gets each once, whoever takes it there.
        self.since = since


class _Stretch:
    """Broadcasts that follow one another, as they go to all who lack just these."""

    __slots__ = ("batch", "broadcasts", "excluded", "last", "reached", "since")

    def __init__(self, broadcasts: list[Broadcast], since: int) -> None:
        self.broadcasts = broadcasts
        self.batch = _batch(broadcasts)
        self.excluded = broadcasts[0].exclude
        if len(broadcasts) > 1:
            self.excluded = self.excluded.union(*[each.exclude for each in broadcasts])
        self.since = since
        self.last = since + len(broadcasts)
        self.reached = 0  # how many have all of it in their outbox, or beyond

    def settle(self) -> None:
        """Count whom it has reached."""
        for broadcast in self.broadcasts:
            tally = broadcast.tally
            tally.members += self.reached
            tally.sent += self.reached


class Room:
    """The members that share broadcasts under one name.

    Attributes:
        name: the name.
        published: how many broadcasts there have been.
    """

    __slots__ = ("_finishing", "_places", "_tally", "_unfinished", "name", "published")

    def __init__(self, name: str) -> None:
        self.name = name
        self.published = 0
        self._tally = Tally()
        self._places: dict[Member, _Place] = {}
        self._unfinished: list[Broadcast] = []  # the last ones, which some members may lack
        self._finishing = 0  # as many of them will be finished by the flush that is under way

    def __repr__(self) -> str:
        return f"<Room {self.name!r} of {len(self._places)}>"

    def __len__(self) -> int:
        return len(self._places)

    @property
    def members(self) -> tuple[Member, ...]:
        """The members at this moment, in the order in which they entered."""
        return tuple(self._places)

    def statistics(self) -> RoomStatistics:
        """Look at the room as it is now."""
        return RoomStatistics(
            members=len(self._places),
            broadcasts=self.published,
            sent=self._tally.sent,
            dropped=self._tally.dropped,
            disconnected=self._tally.disconnected,
        )

    # -- For the hub --------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """Let a member in."""
        self._places[member] = _Place(member, self.published)

    def remove(self, member: Member) -> None:
        """Let a member go."""
        self._places.pop(member).since = _GONE

    @property
    def finished(self) -> int:
        """How many broadcasts have been taken to everybody."""
        return self.published - len(self._unfinished)

    def publish(self, broadcast: Broadcast) -> bool:
        """Append a broadcast; True when it is the first that calls for one more flush."""
        broadcast.start(self._tally)
        self.published += 1
        self._unfinished.append(broadcast)
        return len(self._unfinished) == self._finishing + 1

    async def flush(self, schedule: Callable[[Member], None], wake: Callable[[], None]) -> None:
        """Pass all members once, and take to each one's outbox what it lacks by then.

        What is published meanwhile goes along from here on, and to those before at the next
        pass: so a busy room sends each member much at a time, and nothing has to wait for a
        pass to end. One flush at a time, by one task: so all members get a room's messages in
        the same order, whoever published them.

        Args:
            schedule: called with each member that has something to send now.
            wake: called now and then, when members have been scheduled.
        """
        if len(self._unfinished) > 1:
            await checkpoint()  # of a burst, the next turn of the loop brings more (measured)
        self._finishing = len(self._unfinished)
        places = iter(tuple(self._places.values()))
        stretch = _Stretch(self._unfinished[:], self.finished)
        try:
            stretch = self._pass(places, stretch, schedule)
            while length_hint(places):
                wake()
                await checkpoint()
                stretch = self._pass(places, stretch, schedule)
        finally:
            stretch.settle()
        self._finish(self._finishing)
        wake()

    def _pass(
        self, places: Iterator[_Place], stretch: _Stretch, schedule: Callable[[Member], None]
    ) -> _Stretch:
        """Take to the next members what they lack: to as many as may be without a checkpoint.

        Args:
            places: theirs, and those of the ones after them.
            stretch: what the one before them has got.
            schedule: called with each that has something to send now.

        Returns:
            What the last one has got.
        """
        cost = max(len(self._unfinished), _MESSAGES_PER_MEMBER)
        batch, excluded = stretch.batch, stretch.excluded
        since = stretch.since if stretch.last == self.published else None
        last = stretch.last
        reached = overflows = 0
        for place in islice(places, _MESSAGES_PER_CHECKPOINT // cost or 1):
            if place.since != since:
                if place.since >= self.published:
                    continue
                stretch.reached += reached
                reached = 0
                stretch.settle()
                since = place.since
                stretch = _Stretch(self._lacking(since), since)
                batch, excluded, last = stretch.batch, stretch.excluded, stretch.last
            place.since = last
            member = place.member
            if excluded and member in excluded:
                if self._take_to(member, stretch.broadcasts):
                    schedule(member)
            elif member.try_send(batch):
                reached += 1
            elif member.try_queue(batch):
                reached += 1
                schedule(member)
            else:
                if self._offer(member, stretch.broadcasts):
                    schedule(member)
                overflows += 1
                if overflows == _OVERFLOWS_PER_CHECKPOINT:
                    break
        stretch.reached += reached
        return stretch

    def flush_to(self, member: Member) -> bool:
        """Take to one member now what a flush would take to it later.

        Returns:
            Whether it may have something to send now.
        """
        place = self._places.get(member)
        if place is None or place.since >= self.published:
            return False
        lacking = self._lacking(place.since)
        place.since = self.published
        return self._take_to(member, lacking)

    def _lacking(self, since: int) -> list[Broadcast]:
        return self._unfinished[since - self.published :]

    def _take_to(self, member: Member, broadcasts: list[Broadcast]) -> bool:
        """Take to a member what is for it; True when it has something to send now."""
        its = [broadcast for broadcast in broadcasts if member not in broadcast.exclude]
        if its and member.try_send(_batch(its)):
            for broadcast in its:
                broadcast.tally.count(QUEUED)
            return False
        return self._offer(member, its)

    def _offer(self, member: Member, its: list[Broadcast]) -> bool:
        """Offer a member some broadcasts; True when it has something to send now."""
        queued = False
        for broadcast in its:
            if member not in self._places:  # the one before was too much for it
                return False
            queued = broadcast.offer_to(member) or queued
        return queued

    def abandon(self) -> None:
        """Finish broadcasts, although they have not reached everybody."""
        self._finish(len(self._unfinished))

    def _finish(self, count: int) -> None:
        for broadcast in self._unfinished[:count]:
            broadcast.finish()
        del self._unfinished[:count]
        self._finishing = 0


def _batch(broadcasts: list[Broadcast]) -> Batch:
    if len(broadcasts) == 1:
        return broadcasts[0].message
    return Burst([broadcast.message for broadcast in broadcasts])
