"""The supervisor: processes that serve the same sockets, and what to do when one ends.

How processes come and go lives here; what one of them does is worker's business. Used by
serve. For POSIX: the sockets are inherited as file descriptors.
"""

from __future__ import annotations

import logging
import pickle
import signal
import socket
import sys
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Final

import anyio
from anyio import TASK_STATUS_IGNORED

from hubbub._tasks import create_task_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anyio.abc import Process, TaskStatus

    from hubbub.cli.service import Service

__all__ = ("READY", "Supervisor", "WorkerFailed")

_logger = logging.getLogger("hubbub.cli")

READY: Final = b"!"  # what a worker says when peers may connect

_STOP: Final = (signal.SIGINT, signal.SIGTERM)
_FIRST_DELAY: Final = 0.5  # seconds from the end of a process to the next one
_MAX_DELAY: Final = 30.0  # seconds, when one after the other ends before it serves
_KILLING: Final = 1.0  # seconds that a kill may take
_WATCH_PERIOD: Final = 200  # milliseconds; a watch can be cancelled only between two of them


class WorkerFailed(RuntimeError):
    """A worker said that it cannot start; stderr says why."""


class Supervisor:
    """Keeps some workers running."""

    def __init__(
        self,
        service: Service,
        sockets: Sequence[socket.socket],
        count: int,
        *,
        watch: Path | None = None,
    ) -> None:
        """Prepare workers; none is started yet.

        Args:
            service: what they do.
            sockets: what they listen on.
            count: how many there are.
            watch: a directory; when a Python file in it changes, all workers are replaced. A
                worker that cannot start then waits for the next change.
        """
        self._watched = watch
        self._workers = [_Worker(service, sockets, watched=watch is not None) for _ in range(count)]
        self._changed = anyio.Event()

    async def run(self, announce: Callable[[], None]) -> None:
        """Run until SIGINT or SIGTERM; a second one ends this process, and its workers, at once.

        SIGHUP replaces the workers, unless a directory is watched for that.

        Args:
            announce: called when all workers serve; again when they were replaced.

        Raises:
            WorkerFailed: if one that has never served says that it cannot start.
        """
        wanted = _STOP if self._watched else (*_STOP, signal.SIGHUP)
        async with create_task_group() as tasks:
            with anyio.open_signal_receiver(*wanted) as signals:
                tasks.start_soon(self._keep_workers, announce)
                async for number in signals:
                    if number in _STOP:
                        break
                    self._changed.set()
            for number in _STOP:
                signal.signal(number, signal.SIG_DFL)
            tasks.cancel_scope.cancel()

    async def _keep_workers(self, announce: Callable[[], None]) -> None:
        async with create_task_group() as tasks:
            if self._watched is not None:
                tasks.start_soon(self._watch, self._watched)
            first, *others = self._workers
            await tasks.start(first.keep)  # alone: what keeps all from starting is said once
            async with create_task_group() as starting:
                for worker in others:
                    starting.start_soon(tasks.start, worker.keep)
            while True:
                if all(worker.serves for worker in self._workers):
                    announce()
                await self._changed.wait()
                self._changed = anyio.Event()
                await self._replace_workers()

    async def _replace_workers(self) -> None:
        _logger.info("Replacing the workers")
        for worker in self._workers:
            if not await worker.replace():
                _logger.error("The new worker does not serve: no other one is replaced")
                break

    async def _watch(self, directory: Path) -> None:
        from watchfiles import PythonFilter, awatch

        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it would log changes, too
        async for changes in awatch(
            directory, watch_filter=PythonFilter(), rust_timeout=_WATCH_PERIOD
        ):
            _logger.info("Changed: %s", ", ".join(sorted({path for _, path in changes})))
            self._changed.set()


class _Worker:
    """A place for a process that serves: when it ends by itself, there will be another one.

    Attributes:
        serves: whether peers may connect to the process that was started last.
    """

    def __init__(
        self, service: Service, sockets: Sequence[socket.socket], *, watched: bool
    ) -> None:
        self.serves = False
        self._service = service
        self._descriptors = [sock.fileno() for sock in sockets]
        self._watched = watched
        self._started = False
        self._settled = anyio.Event()  # set when it is known whether it serves

    async def keep(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Run one process after the other; has started when one of them serves.

        Raises:
            WorkerFailed: if the first one says that it cannot start.
        """
        delay = _FIRST_DELAY
        while True:
            with anyio.CancelScope() as self._life:  # `replace` cancels it
                pid, status = await self._run_process(task_status)
                if self.serves:
                    delay = _FIRST_DELAY
                elif self._watched:
                    _logger.error("Waiting for a change")
                    await anyio.sleep_forever()
                elif status > 0 and not self._started:
                    raise WorkerFailed("a worker cannot start")
                _logger.error(
                    "Worker %d ended (%s): another one in %.1f s", pid, _tell(status), delay
                )
                await anyio.sleep(delay)
                delay = min(2 * delay, _MAX_DELAY)

    async def replace(self) -> bool:
        """End the process, and start another one; tell whether that serves."""
        self._settled = anyio.Event()
        self._life.cancel()
        await self._settled.wait()
        return self.serves

    async def _run_process(self, task_status: TaskStatus[None]) -> tuple[int, int]:
        """Run a process, and return its id and exit status; end it when cancelled."""
        self.serves = False
        link, theirs = socket.socketpair()
        with link:
            with theirs:
                link.sendall(pickle.dumps((self._service, self._descriptors)))
                process = await anyio.open_process(
                    # -P: what is in the current directory must not be taken for the library
                    [sys.executable, "-P", "-m", "hubbub.cli.worker", str(theirs.fileno())],
                    stdin=DEVNULL,
                    stdout=None,
                    stderr=None,
                    pass_fds=[theirs.fileno(), *self._descriptors],
                    start_new_session=True,  # a Ctrl-C is for the supervisor alone
                )
            try:
                self.serves = await _hear_ready(link)
                self._settled.set()
                if not self._started and (self.serves or self._watched):
                    self._started = True
                    task_status.started()
                return process.pid, await process.wait()
            finally:
                await self._end(process)

    async def _end(self, process: Process) -> None:
        """Let a process end by itself; or end it."""
        if process.returncode is None:
            process.terminate()
            with anyio.move_on_after(self._service.patience, shield=True):
                await process.wait()
        if process.returncode is None:
            process.kill()
            with anyio.move_on_after(_KILLING, shield=True):
                await process.wait()


async def _hear_ready(link: socket.socket) -> bool:
    await anyio.wait_readable(link)
    try:
        return link.recv(len(READY)) == READY
    except ConnectionResetError:  # it ended before it had read what to do
        return False


def _tell(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
