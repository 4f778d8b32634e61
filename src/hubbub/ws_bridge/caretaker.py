"""Caretaker: the tasks that a server has besides its connections, and one clock for them all.

One sweeper compares counters, so that no connection needs a timer; one flusher sends what was
corked; and a task is started for a connection in need. When a deadline has passed is decided
here; what a connection does then is its own business. Made by server, and by a client for its
one connection.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from hubbub._wakeup import Wakeup
from hubbub.ws_bridge.connection import Connection, Phase, is_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from hubbub.ws_bridge.config import Config
    from hubbub.ws_bridge.writer import Writer

__all__ = ("Caretaker",)

_logger = logging.getLogger("hubbub.ws_bridge")

_MAX_PERIOD: Final = 1.0  # seconds between two looks at a connection
_LOOKS_PER_TIMEOUT: Final = 4  # so that a deadline is kept to a quarter of its length
_WATCHES_PER_CHECKPOINT: Final = 256
_PING_UNANSWERED: Final = (1011, "keepalive ping timeout")


class Caretaker:
    """Looks after the connections of one server, or of one client.

    Attributes:
        config: their limits.
    """

    def __init__(self, config: Config, tasks: TaskGroup) -> None:
        """Set the sweeper and the flusher to work.

        Args:
            config: the limits of the connections.
            tasks: runs them, and what is started for connections; its owner cancels it.
        """
        self.config = config
        self._tasks = tasks
        self._watches: dict[Connection, _Watch] = {}
        self._dirty: list[Writer] = []
        self._wakeup = Wakeup()
        self._emptied = anyio.Event()
        self._farewell: tuple[int, str] | None = None  # once the server shuts down
        tasks.start_soon(self._sweep)
        tasks.start_soon(self._flush)

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._watches)

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start a task for a connection; its failure harms no other one."""
        self._tasks.start_soon(_guard, task)

    def mark(self, writer: Writer) -> None:
        """Have a writer flushed within this turn of the loop."""
        self._dirty.append(writer)
        self._wakeup.set()

    def admit(self, connection: Connection) -> float:
        """Look after a connection from now on; return the time, by the loop's clock."""
        now = anyio.current_time()
        self._watches[connection] = _Watch(connection, now)
        if self._farewell is not None:  # its TLS handshake took so long
            connection.shut_down(*self._farewell)
        return now

    def forget(self, connection: Connection) -> None:
        """Look after it no longer."""
        del self._watches[connection]
        if not self._watches:
            self._emptied.set()

    async def shut_down(self, code: int, reason: str) -> None:
        """Begin to close all connections, and wait until they are gone."""
        self._farewell = code, reason
        for connection in tuple(self._watches):
            connection.shut_down(code, reason)
        while self._watches:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    async def _flush(self) -> None:
        while True:
            self._flush_dirty()
            await self._wakeup.wait()

    def _flush_dirty(self) -> None:
        # A function of its own: none of its variables keeps a writer until the next time.
        dirty, self._dirty = self._dirty, []
        for writer in dirty:
            writer.flush()

    async def _sweep(self) -> None:
        config = self.config
        timeouts = (
            config.handshake_timeout,
            config.close_timeout,
            config.ping_interval,
            config.ping_timeout,
            config.write_timeout,
            config.grace_timeout,
        )
        shortest = min((timeout for timeout in timeouts if timeout is not None), default=1.0)
        period = min(shortest / _LOOKS_PER_TIMEOUT, _MAX_PERIOD)
        while True:
            await anyio.sleep(period)
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        # A function of its own, so that no variable keeps a connection until the next look.
        now = anyio.current_time()
        for number, watch in enumerate(tuple(self._watches.values()), 1):
            watch.look(self.config, now)
            if not number % _WATCHES_PER_CHECKPOINT:
                await checkpoint()


class _Watch:
    """What was last seen of a connection, and when it last did what it should."""

    __slots__ = (
        "_connection",
        "_heard",
        "_phase",
        "_pinged",
        "_received",
        "_receives",
        "_sent",
        "_since",
        "_written",
    )

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection = connection
        self._phase = connection.phase
        self._since = now  # when it came into that phase
        self._received = self._sent = 0
        self._receives = -1
        self._heard = self._written = now
        self._pinged = False

    def look(self, config: Config, now: float) -> None:
        """Compare with the last look; do what is due."""
        connection = self._connection
        phase = connection.phase
        if phase is not self._phase:
            self._phase, self._since = phase, now
            self._heard = now
        self._look_at_writer(config, now)
        if phase is Phase.OPEN:
            self._look_for_life(config, now)
        else:
            connection.meet_deadline(now - self._since)
        if not connection.reading and connection.receives == self._receives:
            connection.send_stand_in()
        self._receives = connection.receives

    def _look_at_writer(self, config: Config, now: float) -> None:
        writer = self._connection.writer
        if writer.sent != self._sent or not writer.unsent:
            self._sent, self._written = writer.sent, now
        elif is_over(now - self._written, config.write_timeout):
            self._connection.give_up()

    def _look_for_life(self, config: Config, now: float) -> None:
        connection = self._connection
        # While we do not read, no pong is seen. But a peer that is gone breaks our writes.
        if not connection.reading and connection.writer.broken:
            connection.drop()
        elif connection.received != self._received or (self._pinged and not connection.reading):
            self._received, self._heard, self._pinged = connection.received, now, False
        elif self._pinged:
            if is_over(now - self._heard, config.ping_timeout):
                connection.lose(*_PING_UNANSWERED)
        elif is_over(now - self._heard, config.ping_interval):
            connection.ping()
            self._heard, self._pinged = now, True


async def _guard(task: Callable[[], Awaitable[None]]) -> None:
    try:
        await task()
    except Exception:  # our failure with one peer must not harm the others
        _logger.exception("A task of a connection failed")
