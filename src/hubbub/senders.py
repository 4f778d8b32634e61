"""Senders: a few tasks that drain many outboxes, so that a stuck peer holds up nobody else.

A writer task per member would be woken for each message; here members with something to send
stand in one line, and a few senders serve it. A member is in one sender's hands at a time, so
its order holds. A peer that does not read holds up its sender, and no other: a warden that sees
the line stand still puts another sender to work. No rooms and no policy live here. Used by the
hub.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.lowlevel import checkpoint

from hubbub._wakeup import Wakeup

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ("Drainable", "Senders")

_KEPT = 4  # senders that stay when there is nothing to do
# Seconds that the line may stand still. Not a divisor of the 0.1 s at which anyio's
# wait_all_tasks_blocked polls on asyncio, or it would find the warden awake every time.
_PATIENCE = 0.023
_MESSAGES_PER_CHECKPOINT = 32  # of each sender: many servers' send never yields


class Drainable(Protocol):
    """Something with messages to send, which one sender at a time may drain."""

    in_line: bool
    """Set by the senders: whether it waits in the line or is in a sender's hands."""
    sender: object
    """Set by the senders: the one that has it in hand, or None."""
    progress: int
    """Changes with each message that was sent."""
    stall_timeout: float | None
    """Seconds without progress, while being drained, after which it is stalled."""

    async def drain(self) -> bool:
        """Send some of what waits; True when there is more. Never raises because of the peer."""
        ...

    def stalled(self) -> None:
        """Called by the warden when ``stall_timeout`` has passed."""
        ...


class _Sender:
    """One sender: the member that it has in hand, and since when nothing has moved."""

    __slots__ = (
        "current",
        "has_moved",
        "has_sent",
        "released",
        "scope",
        "seen",
        "sent",
        "since",
        "taken",
        "work",
    )

    def __init__(self) -> None:
        self.scope = anyio.CancelScope(shield=True)
        self.work = Wakeup()
        self.current: Drainable | None = None
        self.taken = 0
        self.sent = 0  # since the last checkpoint
        self.seen = (0, 0)
        self.since = 0.0
        self.has_moved = False
        self.has_sent = False
        self.released = False  # as its scope's cancel_called, which is slow to read on trio

    def look(self) -> None:
        """Note whether it has moved since the last look, and whether with the same member."""
        before = self.seen
        self.seen = (self.taken, self.current.progress if self.current is not None else 0)
        self.has_moved = self.seen != before
        self.has_sent = self.has_moved and self.taken == before[0]


class Senders:
    """The line of members with something to send, and the tasks that serve it."""

    def __init__(self, tasks: TaskGroup) -> None:
        """Make an empty line, and set the warden to work.

        Args:
            tasks: the task group that the senders and the warden run in. They are shielded
                from its cancellation: ``stop`` ends them.
        """
        self._tasks = tasks
        self._line: deque[Drainable] = deque()
        self._senders: set[_Sender] = set()
        self._idle: list[_Sender] = []
        self._served = 0
        self._work = Wakeup()
        self._warden = anyio.CancelScope(shield=True)
        tasks.start_soon(self._watch)

    def __len__(self) -> int:
        """The number of senders there are."""
        return len(self._senders)

    def submit(self, member: Drainable) -> None:
        """Put a member into the line, unless it is there or in a sender's hands.

        Nobody is woken: call ``wake`` when all are in.
        """
        if not member.in_line:
            member.in_line = True
            self._line.append(member)

    def wake(self) -> None:
        """Set one sender to work, if there is work and a sender to spare."""
        if not self._line:
            return
        self._work.set()
        if self._idle:
            self._idle.pop().work.set()
        elif len(self._senders) < _KEPT:
            self._hire()

    def release(self, member: Drainable) -> None:
        """Cancel the sender that has this member in hand.

        Only for a member whose connection is given up: a cancelled send may leave half a
        message on the wire.
        """
        if isinstance(member.sender, _Sender):
            member.sender.released = True
            member.sender.scope.cancel()

    def stop(self) -> None:
        """End all senders, whatever they are doing, and the warden."""
        self._warden.cancel()
        for sender in self._senders:
            sender.scope.cancel()

    async def _watch(self) -> None:
        """Be the warden.

        It looks at counters, once in a while and only while there is work: no clock and no
        cancel scope is spent on a message.
        """
        with self._warden:
            while True:
                await self._work.wait()
                served = self._served
                await anyio.sleep(_PATIENCE)
                for sender in self._senders:
                    sender.look()
                # A sender whose member has much to take, but takes it, is not stuck: more senders
                # would only make each turn of the loop longer.
                moved = self._served != served or any(each.has_sent for each in self._senders)
                if self._line and not moved:
                    # Twice as many at each look, so that a crowd that stops reading all at once
                    # holds the others up for a few looks, not for one look each.
                    for _ in range(max(1, len(self._senders))):
                        self._put_to_work()
                self._look_for_stalled()
                if self._line or any(sender.current is not None for sender in self._senders):
                    self._work.set()

    def _put_to_work(self) -> None:
        if self._idle:
            self._idle.pop().work.set()
        else:
            self._hire()

    def _hire(self) -> None:
        sender = _Sender()
        self._senders.add(sender)
        self._tasks.start_soon(self._send, sender)

    def _look_for_stalled(self) -> None:
        now = anyio.current_time()
        for sender in tuple(self._senders):
            if sender.has_moved or sender.current is None:
                sender.since = now
                continue
            timeout = sender.current.stall_timeout
            if timeout is not None and now - sender.since >= timeout:
                sender.current.stalled()
                sender.since = now

    async def _send(self, sender: _Sender) -> None:
        """Be a sender: serve the line, then wait for more, until no longer needed."""
        try:
            with sender.scope:
                while True:
                    await self._serve_line(sender)
                    if sender.released or len(self._idle) >= _KEPT:
                        break
                    self._idle.append(sender)
                    await sender.work.wait()
        except anyio.get_cancelled_exc_class():
            # Not from our scope, which swallows its own and is shielded from others. On asyncio, a
            # server's send raises this when it awaits a task that was cancelled. It ends this
            # sender, but must not end the whole group.
            pass
        finally:
            self._senders.discard(sender)

    async def _serve_line(self, sender: _Sender) -> None:
        """Drain the first in line, and put it at the end when it has more; until none is left."""
        line = self._line
        # If released just after its member has taken the message, a sender that went on would be
        # cancelled with the next member in hand, whose connection is not given up.
        while line and not sender.released:
            member = sender.current = line.popleft()
            member.sender = sender
            sender.taken += 1
            before = member.progress
            more = False
            try:
                more = await member.drain()
            finally:
                sender.current = member.sender = None
                member.in_line = more
            if more:
                line.append(member)
            self._served += 1
            sender.sent += member.progress - before
            if sender.sent >= _MESSAGES_PER_CHECKPOINT:
                sender.sent = 0
                await checkpoint()
