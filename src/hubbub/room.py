"""Room and Member: who is where, and the way of a broadcast into the members' outboxes.

A broadcast is appended to its room; a flush takes what has gathered to every member. No
name -> room mapping, no task and no policy lives here. Used by the hub, which keeps the
rooms, runs the flushes and ends members.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio.lowlevel import checkpoint

from hubbub.exceptions import WebSocketDisconnect
from hubbub.outbox import QUEUED, Outbox, OutboxStatistics, Verdict
from hubbub.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from hubbub.types import Data

__all__ = ("Broadcast", "Delivery", "Keeper", "Member", "Room", "Socket")

_logger = logging.getLogger("hubbub")
_MEMBERS_PER_CHECKPOINT = 64


class Socket(Protocol):
    """What a member needs of its connection."""

    async def deliver(self, data: Data) -> None:
        """Send a message; raises ``WebSocketDisconnect`` when the peer has gone."""
        ...

    async def disconnect(self, code: int, reason: str = "") -> None:
        """Close, and let whoever receives from the connection know."""
        ...


class Keeper(Protocol):
    """What a member asks of whoever keeps it and its rooms."""

    def enter(self, member: Member, room: str) -> None:
        """Put a member into a room."""
        ...

    def leave(self, member: Member, room: str) -> None:
        """Take a member out of a room."""
        ...

    def schedule(self, member: Member) -> None:
        """See to it that the member is drained."""
        ...

    async def flushed(self) -> None:
        """Wait until all that was broadcast before this call is in the outboxes."""
        ...

    def expel(self, member: Member, code: int, reason: str) -> None:
        """End the member, and close its connection."""
        ...

    def forget(self, member: Member, code: int, reason: str) -> None:
        """End the member; its connection is over, or not the keeper's business."""
        ...


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


class Broadcast:
    """One message on its way through a room."""

    __slots__ = ("_done", "disconnected", "dropped", "exclude", "members", "message", "sent")

    def __init__(self, message: Prepared, exclude: Container[Member], *, wait: bool) -> None:
        self.message = message
        self.exclude = exclude
        self.members = self.sent = self.dropped = self.disconnected = 0
        self._done = anyio.Event() if wait else None

    def count(self, verdict: Verdict) -> None:
        """Count what became of it at one member."""
        self.members += 1
        if verdict is QUEUED:
            self.sent += 1
            return
        self.sent += verdict.queued
        self.dropped += verdict.dropped
        self.disconnected += verdict.disconnect is not None

    def finish(self) -> None:
        """Tell whoever waits that it is in every outbox."""
        if self._done is not None:
            self._done.set()

    async def wait(self) -> None:
        """Wait for ``finish``."""
        assert self._done is not None
        await self._done.wait()

    def delivery(self) -> Delivery:
        """Sum up."""
        return Delivery(self.members, self.sent, self.dropped, self.disconnected)


