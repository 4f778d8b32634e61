"""Senders: a few tasks that drain many outboxes, so that one stuck peer holds up nobody.

A writer task per member would be woken for each message; here whoever has something to send
stands in one line, and a few senders walk it. A member is in one sender's hands at a time,
so its order holds. A sender whose peer does not read is stuck, and only that one: a warden
that sees the line not moving puts another sender to work. No rooms and no policy live here.
Used by the hub.
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
# Seconds that the line may stand still. No part of the tenth of a second after which anyio's
# wait_all_tasks_blocked looks again on asyncio, or it would come upon the warden every time.
_PATIENCE = 0.023
_MESSAGES_PER_CHECKPOINT = 32  # of each sender: many a server's send never yields


class Drainable(Protocol):
    """Something with messages to send, which one sender at a time may drain."""

    in_line: bool
    """Kept by the senders: whether it waits in the line or is in a sender's hands."""
    sender: object
    """Kept by the senders: the one that has it in hand, or None."""
    progress: int
    """Changes with each message that was sent."""
    stall_timeout: float | None
    """Seconds without progress, while being drained, after which it is stalled."""

    async def drain(self) -> bool:
        """Send some of what waits; True when there is more. Must not raise for the peer."""
        ...

    def stalled(self) -> None:
        """Called by the warden when ``stall_timeout`` has passed."""
        ...


class _Sender:
    """One task at work: whom it has in hand, and since when nothing has moved."""

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
        self.released = False  # what its scope knows, too, and takes its time to say on trio

    def look(self) -> None:
        """See whether it did anything since the last look, and to whom it has in hand."""
        before = self.seen
        self.seen = (self.taken, self.current.progress if self.current is not None else 0)
        self.has_moved = self.seen != before
        self.has_sent = self.has_moved and self.taken == before[0]


class Senders:
    """The line of those with something to send, and the tasks that walk it."""

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

        Only for a member whose connection is given up: what a cancelled send leaves on the
        wire is no whole message.
        """
        if isinstance(member.sender, _Sender):
            member.sender.released = True
            member.sender.scope.cancel()

    def stop(self) -> None:
        """End all senders, whatever they are at, and the warden."""
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
                # Whoever has in hand a member that takes much, but takes it, is not stuck: more
                # senders would only make each turn of the loop longer.
                moved = self._served != served or any(each.has_sent for each in self._senders)
                if self._line and not moved:
                    # Twice as many at each look, so that a crowd that stops reading at once
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
        """Be a sender: walk the line, then wait for more, until no longer needed."""
        try:
            with sender.scope:
                while True:
                    await self._walk(sender)
                    if sender.released or len(self._idle) >= _KEPT:
                        break
                    self._idle.append(sender)
                    await sender.work.wait()
        finally:
            self._senders.discard(sender)

    async def _walk(self, sender: _Sender) -> None:
        """Drain who is first in line, and put it at the end when it has more, until none is."""
        line = self._line
        # Released in the turn in which its member had just taken the message, it would be
        # cancelled in the hands of the next, whose connection is not given up.
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
