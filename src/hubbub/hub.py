"""Hub: the connection manager. It keeps members and rooms, and runs what moves messages.

Who is connected, name -> room, and the lifespan of all that. How a message gets into an
outbox is Room's business, how it gets out is Senders'. Used by applications.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
from anyio import AsyncContextManagerMixin
from anyio.lowlevel import checkpoint

from hubbub._tasks import create_task_group
from hubbub.close_codes import check_close
from hubbub.codecs import json
from hubbub.exceptions import WebSocketDisconnect
from hubbub.member import Member
from hubbub.outbox import Outbox
from hubbub.policies import Disconnect
from hubbub.prepared import Prepared
from hubbub.room import Broadcast, Delivery, Room
from hubbub.senders import Senders
from hubbub.sockets import adapt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    from anyio.abc import TaskGroup

    from hubbub.outbox import Policy
    from hubbub.sockets import AnyConnection, Socket
    from hubbub.types import Data

__all__ = ("Hub", "HubStatistics")

_logger = logging.getLogger("hubbub")
_CLOSE_TIMEOUT = 5.0  # seconds for a member's close frame, or its last message, to leave
_DRAIN = 5.0  # seconds for everybody's outboxes when the hub closes
_SLOW_CONSUMER = Disconnect()


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """One moment of a hub."""

    connections: int = 0
    rooms: int = 0
    senders: int = 0
    """Tasks that drain outboxes; as many more than usual as there are stuck peers."""
    sent: int = 0
    """Messages that were handed to servers so far."""
    dropped: int = 0
    """Messages that outboxes have dropped so far."""
    disconnected: int = 0
    """Members that the hub has disconnected so far."""
    abandoned: int = 0
    """Those of them whose server did not let the close frame out in time."""


class Hub(AsyncContextManagerMixin):
    """Rooms of connections, each with a bounded outbox, and broadcasts to them.

    A hub runs while it is entered: ``App(lifespan=hub)``, a framework's lifespan, or
    ``async with hub``. It may be entered again after it was left.

        async with ws, hub.join("lobby", ws) as me:
            async for text in ws:
                await hub.broadcast("lobby", text, exclude=me)

    All methods belong to the loop that the hub runs in; none is thread-safe.
    """

    def __init__(self, *, on_drop: Callable[[Member, int], None] | None = None) -> None:
        """Make a hub, which does not run yet.

        Args:
            on_drop: called with a member and a number, whenever that many messages to it were
                dropped. It must not block; what it raises is logged.
        """
        self._on_drop = on_drop
        self._run: _Run | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Hub]:
        async with create_task_group() as workers:
            run = _Run(workers, self._on_drop)
            try:
                # They end first: who still takes its last message needs its sender for it.
                async with create_task_group() as run.farewells:
                    self._run = run
                    try:
                        yield self
                    finally:
                        with anyio.move_on_after(_DRAIN + _CLOSE_TIMEOUT, shield=True):
                            await self.aclose()
                        self._run = None
                        run.abandon_all()
            finally:
                run.stop()

    @asynccontextmanager
    async def join(
        self,
        room: str,
        ws: AnyConnection,
        *,
        policy: Policy = _SLOW_CONSUMER,
        capacity: int = 256,
        max_bytes: int = 2**20,
        stall_timeout: float | None = 30.0,
        gap: bool = False,
        data: Any = None,
    ) -> AsyncGenerator[Member]:
        """Make a connection a member, in a room, for as long as the block lasts.

        What was sent to the member, or broadcast, before the block ends still reaches it,
        unless the block raised; then the member leaves all its rooms. The connection stays
        open.

        Args:
            room: the first room; ``Member.join`` enters more.
            ws: the connection, accepted: a ``WebSocket``, Starlette's or FastAPI's, or a
                connection of trio-websocket or websockets.
            policy: what happens when a broadcast does not fit into the outbox.
            capacity: how many messages may wait in the outbox.
            max_bytes: how many bytes of payload may wait in the outbox.
            stall_timeout: seconds without any progress, while something waits, after which
                the member is disconnected with 1013, whatever the policy. None: a peer that
                does not read, in a room that is silent enough, stays for ever.
            gap: whether the peer is told of messages that it missed, where it missed them:
                ``{"type": "gap", "payload": {"missed": 3}}``.
            data: anything, kept as ``member.data``.

        Yields:
            The member.

        Raises:
            RuntimeError: if the hub is not running, or has this connection as a member.
            TypeError: if ``ws`` is no connection.
            ValueError: if a bound is not at least 1.
            WebSocketDisconnect: if the hub is closing; the connection is then closed with the
                code that the members get.
        """
        run = self._require_run()
        socket = adapt(ws)
        if run.closing is not None:
            await socket.disconnect(run.closing)
            raise WebSocketDisconnect(run.closing)
        outbox = Outbox(policy, capacity, max_bytes)
        member = run.admit(socket, outbox, stall_timeout=stall_timeout, gap=gap, data=data)
        try:
            member.join(room)
            yield member
            if run.has(member):
                run.flush_to(member)
                with anyio.move_on_after(_CLOSE_TIMEOUT):
                    await member.wait_drained()
        finally:
            run.forget(member, 1000, "")

    def broadcast_nowait(
        self, room: str, message: Data, *, exclude: Member | Iterable[Member] = ()
    ) -> None:
        """Send a message to the members of a room, without waiting for anything.

        It is flushed to their outboxes within this turn of the loop. A room without members
        is no error.

        Args:
            room: the name of the room.
            message: ``str`` as text, ``bytes`` as binary.
            exclude: a member, or several, to whom it does not go.

        Raises:
            RuntimeError: if the hub is not running.
            TypeError: if the message is neither ``str`` nor ``bytes``.
        """
        broadcast = Broadcast(Prepared(message), _several(exclude), awaited=False)
        self._require_run().publish(room, broadcast)

    async def broadcast(
        self, room: str, message: Data, *, exclude: Member | Iterable[Member] = ()
    ) -> Delivery:
        """Send a message to the members of a room, and wait until all outboxes have it.

        It never waits for a peer, but for those with the policy ``Block``. Cancelled, it is
        sent all the same, to all who have room for it.

        Args:
            room: the name of the room.
            message: ``str`` as text, ``bytes`` as binary.
            exclude: a member, or several, to whom it does not go.

        Returns:
            What became of it.

        Raises:
            RuntimeError: if the hub is not running.
            TypeError: if the message is neither ``str`` nor ``bytes``.
        """
        broadcast = Broadcast(Prepared(message), _several(exclude), awaited=True)
        self._require_run().publish(room, broadcast)
        return await broadcast.wait()

    async def broadcast_json(
        self, room: str, value: Any, *, exclude: Member | Iterable[Member] = ()
    ) -> Delivery:
        """Encode a value as JSON, once, and broadcast it as text: see ``broadcast``.

        Raises:
            RuntimeError: if the hub is not running.
            TypeError: if the value has no JSON form.
        """
        return await self.broadcast(room, json.encode(value), exclude=exclude)

    async def broadcast_all(
        self, message: Data, *, exclude: Member | Iterable[Member] = ()
    ) -> Delivery:
        """Send a message to every member, whatever its rooms: see ``broadcast``."""
        broadcast = Broadcast(Prepared(message), _several(exclude), awaited=True)
        self._require_run().publish_to_all(broadcast)
        return await broadcast.wait()

    @property
    def rooms(self) -> Mapping[str, Room]:
        """The rooms that have members, by name: a live view."""
        return MappingProxyType(self._run.rooms if self._run is not None else {})

    @property
    def connections(self) -> tuple[Member, ...]:
        """The members at this moment."""
        return self._run.members if self._run is not None else ()

    def statistics(self) -> HubStatistics:
        """Look at the hub as it is now."""
        return self._run.statistics() if self._run is not None else HubStatistics()

    async def aclose(self, code: int = 1001, drain: float = _DRAIN) -> None:
        """Close: no more joins, what waits is sent, then everybody is disconnected.

        Done by itself when the hub's block ends. Does nothing when the hub is closed.

        Args:
            code: the close code.
            drain: seconds that the members' outboxes may take to empty.

        Raises:
            ValueError: if the code must not be sent.
        """
        check_close(code, "")
        if self._run is not None:
            await self._run.close(code, drain)

    def _require_run(self) -> _Run:
        if self._run is None:
            raise RuntimeError(
                "The hub is not running: give it to App(lifespan=hub), or use `async with hub`"
            )
        return self._run


class _Run:
    """What a hub has while it runs; the keeper of its members.

    Its tasks are shielded: a hub that is cancelled still has its members told, which needs
    them. Each ends with ``stop``, or has a deadline.
    """

    farewells: TaskGroup
    """Takes leave of those who are members no more; must be there before anybody is one."""

    def __init__(self, workers: TaskGroup, on_drop: Callable[[Member, int], None] | None) -> None:
        self.rooms: dict[str, Room] = {}
        self.senders = Senders(workers)
        self.closing: int | None = None  # the code that everybody is closed with
        self._on_drop = on_drop
        self._everybody = Room("everybody")
        self._flusher = anyio.CancelScope(shield=True)
        self._members: dict[Socket, Member] = {}
        self._dirty: deque[Room] = deque()
        self._wakeup = anyio.Event()
        self._flushed = anyio.Event()
        self._sent = 0  # by those who have gone
        self._dropped = 0
        self._disconnected = 0
        self._abandoned = 0
        workers.start_soon(self._flush_rooms)

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._members.values())

    def statistics(self) -> HubStatistics:
        return HubStatistics(
            connections=len(self._members),
            rooms=len(self.rooms),
            senders=len(self.senders),
            sent=self._sent + sum(member.progress for member in self.members),
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
        if socket in self._members:
            raise RuntimeError(
                f"{socket!r} is a member already: enter more rooms with member.join()"
            )
        member = Member(self, socket, outbox, stall_timeout=stall_timeout, gap=gap, data=data)
        self._members[socket] = member
        self._everybody.add(member)
        return member

    def has(self, member: Member) -> bool:
        return self._members.get(member.socket) is member

    def enter(self, member: Member, room: str) -> None:
        self.rooms.setdefault(room, Room(room)).add(member)

    def leave(self, member: Member, room: str) -> None:
        self.rooms[room].remove(member)
        if not self.rooms[room]:
            del self.rooms[room]

    def schedule(self, member: Member) -> None:
        self.senders.submit(member)
        self.senders.wake()

    def note_dropped(self, member: Member, count: int) -> None:
        self._dropped += count
        if self._on_drop is not None:
            try:
                self._on_drop(member, count)
            except Exception:  # the application's own, and no reason to harm the hub
                _logger.exception("on_drop failed")

    def expel(self, member: Member, code: int, reason: str) -> None:
        if self._remove(member, code, reason):
            self._disconnected += 1
            self.farewells.start_soon(self._disconnect, member, code, reason)

    def forget(self, member: Member, code: int, reason: str) -> None:
        if self._remove(member, code, reason) and member.in_line:
            self.farewells.start_soon(self._let_go, member)

    def _remove(self, member: Member, code: int, reason: str) -> bool:
        if not member.end(code, reason):
            return False
        del self._members[member.socket]
        self._everybody.remove(member)
        self._sent += member.progress
        return True

    async def _disconnect(self, member: Member, code: int, reason: str) -> None:
        # A peer that is merely slow takes its last message now, and then learns why it has
        # to go. One that does not read at all holds up its sender, until here.
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True) as scope:
            try:
                await member.socket.disconnect(code, reason)
            except Exception:  # whatever a server throws is this connection's misfortune
                _logger.exception("Disconnecting %r failed", member)
        self._abandoned += scope.cancelled_caught
        self.senders.release(member)

    async def _let_go(self, member: Member) -> None:
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            await member.wait_drained()
        self.senders.release(member)

    # -- Broadcasts ---------------------------------------------------------------------

    def publish(self, name: str, broadcast: Broadcast) -> None:
        room = self.rooms.get(name)
        if room is None:
            broadcast.finish()
        else:
            self._publish_to(room, broadcast)

    def publish_to_all(self, broadcast: Broadcast) -> None:
        self._publish_to(self._everybody, broadcast)

    def _publish_to(self, room: Room, broadcast: Broadcast) -> None:
        if room.publish(broadcast):
            self._dirty.append(room)
            self._wakeup.set()

    def flush_to(self, member: Member) -> None:
        for room in self._dirty:
            if room.flush_to(member):
                self.schedule(member)

    async def _flushed_all(self) -> None:
        # As many flushes as rooms have gathered something by now; not those that follow.
        for _ in range(len(self._dirty)):
            await self._flushed.wait()

    async def _flush_rooms(self) -> None:
        """Flush rooms in the order in which they were first published to, until ``stop``."""
        try:
            with self._flusher:
                while True:
                    while self._dirty:
                        await self._dirty[0].flush(self.senders.submit, self.senders.wake)
                        self._dirty.popleft()
                        self._flushed.set()
                        self._flushed = anyio.Event()
                        await checkpoint()
                    self._wakeup = anyio.Event()
                    await self._wakeup.wait()
        finally:
            for room in self._dirty:
                room.abandon()  # or who waits for a broadcast would wait for ever
            self._flushed.set()

    # -- The end ------------------------------------------------------------------------

    async def close(self, code: int, drain: float) -> None:
        self.closing = code
        with anyio.move_on_after(drain):
            await self._flushed_all()
            for member in self.members:
                await member.wait_drained()
        async with create_task_group() as closing:
            for member in self.members:
                self._remove(member, code, "")
                self._disconnected += 1
                closing.start_soon(self._disconnect, member, code, "")

    def abandon_all(self) -> None:
        for member in self.members:  # whom close() had no time for
            self._remove(member, 1001, "")

    def stop(self) -> None:
        self._flusher.cancel()
        self.senders.stop()


def _several(exclude: Member | Iterable[Member]) -> frozenset[Member]:
    return frozenset((exclude,) if isinstance(exclude, Member) else exclude)
