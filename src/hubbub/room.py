"""Room: the members that share broadcasts, and how broadcasts reach their outboxes.

A broadcast is appended to its room; a flush visits all members, and takes to each whatever it
lacks by then. No name -> room mapping, no task and no policy lives here. Used by the hub, which
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

_MESSAGES_PER_CHECKPOINT = 512  # to all members together
_MESSAGES_PER_MEMBER = 8  # a member counts as so many at least: its system call costs as much
_OVERFLOWS_PER_CHECKPOINT = 16  # each runs a policy, and may disconnect a member
_GONE: Final = sys.maxsize  # in place of a broadcast's number: no later one is lacking


@dataclass(frozen=True, slots=True)
class RoomStatistics:
    """A snapshot of a room; it counts from the room's creation."""

    members: int
    broadcasts: int
    sent: int
    """Messages that went into members' outboxes."""
    dropped: int
    """Messages that members' outboxes dropped because of broadcasts to this room."""
    disconnected: int
    """Members that were disconnected because of a broadcast."""


class _Place:
    """A member's place in a room."""

    __slots__ = ("member", "since")

    def __init__(self, member: Member, since: int) -> None:
        self.member = member
        # The number of the last broadcast that it does not lack, because it had it or joined
        # after it. So it gets each one once, from ``flush`` or from ``flush_to``.
        self.since = since


class _Stretch:
    """Consecutive broadcasts, batched once for all members that lack exactly these."""

    __slots__ = ("batch", "broadcasts", "excluded", "last", "reached", "since")

    def __init__(self, broadcasts: list[Broadcast], since: int) -> None:
        self.broadcasts = broadcasts
        self.batch = _batch(broadcasts)
        self.excluded = broadcasts[0].exclude
        if len(broadcasts) > 1:
            self.excluded = self.excluded.union(*[each.exclude for each in broadcasts])
        self.since = since
        self.last = since + len(broadcasts)
        self.reached = 0  # how many members have all of it in their outbox, or sent past it

    def settle(self) -> None:
        """Count, for each broadcast, the members that it has reached."""
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
        self._unfinished: list[Broadcast] = []  # the newest ones, which some members may lack
        self._finishing = 0  # how many of them the flush that is under way will finish

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
        """Append a broadcast; True when another flush has to be scheduled for it."""
        broadcast.start(self._tally)
        self.published += 1
        self._unfinished.append(broadcast)
        return len(self._unfinished) == self._finishing + 1

    async def flush(self, schedule: Callable[[Member], None], wake: Callable[[], None]) -> None:
        """Visit all members once, and take to each one's outbox whatever it lacks by then.

        What is published meanwhile goes along to the members still to be visited; the others
        get it from the next flush. So a busy room sends each member many messages at a time,
        and no message waits for a flush to end. One task runs one flush at a time, so that all
        members get a room's messages in the same order, whoever published them.

        Args:
            schedule: called with each member that has something to send now.
            wake: called before each checkpoint and at the end: members may be scheduled.
        """
        if len(self._unfinished) > 1:
            await checkpoint()  # a burst: the next turn of the loop brings more of it (measured)
        self._finishing = len(self._unfinished)
        places = iter(tuple(self._places.values()))
        stretch = _Stretch(self._unfinished[:], self.finished)
        try:
            stretch = self._visit_next(places, stretch, schedule)
            while length_hint(places):
                wake()
                await checkpoint()
                stretch = self._visit_next(places, stretch, schedule)
        finally:
            stretch.settle()
        self._finish(self._finishing)
        wake()

    def _visit_next(
        self, places: Iterator[_Place], stretch: _Stretch, schedule: Callable[[Member], None]
    ) -> _Stretch:
        """Take to the next members what they lack, as far as the next checkpoint.

        Args:
            places: those that are still to be visited.
            stretch: what the last member visited was given.
            schedule: called with each member that has something to send now.

        Returns:
            What the member visited last by now was given.
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
                self._take_to(member, stretch.broadcasts, schedule)
            elif member.try_send(batch):
                reached += 1
            elif member.try_queue(batch):
                reached += 1
                schedule(member)
            else:
                self._offer(member, stretch.broadcasts, schedule)
                overflows += 1
                if overflows == _OVERFLOWS_PER_CHECKPOINT:
                    break
        stretch.reached += reached
        return stretch

    def flush_to(self, member: Member, schedule: Callable[[Member], None]) -> None:
        """Take to one member now what a flush would take to it later.

        Args:
            member: the member, if it is in the room.
            schedule: called with it when it has something to send now.
        """
        place = self._places.get(member)
        if place is not None and place.since < self.published:
            lacking = self._lacking(place.since)
            place.since = self.published
            self._take_to(member, lacking, schedule)

    def _lacking(self, since: int) -> list[Broadcast]:
        return self._unfinished[since - self.published :]

    def _take_to(
        self, member: Member, broadcasts: list[Broadcast], schedule: Callable[[Member], None]
    ) -> None:
        """Take to a member what does not exclude it."""
        wanted = [broadcast for broadcast in broadcasts if member not in broadcast.exclude]
        if wanted and member.try_send(_batch(wanted)):
            for broadcast in wanted:
                broadcast.tally.count(QUEUED)
        else:
            self._offer(member, wanted, schedule)

    def _offer(
        self, member: Member, broadcasts: list[Broadcast], schedule: Callable[[Member], None]
    ) -> None:
        """Offer a member some broadcasts, one by one."""
        has_some = False
        for broadcast in broadcasts:
            if member not in self._places:  # the last one got it disconnected
                break
            has_some = broadcast.offer_to(member) or has_some
        if has_some:
            schedule(member)
        # Last: who hears of it may send to this member, which is to come behind all of these.
        member.report_dropped()

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
