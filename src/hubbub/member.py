"""Member: a connection in the rooms of a hub, and the way from its outbox to its socket.

Keeper is what a member asks of its hub; which library its connection comes from is hidden behind
Socket. No room and no task lives here. Made by the hub.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from hubbub._tasks import is_cancelled
from hubbub.codecs import json
from hubbub.exceptions import WebSocketDisconnect
from hubbub.outbox import Verdict
from hubbub.prepared import Prepared

if TYPE_CHECKING:
    from hubbub.outbox import Outbox, OutboxStatistics, Ticket
    from hubbub.prepared import Batch, Outlet
    from hubbub.sockets import Socket
    from hubbub.types import Data

__all__ = ("Keeper", "Member")

_logger = logging.getLogger("hubbub")
_MESSAGES_AT_ONCE = 16  # then the other members have their turn


class Keeper(Protocol):
    """What a member asks of the hub that keeps it and its rooms."""

    def enter(self, member: Member, room: str) -> None:
        """Put a member into a room."""
        ...

    def leave(self, member: Member, room: str) -> None:
        """Take a member out of a room."""
        ...

    def schedule(self, member: Member) -> None:
        """See to it that the member is drained."""
        ...

    def flush_to(self, member: Member) -> None:
        """Take to a member what was broadcast before this call and is not in its outbox yet."""
        ...

    def note_dropped(self, member: Member, count: int) -> None:
        """Note that messages to a member were dropped."""
        ...

    def expel(self, member: Member, code: int, reason: str) -> None:
        """End the member, and close its connection."""
        ...

    def forget(self, member: Member, code: int, reason: str) -> None:
        """End the member, and leave its connection alone: it is over, or goes on without us."""
        ...


class Member:
    """A connection in the rooms of a hub, with one outbox for all of them.

    Made by ``Hub.join``.

    Attributes:
        data: what the application attached to it.
        socket: its connection, as a hub sees it.
        stall_timeout: seconds without progress after which it is disconnected; None: never.
    """

    __slots__ = (
        "__weakref__",
        "_capacity",
        "_drained",
        "_end",
        "_gap",
        "_keeper",
        "_max_bytes",
        "_outbox",
        "_outlet",
        "_reported",
        "_rooms",
        "data",
        "in_line",
        "progress",
        "sender",
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
        gap: bool,
        data: Any,
    ) -> None:
        self._keeper = keeper
        self.socket = socket
        self._outbox = outbox
        # Copies, so that a delivery that bypasses the outbox need not look into it.
        self._capacity, self._max_bytes = outbox.capacity, outbox.max_bytes
        self._outlet = socket.outlet
        self._rooms: set[str] = set()
        self._gap = gap
        self._end: tuple[int, str] | None = None
        self._reported = 0  # of those that the outbox has dropped
        self._drained: anyio.Event | None = None
        self.data = data
        self.in_line = False
        self.sender: object = None
        self.progress = 0
        self.stall_timeout = stall_timeout

    def __repr__(self) -> str:
        return f"<Member {self.data!r} in {sorted(self._rooms)}>"

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that it is in."""
        return frozenset(self._rooms)

    @property
    def is_over(self) -> bool:
        """Whether it has ended; its connection may not be closed yet."""
        return self._end is not None

    def join(self, room: str) -> None:
        """Enter another room; does nothing for one that it is in.

        Raises:
            WebSocketDisconnect: if the member has ended.
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
        """Send to this member alone, after everything that was broadcast before.

        Returns as soon as the message is in the outbox; waits while that is full, whatever
        the policy. A cancelled send sends nothing.

        Raises:
            MessageTooBig: if the message is larger than the outbox's ``max_bytes``.
            TypeError: if the message is neither ``str`` nor ``bytes``.
            WebSocketDisconnect: if the connection is over.
        """
        prepared = Prepared(message)
        self._keeper.flush_to(self)
        try:
            await self._outbox.send(prepared)
        except anyio.ClosedResourceError:
            raise self._disconnected() from None
        self._keeper.schedule(self)

    def send_nowait(self, message: Data) -> None:
        """Send to this member alone, at exactly this point among the broadcasts.

        What was broadcast before this call arrives before the message, and what is broadcast
        later arrives after it: so a snapshot is followed by exactly the changes made since.

            async with hub.join("prices", ws) as me:
                me.send_nowait(json.dumps(prices))

        Raises:
            anyio.WouldBlock: if the outbox is full, whatever the policy.
            MessageTooBig: if the message is larger than the outbox's ``max_bytes``.
            TypeError: if the message is neither ``str`` nor ``bytes``.
            WebSocketDisconnect: if the connection is over.
        """
        prepared = Prepared(message)
        self._keeper.flush_to(self)
        try:
            self._outbox.send_nowait(prepared)
        except anyio.ClosedResourceError:
            raise self._disconnected() from None
        self._keeper.schedule(self)

    def statistics(self) -> OutboxStatistics:
        """Look at its outbox as it is now."""
        return self._outbox.statistics()

    # -- For rooms, senders and the hub -------------------------------------------------

    def try_send(self, batch: Batch) -> bool:
        """Send past the outbox, if nothing waits and the server offers an outlet."""
        outlet = self._outlet
        if outlet is None or self.in_line:
            return False
        if batch.count > self._capacity or batch.size > self._max_bytes:
            return False  # a burst is bounded, whichever way it takes
        if not outlet.try_send(batch):
            return False
        self.progress += batch.count
        return True

    def try_queue(self, batch: Batch) -> bool:
        """Queue messages if the outbox has room for all of them."""
        return self._outbox.try_queue(batch)

    def offer(self, message: Prepared) -> Verdict:
        """Queue a message, or let the policy decide. Neither waits nor raises."""
        try:
            return self._outbox.offer(message)
        except Exception:
            # A policy of the application's own: its failure must harm this member only.
            _logger.exception("The policy of %r failed", self)
            return Verdict(queued=False, disconnect=(1011, ""))

    def report_dropped(self) -> None:
        """Tell how many messages were dropped since this was last told."""
        count = self._outbox.dropped - self._reported
        if count:
            self._reported += count
            self._keeper.note_dropped(self, count)

    def stand_in_line(self, message: Prepared) -> Ticket:
        """Put a message that does not fit in line, ahead of all later ones."""
        return self._outbox.stand_in_line(message)

    def withdraw(self, ticket: Ticket) -> bool:
        """Give up a message that stands in line; False when it has been settled already."""
        if ticket.settled.is_set():
            return False
        self._outbox.withdraw(ticket)
        return True

    def expel(self, code: int, reason: str) -> None:
        """End the member, and its connection."""
        self._keeper.expel(self, code, reason)

    async def drain(self) -> bool:
        """Send some of what waits; True when there is more. Called by one sender at a time."""
        try:
            for _ in range(_MESSAGES_AT_ONCE):
                # Together: what is dropped while the gap is told is missed behind this message.
                missed = self._outbox.take_missed() if self._gap else 0
                message = self._outbox.take()
                if missed:
                    await self.socket.deliver(_gap_notice(missed))
                if message is not None:
                    if self._outlet is None or not await _send_by(self._outlet, message):
                        await self.socket.deliver(message.data)
                    self.progress += 1
                elif not missed:
                    break
            else:
                return not self._outbox.closed
        except WebSocketDisconnect as end:
            # At once: its handler may not notice for a long time.
            self._keeper.forget(self, end.code, end.reason)
        except Exception:
            # Whatever a server raises must harm this connection only.
            _logger.exception("Sending to %r failed", self)
            self._keeper.expel(self, 1011, "")
        except anyio.get_cancelled_exc_class():
            if not is_cancelled():
                # By the server itself: see Senders. Or by asyncio, at the end of its loop, which
                # is nothing to warn of.
                _logger.info("Sending to %r was cancelled", self)
                self._keeper.expel(self, 1011, "")
            raise
        finally:
            if self._drained is not None:
                self._drained.set()
                self._drained = None
        return False

    async def wait_drained(self) -> None:
        """Wait until the outbox is empty and no sender has a message of it in hand."""
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
            raise self._disconnected()

    def _disconnected(self) -> WebSocketDisconnect:
        assert self._end is not None
        return WebSocketDisconnect(*self._end)


async def _send_by(outlet: Outlet, message: Prepared) -> bool:
    """Send through the outlet; False if it closed, or somebody else was faster."""
    if outlet.try_send(message):
        return True
    await outlet.writable()
    return outlet.try_send(message)


def _gap_notice(missed: int) -> str:
    return json.encode({"type": "gap", "payload": {"missed": missed}})
