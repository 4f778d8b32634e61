"""Leaks: what a test has begun, and left behind.

It looks, and says what it sees; what comes of that is decided elsewhere. Called by the plugin
for pytest.
"""

from __future__ import annotations

import inspect
import os
import socket
import stat
from contextlib import ExitStack, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hubbub.member import Member
from hubbub.room import Room
from hubbub.testing.streams import MemoryStream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import CodeType, FrameType, TracebackType

    from anyio import TaskInfo

__all__ = ("Leaks",)

_STREAMS: Final = (MemoryStream, MemoryObjectReceiveStream, MemoryObjectSendStream)
_KEPT: Final[dict[str, tuple[Any, ...]]] = {
    "members": (Member,),
    "rooms": (Room,),
    "sockets": (socket.socket,),
    "streams": _STREAMS,
}
_TURNS: Final = 50  # for what was told to end, and has not had its turn yet
_TURN: Final = 0.01  # seconds
_OPEN_FILES: Final = "/dev/fd"
_NOBODYS: Final = {  # packages whose code makes things on behalf of others
    *("anyio", "asyncio", "concurrent", "contextlib", "hubbub", "hubbub_pytest", "outcome"),
    *("socket", "ssl", "threading", "trio"),
}
_RUNNERS: Final = {"_pytest", "pluggy"}


class Leaks:
    """Watches the block that it is entered with, in the task of a test and its fixtures.

    What is made in the block is kept alive until its end: otherwise, what was dropped and never
    closed could be garbage-collected before it is seen.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        """Make a watch.

        Args:
            allowed: what may be left: ``tasks``, ``members``, ``rooms``, ``sockets``,
                ``streams``.

        Raises:
            ValueError: if there is no such kind.
        """
        kinds = {"tasks", *_KEPT}
        if unknown := set(allowed) - kinds:
            raise ValueError(f"Expected some of {sorted(kinds)}, got {sorted(unknown)}")
        self._kinds = kinds - set(allowed)
        self._patches = ExitStack()
        self._made: list[tuple[Any, str]] = []
        # By their coroutines, which are kept here: the id of a task that has ended is reused.
        self._tasks_before: dict[int, TaskInfo] = {}
        self._sockets_before: frozenset[tuple[int, int]] = frozenset()

    def __enter__(self) -> Self:
        self._tasks_before = {id(task.coro): task for task in anyio.get_running_tasks()}
        self._sockets_before = _open_sockets()
        for made in (made for kind in self._kinds for made in _KEPT.get(kind, ())):
            self._patches.callback(setattr, made, "__init__", made.__init__)
            made.__init__ = self._keeping(made.__init__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._patches.close()
        self._made.clear()

    async def find(self) -> list[str]:
        """Tell what is left: what each thing is, and where it comes from."""
        for _ in range(_TURNS):
            if not self._look():
                break
            await anyio.sleep(_TURN)
        return self._look()

    def _look(self) -> list[str]:
        looks = {
            "tasks": self._tasks_left,
            "members": self._members_left,
            "rooms": self._rooms_left,
            "sockets": self._sockets_left,
            "streams": self._streams_left,
        }
        return [leak for kind, look in looks.items() if kind in self._kinds for leak in look()]

    def _keeping(self, init: Callable[..., None]) -> Callable[..., None]:
        @wraps(init)
        def init_and_keep(made: object, *args: Any, **kwargs: Any) -> None:
            init(made, *args, **kwargs)
            self._made.append((made, _origin()))

        return init_and_keep

    def _made_of(self, *kinds: type) -> Iterator[tuple[Any, str]]:
        return ((made, origin) for made, origin in self._made if isinstance(made, kinds))

    # -- What is left ----------------------------------------------------------------------

    def _tasks_left(self) -> Iterator[str]:
        before, now = self._tasks_before, {task.id: task for task in anyio.get_running_tasks()}
        own = anyio.get_current_task().coro
        roots = {_code(task) for task in before.values() if task.parent_id is None}
        for task in now.values():
            # Its nearest ancestor that was there before tells whose it is.
            ancestor: TaskInfo | None = task
            while ancestor is not None and id(ancestor.coro) not in before:
                ancestor = now.get(ancestor.parent_id or -1)
            if ancestor is None:
                is_left = _code(task) not in roots  # those are the ways into the loop
            else:
                is_left = ancestor.coro is own and ancestor is not task
            if is_left:
                yield f"task {task.name!r}, which waits at {_whereabouts(task)}"

    def _members_left(self) -> Iterator[str]:
        for member, origin in self._made_of(Member):
            if not member.is_over:
                yield f"{member!r}{origin}"

    def _rooms_left(self) -> Iterator[str]:
        for room, origin in self._made_of(Room):
            if room:
                yield f"{room!r}{origin}"

    def _sockets_left(self) -> Iterator[str]:
        # The kernel knows more of them than Python does: those of uvloop, too.
        origins = {made.fileno(): origin for made, origin in self._made_of(socket.socket)}
        for file, _ in sorted(_open_sockets() - self._sockets_before):
            with suppress(OSError):  # closed at this moment, by another thread
                addresses, origin = _addresses(file), origins.get(file, "")
                if any(addresses) or origin:  # not the pair that a loop wakes itself with
                    yield f"socket {' to '.join(addresses)}{origin}"

    def _streams_left(self) -> Iterator[str]:
        for stream, origin in self._made_of(*_STREAMS):
            if _is_open(stream):
                yield f"stream {type(stream).__name__}{origin}"


def _is_open(stream: Any) -> bool:
    if isinstance(stream, MemoryStream):
        return not stream.closed
    try:
        stream.clone().close()
    except anyio.ClosedResourceError:
        return False
    return True


def _open_sockets() -> frozenset[tuple[int, int]]:
    """The sockets of this process, if the system lists them: numbers (which recur) and inodes."""
    found = set()
    files = os.listdir(_OPEN_FILES) if os.path.isdir(_OPEN_FILES) else []
    for file in map(int, files):
        with suppress(OSError):  # that of the listing itself
            status = os.fstat(file)
            if stat.S_ISSOCK(status.st_mode):
                found.add((file, status.st_ino))
    return frozenset(found)


def _addresses(file: int) -> list[str]:
    with socket.socket(fileno=os.dup(file)) as sock:
        addresses = [sock.getsockname()]
        with suppress(OSError):  # not connected
            addresses.append(sock.getpeername())
    return [
        f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
        for address in addresses
    ]


def _origin() -> str:
    """Where in the code of a test, or of an application, something is being made."""
    frame = inspect.currentframe()
    while frame is not None:
        package = _package(frame)
        if package in _RUNNERS:
            break
        if package not in _NOBODYS:
            return f", made at {_place(frame)}"
        frame = frame.f_back
    return ""


def _whereabouts(task: TaskInfo) -> str:
    """Where a task waits: the innermost place that is in nobody else's code."""
    places: list[str] = []
    coro: Any = task.coro
    while (frame := getattr(coro, "cr_frame", None)) is not None:
        if _package(frame) not in _NOBODYS or not places:
            places.append(_place(frame))
        coro = coro.cr_await
    return places[-1]


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"


def _code(task: TaskInfo) -> CodeType | None:
    return getattr(task.coro, "cr_code", None)
