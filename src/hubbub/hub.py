"""Hub: the connection manager, as an application sees it.

What an application may ask of it, and when. What it has while it runs is RunningHub's. Used by
applications.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from anyio import AsyncContextManagerMixin

from hubbub.broadcast import AwaitedBroadcast, Broadcast, Delivery
from hubbub.close_codes import check_close
from hubbub.codecs import json
from hubbub.exceptions import WebSocketDisconnect
from hubbub.member import Member
from hubbub.outbox import Outbox
from hubbub.policies import Disconnect
from hubbub.prepared import Prepared
from hubbub.running import DRAIN, HubStatistics, RunningHub, close_connection, run_hub
from hubbub.sockets import adapt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from hubbub.outbox import Policy
    from hubbub.room import Room
    from hubbub.sockets import AnyConnection
    from hubbub.types import Data

__all__ = ("Hub", "HubStatistics")

_SLOW_CONSUMER = Disconnect()
_NOBODY: frozenset[Member] = frozenset()


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
            on_drop: called with a member and how many messages to it have just been dropped.
                It must not block; what it raises is logged.
        """
        self._on_drop = on_drop
        self._run: RunningHub | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Hub]:
        try:
            async with run_hub(self._on_drop) as self._run:
                yield self
        finally:
            self._run = None

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

        Then the member leaves all its rooms; the connection stays open. Unless the block raised,
        what was sent or broadcast to the member before is delivered first, in up to 5 seconds.

        Args:
            room: the first room; ``Member.join`` enters more.
            ws: an accepted connection: a ``WebSocket``, Starlette's or FastAPI's, or a
                connection of trio-websocket or websockets.
            policy: what happens when a broadcast does not fit into the outbox.
            capacity: how many messages may wait in the outbox.
            max_bytes: how many bytes of payload may wait in the outbox.
            stall_timeout: seconds after which a member that takes no message, although some
                wait, is disconnected with 1013, whatever the policy. None: in a quiet room, a
                peer that does not read stays for ever.
            gap: whether the peer is told how many messages it missed, in their place among the
                others: ``{"type": "gap", "payload": {"missed": 3}}``.
            data: anything, kept as ``member.data``.

        Yields:
            The member.

        Raises:
            RuntimeError: if the hub is not running, or the connection is a member already, or
                not accepted yet, or is Starlette's and not open.
            TypeError: if ``ws`` is none of these connections, or ``policy`` is not a policy.
            ValueError: if ``capacity`` or ``max_bytes`` is below 1.
            WebSocketDisconnect: if the hub is closing; the connection is then closed with the
                code that the members get.
        """
        run = self._require_run()
        socket = adapt(ws)
        if run.closing is not None:
            code = run.closing
            await close_connection(socket, code, "")
            raise WebSocketDisconnect(code)
        outbox = Outbox(policy, capacity, max_bytes)
        member = run.admit(socket, outbox, stall_timeout=stall_timeout, gap=gap, data=data)
        try:
            member.join(room)
            yield member
            await run.drain(member)
        finally:
            run.forget(member, 1000, "")
            await run.wait_told(member)

    def broadcast_nowait(
        self, room: str, message: Data, *, exclude: Member | Iterable[Member] = ()
    ) -> None:
        """Send a message to the members of a room, without waiting for anything.

        It reaches their outboxes in the next turn of the loop. Several messages published in one
        turn wait for one more turn, and for what that brings. An empty room is not an error.

        Args:
            room: the name of the room.
            message: ``str`` as text, ``bytes`` as binary.
            exclude: a member, or several, who do not get it.

        Raises:
            RuntimeError: if the hub is not running.
            TypeError: if the message is neither ``str`` nor ``bytes``, or ``exclude`` not a member.
        """
        broadcast = Broadcast(Prepared(message), _several(exclude))
        self._require_run().publish(room, broadcast)

    async def broadcast(
        self, room: str, message: Data, *, exclude: Member | Iterable[Member] = ()
    ) -> Delivery:
        """Send a message to the members of a room, and wait until all outboxes have it.

        It never waits for a peer, except for members with the policy ``Block``. If the wait is
        cancelled, the message still goes to all members that have room for it.

        Args:
            room: the name of the room.
            message: ``str`` as text, ``bytes`` as binary.
            exclude: a member, or several, who do not get it.

        Returns:
            What became of it.

        Raises:
            RuntimeError: if the hub is not running.
            TypeError: if the message is neither ``str`` nor ``bytes``, or ``exclude`` not a member.
        """
        broadcast = AwaitedBroadcast(Prepared(message), _several(exclude))
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
        broadcast = AwaitedBroadcast(Prepared(message), _several(exclude))
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

    async def aclose(self, code: int = 1001, drain: float = DRAIN) -> None:
        """Refuse further joins, send what waits, then disconnect everybody.

        The hub's block does this when it ends. Does nothing when the hub is not running.

        Args:
            code: the close code; 1001 (going away) by default.
            drain: seconds that the members' outboxes may take to empty; 5 by default.

        Raises:
            ValueError: if the code must not be sent.
        """
        check_close(code, "")
        if self._run is not None:
            await self._run.close(code, drain)

    def _require_run(self) -> RunningHub:
        if self._run is None:
            raise RuntimeError(
                "The hub is not running: give it to App(lifespan=hub), or use `async with hub`"
            )
        return self._run


def _several(exclude: Member | Iterable[Member]) -> frozenset[Member]:
    if exclude == ():
        return _NOBODY
    if isinstance(exclude, Member):
        return frozenset((exclude,))
    if isinstance(exclude, Iterable):
        members = frozenset(exclude)
        if all(isinstance(member, Member) for member in members):
            return members
    raise TypeError(
        f"Expected exclude to be a member, as hub.join gives it, or several; got {exclude!r}"
    )