class Member:
    """A connection in the rooms of a hub, with one outbox for all of them.

    Made by ``Hub.join``.

    Attributes:
        data: what the application attached to it.
        socket: its connection.
        stall_timeout: seconds without progress after which it is disconnected.
    """

    __slots__ = (
        "__weakref__",
        "_drained",
        "_end",
        "_keeper",
        "_outbox",
        "_rooms",
        "data",
        "in_line",
        "progress",
        "socket",
        "stall_timeout",
    )

    def __init__(
        self,
        keeper: Keeper,
        socket: Socket,
        outbox: Outbox,
        *,
        stall_timeout: float | None,
        data: Any,
    ) -> None:
        self._keeper = keeper
        self.socket = socket
        self._outbox = outbox
        self._rooms: set[str] = set()
        self._end: tuple[int, str] | None = None
        self._drained: anyio.Event | None = None
        self.data = data
        self.in_line = False
        self.progress = 0
        self.stall_timeout = stall_timeout

    def __repr__(self) -> str:
        return f"<Member {self.data!r} in {sorted(self._rooms)}>"

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that it is in."""
        return frozenset(self._rooms)

    def join(self, room: str) -> None:
        """Enter another room; does nothing for one that it is in.

        Raises:
            WebSocketDisconnect: if the member's time is over.
        """
        self._require_alive()
        if room not in self._rooms:
            self._keeper.enter(self, room)
            self._rooms.add(room)

    def leave(self, room: str) -> None:
        """Leave a room; does nothing for one that it is not in.

        The connection goes on, and what waits in the outbox is still sent.
        """
        if room in self._rooms:
            self._rooms.discard(room)
            self._keeper.leave(self, room)

    async def send(self, message: Data) -> None:
        """Send to this member alone, behind all that was broadcast before.

        Returns as soon as the message is in the outbox; waits while that is full, whatever
        the policy. A cancelled send sends nothing.

        Raises:
            MessageTooBig: if the message is larger than the outbox's ``max_bytes``.
            TypeError: if the message is neither ``str`` nor ``bytes``.
            WebSocketDisconnect: if the connection is over.
        """
        self._require_alive()
        await self._keeper.flushed()
        try:
            await self._outbox.send(Prepared(message))
        except anyio.ClosedResourceError:
            assert self._end is not None  # the outbox closes with the member
            raise WebSocketDisconnect(*self._end) from None
        self._keeper.schedule(self)

    def statistics(self) -> OutboxStatistics:
        """Look at its outbox as it is now."""
        return self._outbox.statistics()

    # -- For rooms, senders and the hub -------------------------------------------------

    def offer(self, message: Prepared) -> Verdict:
        """Queue a message, or let the policy speak; neither waits nor raises."""
        verdict = self._outbox.offer(message)
        if verdict.disconnect is not None:
            self._keeper.expel(self, verdict.disconnect.code, verdict.disconnect.reason)
        return verdict

    async def drain(self) -> None:
        """Send all that waits. Called by one sender at a time."""
        try:
            while (message := self._outbox.take()) is not None:
                await self.socket.deliver(message.data)
                self.progress += 1
        except WebSocketDisconnect as end:
            # Eagerly: its handler may not look for a long time.
            self._keeper.forget(self, end.code, end.reason)
        except Exception:
            # Whatever a server throws: it is this connection's misfortune, nobody else's.
            _logger.exception("Sending to %r failed", self)
            self._keeper.expel(self, 1011, "")
        finally:
            if self._drained is not None:
                self._drained.set()
                self._drained = None

    async def wait_drained(self) -> None:
        """Wait until nothing waits in the outbox, nor is in a sender's hands."""
        while self.in_line:
            if self._drained is None:
                self._drained = anyio.Event()
            await self._drained.wait()

    def stalled(self) -> None:
        """End it: its peer has not taken anything for ``stall_timeout``."""
        self._keeper.expel(self, 1013, f"no progress for {self.stall_timeout:g} s")

    def end(self, code: int, reason: str) -> bool:
        """Leave all rooms and close the outbox; False when that was done before."""
        if self._end is not None:
            return False
        self._end = (code, reason)
        for room in self.rooms:
            self.leave(room)
        self._outbox.close()
        return True

    def _require_alive(self) -> None:
        if self._end is not None:
            raise WebSocketDisconnect(*self._end)


class Room:
    """The members that share broadcasts under one name.

    Attributes:
        name: the name.
    """

    __slots__ = ("_gathered", "_members", "_published", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._published = 0
        # Each member with the number of broadcasts before it entered: a broadcast that is
        # still to be flushed is not for those who came later.
        self._members: dict[Member, int] = {}
        self._gathered: list[tuple[int, Broadcast]] = []

    def __repr__(self) -> str:
        return f"<Room {self.name!r} of {len(self._members)}>"

    def __len__(self) -> int:
        return len(self._members)

    @property
    def members(self) -> tuple[Member, ...]:
        """The members at this moment, in the order in which they entered."""
        return tuple(self._members)

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
        try:
            for position, member in enumerate(self.members, 1):
                if self._flush_to(member, gathered):
                    schedule(member)
                if position % _MEMBERS_PER_CHECKPOINT == 0:
                    wake()
                    await checkpoint()
        finally:
            self.abandon(gathered)
        wake()

    def _flush_to(self, member: Member, gathered: list[tuple[int, Broadcast]]) -> bool:
        """Offer a member all that is for it; True when it has something to send now."""
        queued = False
        for number, broadcast in gathered:
            since = self._members.get(member)
            if since is None:  # it left since the flush began, or was made to
                return False
            if number > since and member not in broadcast.exclude:
                verdict = member.offer(broadcast.message)
                broadcast.count(verdict)
                queued = queued or verdict.queued
        return queued

    def abandon(self, gathered: list[tuple[int, Broadcast]] | None = None) -> None:
        """Finish broadcasts, whether or not they have reached everybody."""
        for _, broadcast in self._gathered if gathered is None else gathered:
            broadcast.finish()
