"""RunningHub: the members and rooms of a hub that runs, and the tasks that move messages.

Who is connected, name -> room, and the lifespan of all that. How a message gets into an
outbox is Room's business, how it gets out is Senders'. Used by Hub.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from hubbub._tasks import create_task_group, is_cancelled
from hubbub._wakeup import Wakeup
from hubbub.member import Member
from hubbub.room import Room
from hubbub.senders import Senders

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from anyio.abc import TaskGroup

    from hubbub.broadcast import Broadcast
    from hubbub.outbox import Outbox
    from hubbub.sockets import Socket

__all__ = ("DRAIN", "HubStatistics", "RunningHub", "close_connection", "run_hub")

_logger = logging.getLogger("hubbub")
DRAIN = 5.0
"""Seconds for all outboxes to empty when the hub closes."""
_CLOSE_TIMEOUT = 5.0  # seconds for a member's close frame, or its last message, to leave


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """A snapshot of a hub."""

    connections: int = 0
    rooms: int = 0
    senders: int = 0
    """Tasks that drain outboxes: up to four, and more while peers are stuck."""
    sent: int = 0
    """Messages that were handed to servers so far."""
    dropped: int = 0
    """Messages that outboxes have dropped so far."""
    disconnected: int = 0
    """Members that the hub has disconnected so far."""
    abandoned: int = 0
    """Those of them to whom the close frame could not be sent in time."""


class RunningHub:
    """What a hub has while it runs; the keeper of its members.

    Its tasks are shielded, because a hub that is cancelled still needs them to tell its members.
    Each ends with ``stop``, or has a deadline.

    Attributes:
        rooms: those that have members, by name.
        closing: the code that everybody is closed with, once that has begun.
    """

    farewells: TaskGroup
    """Runs what is left to do for former members; to be set before the first one joins."""

    def __init__(self, workers: TaskGroup, on_drop: Callable[[Member, int], None] | None) -> None:
        self.rooms: dict[str, Room] = {}
        self._senders = Senders(workers)
        self.closing: int | None = None
        self._on_drop = on_drop
        self._everybody = Room("everybody")
        self._flusher = anyio.CancelScope(shield=True)
        self._members: dict[Socket, Member] = {}
        self._untold: dict[Member, anyio.Event] = {}  # to be disconnected; set when that begins
        self._dirty: deque[Room] = deque()
        self._wakeup = Wakeup()
        self._flushed: anyio.Event | None = None  # set after a flush, if somebody waits
        self._leaving: set[Member] = set()  # to these a message may still be on its way
        self._sent = 0  # to members that have left
        self._dropped = 0
        self._disconnected = 0
        self._abandoned = 0
        workers.start_soon(self._flush_rooms)

    @property
    def members(self) -> tuple[Member, ...]:
        """The members at this moment."""
        return tuple(self._members.values())

    def statistics(self) -> HubStatistics:
        """Look at the hub as it is now."""
        return HubStatistics(
            connections=len(self._members),
            rooms=len(self.rooms),
            senders=len(self._senders),
            sent=self._sent + sum(member.progress for member in (*self.members, *self._leaving)),
            dropped=self._dropped,
            disconnected=self._disconnected,
            abandoned=self._abandoned,
        )

    # -- Membership ---------------------------------------------------------------------

    def admit(
        self,
        socket: Socket,
        outbox: Outbox,
        *,
        stall_timeout: float | None,
        gap: bool,
        data: Any,
    ) -> Member:
        """Make a connection a member, without a room.

        Raises:
            RuntimeError: if it is one already.
        """
        if socket in self._members:
            raise RuntimeError(
                f"{socket!r} is a member already: enter more rooms with member.join()"
            )
        member = Member(self, socket, outbox, stall_timeout=stall_timeout, gap=gap, data=data)
        self._members[socket] = member
        self._everybody.add(member)
        return member

    def enter(self, member: Member, room: str) -> None:
        """Put a member into a room, which is created if need be."""
        self.rooms.setdefault(room, Room(room)).add(member)

    def leave(self, member: Member, room: str) -> None:
        """Take a member out of a room, which is deleted with its last member."""
        self.rooms[room].remove(member)
        if not self.rooms[room]:
            del self.rooms[room]

    def schedule(self, member: Member) -> None:
        """See to it that the member is drained."""
        self._senders.submit(member)
        self._senders.wake()

    def note_dropped(self, member: Member, count: int) -> None:
        """Count messages that were dropped, and tell the application."""
        self._dropped += count
        if self._on_drop is not None:
            try:
                self._on_drop(member, count)
            except Exception:  # the application's own: it must not harm the hub
                _logger.exception("on_drop failed")

    def expel(self, member: Member, code: int, reason: str) -> None:
        """End the member, and close its connection."""
        if self._remove(member, code, reason):
            self._begin_to_disconnect(member, code, reason, self.farewells)

    async def wait_told(self, member: Member) -> None:
        """Wait until the task has begun that disconnects this member, if there is one.

        Otherwise its handler, which may be faster, would close with a code of its own.
        """
        if member in self._untold:
            await self._untold[member].wait()

    async def drain(self, member: Member) -> None:
        """Send a member that is about to leave what is still for it, if that goes in time."""
        if self._members.get(member.socket) is member:
            self.flush_to(member)
            with anyio.move_on_after(_CLOSE_TIMEOUT):
                await member.wait_drained()

    def forget(self, member: Member, code: int, reason: str) -> None:
        """End the member; a message that is being sent to it may still arrive."""
        if self._remove(member, code, reason):
            if member.in_line:
                self.farewells.start_soon(self._let_go, member)
            else:
                self._part_with(member)

    def _remove(self, member: Member, code: int, reason: str) -> bool:
        if not member.end(code, reason):
            return False
        del self._members[member.socket]
        self._everybody.remove(member)
        self._leaving.add(member)
        return True

    def _begin_to_disconnect(
        self, member: Member, code: int, reason: str, tasks: TaskGroup
    ) -> None:
        self._disconnected += 1
        self._untold[member] = anyio.Event()
        tasks.start_soon(self._disconnect, member, code, reason)

    async def _disconnect(self, member: Member, code: int, reason: str) -> None:
        self._untold.pop(member).set()  # before anybody looks, ``disconnect`` has begun
        # A peer that is merely slow takes its last message now, and then learns why it has
        # to go. One that does not read at all holds up its sender until it is released below.
        if not await close_connection(member.socket, code, reason, shield=True):
            self._abandoned += 1
        self._part_with(member)

    async def _let_go(self, member: Member) -> None:
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            await member.wait_drained()
        self._part_with(member)

    def _part_with(self, member: Member) -> None:
        self._senders.release(member)
        self._leaving.discard(member)
        self._sent += member.progress

    # -- Broadcasts ---------------------------------------------------------------------

    def publish(self, name: str, broadcast: Broadcast) -> None:
        """Append a broadcast to its room, if there is one."""
        room = self.rooms.get(name)
        if room is None:
            broadcast.finish()
        else:
            self._publish_to(room, broadcast)

    def publish_to_all(self, broadcast: Broadcast) -> None:
        """Append a broadcast to the room that everybody is in."""
        if self._members:
            self._publish_to(self._everybody, broadcast)
        else:
            broadcast.finish()

    def _publish_to(self, room: Room, broadcast: Broadcast) -> None:
        if room.publish(broadcast):
            self._dirty.append(room)
            self._wakeup.set()

    def flush_to(self, member: Member) -> None:
        """Take to a member what its rooms have not flushed yet."""
        for room in tuple(self._dirty):  # on_drop may publish to one more
            room.flush_to(member, self.schedule)

    async def _wait_flushed(self) -> None:
        """Wait until all that has been published by now is flushed; not what follows."""
        for room, published in [(room, room.published) for room in self._dirty]:
            while room.finished < published:
                if self._flushed is None:
                    self._flushed = anyio.Event()
                await self._flushed.wait()

    def _tell_flushed(self) -> None:
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None

    async def _flush_rooms(self) -> None:
        """Flush rooms in the order in which they were first published to, until ``stop``."""
        try:
            with self._flusher:
                while True:
                    while self._dirty:
                        await self._dirty[0].flush(self._senders.submit, self._senders.wake)
                        self._dirty.popleft()
                        self._tell_flushed()
                        if self._dirty:
                            await checkpoint()
                    await self._wakeup.wait()
        finally:
            for room in self._dirty:
                room.abandon()  # or whoever waits for a broadcast would wait for ever
            self._tell_flushed()

    # -- The end ------------------------------------------------------------------------

    async def close(self, code: int, drain: float) -> None:
        """Refuse joins; when all is sent, or after ``drain`` seconds, disconnect everybody."""
        self.closing = code
        with anyio.move_on_after(drain):
            await self._wait_flushed()
            for member in self.members:
                await member.wait_drained()
        async with create_task_group() as closing:
            for member in self.members:
                self._remove(member, code, "")
                self._begin_to_disconnect(member, code, "", closing)

    async def end(self) -> None:
        """Close, and remove all members, whether or not there was time to close."""
        with anyio.move_on_after(DRAIN + _CLOSE_TIMEOUT, shield=True):
            await self.close(1001, DRAIN)
        for member in self.members:
            self._remove(member, 1001, "")

    def stop(self) -> None:
        """End the tasks."""
        self._flusher.cancel()
        self._senders.stop()


async def close_connection(socket: Socket, code: int, reason: str, *, shield: bool = False) -> bool:
    """Close a connection; False when it was given up, because that took too long."""
    with anyio.move_on_after(_CLOSE_TIMEOUT, shield=shield) as scope:
        try:
            await socket.disconnect(code, reason)
        except Exception:  # whatever a server raises must harm this connection only
            _logger.exception("Disconnecting %r failed", socket)
        except anyio.get_cancelled_exc_class():
            if is_cancelled():
                raise
            _logger.info("Disconnecting %r was cancelled", socket)  # see Member.drain
    return not scope.cancelled_caught


@asynccontextmanager
async def run_hub(on_drop: Callable[[Member, int], None] | None) -> AsyncGenerator[RunningHub]:
    """Run a hub for as long as the block lasts."""
    async with create_task_group() as workers:
        run = RunningHub(workers, on_drop)
        try:
            # The farewells end first: a last message still needs its sender.
            async with create_task_group() as run.farewells:
                try:
                    yield run
                finally:
                    await run.end()
        finally:
            run.stop()
