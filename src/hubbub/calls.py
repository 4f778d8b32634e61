"""Calls: requests to a peer, each of which waits for the answer that carries its id.

Ids, who waits for which, and the end of all waiting. It knows no connection: it is given a
function that sends, and is shown the answers. Made by a router's session, used by WebSocket.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import msgspec
from anyio.lowlevel import checkpoint_if_cancelled

from hubbub.codecs.envelope import ERROR, REPLY
from hubbub.codecs.payload import PayloadType
from hubbub.exceptions import DecodeError, RouterError, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from hubbub.codecs.envelope import Codec, Envelope
    from hubbub.types import Data

__all__ = ("CALL_TIMEOUT", "Calls", "NoAnswer")

T = TypeVar("T")

CALL_TIMEOUT: Final = 30.0  # seconds
_MAX_REPLIES: Final = 16  # to one call, not yet taken


class NoAnswer(RouterError, TimeoutError):
    """The peer has not answered a request in time.

    If a handler lets it propagate, the handler's own message is answered with ``timeout``.
    """

    def __init__(self, type: str) -> None:
        super().__init__("timeout", f"Expected an answer to {type!r} in time")


class _Error(msgspec.Struct):
    code: str
    message: str = ""
    details: list[Any] = []


_ANYTHING: Final = PayloadType(Any)
_ERROR: Final = PayloadType(_Error)


class _Call:
    """A request, and those of its answers that nobody has taken yet."""

    __slots__ = ("answers", "message", "news", "overflowed", "streams", "type")

    def __init__(self, type: str, message: Data, *, streams: bool) -> None:
        self.type = type
        self.message = message
        self.streams = streams
        self.answers: deque[Envelope] = deque()
        self.overflowed = False
        self.news = anyio.Event()  # set when there is an answer, or none will come


class Calls:
    """The requests on one connection that wait for their answers.

    Attributes:
        needy: those that somebody waits for, and that have no answer: while there are any, the
            peer has to be read.
        full: those with as many untaken replies as there may be.
    """

    __slots__ = ("_codec", "_end", "_ids", "_on_change", "_send", "_waiting", "full", "needy")

    def __init__(
        self,
        send: Callable[[Data], Awaitable[None]],
        codec: Codec,
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Make calls possible.

        Args:
            send: sends a message to the peer; raises ``WebSocketDisconnect`` when it is gone.
            codec: the form of the envelopes.
            on_change: called when a call has become needy, or is no longer full.
        """
        self._send = send
        self._codec = codec
        self._on_change = on_change
        self._ids = count(1)
        self._waiting: dict[object, _Call] = {}  # by their ids
        self.needy: set[_Call] = set()
        self.full: set[_Call] = set()
        self._end: tuple[int, str] | None = None

    async def request(self, type: str, payload: Any, *, timeout: float | None) -> Any:
        """Ask the peer, and wait for its answer.

        Returns:
            The payload of its reply; of several, the first one's.

        Raises:
            DecodeError: if the answer's payload cannot be decoded.
            NoAnswer: if there is none in time; a ``TimeoutError``.
            RouterError: if the answer is an error.
            TypeError: if the payload cannot be encoded.
            WebSocketDisconnect: if the connection is over, or ends before there is one.
        """
        with self._begin(type, payload) as call:
            return self.open(await self._wait(call, timeout, self._exchange(call)))

    @asynccontextmanager
    async def stream(
        self, type: str, payload: Any, *, timeout: float | None
    ) -> AsyncGenerator[AsyncIterator[Any]]:
        """Ask the peer, and let a block take its replies one by one.

        Yields:
            Their payloads. Each step raises what ``request`` does, and a ``RouterError``
            ``too_busy`` when replies were lost because nobody took them.
        """
        with self._begin(type, payload, streams=True) as call:
            try:
                await self._wait(call, timeout, self._send(call.message))
                yield _Replies(self, call, timeout)
            finally:
                self._make_room(call)

    def settle(self, envelope: Envelope) -> bool:
        """Give an answer to the call that waits for it; False if none does."""
        call = self._waiting.get(envelope.id)
        if call is None or envelope.type not in (call.type + REPLY, ERROR):
            return False
        if envelope.more and call in self.full:
            call.overflowed = True
        else:
            call.answers.append(envelope)
            if len(call.answers) == _MAX_REPLIES:
                self.full.add(call)
        if call.overflowed or not (call.streams and envelope.more):
            del self._waiting[envelope.id]
        self.needy.discard(call)  # at once, because more may be read before its task runs
        call.news.set()
        return True

    def end(self, code: int, reason: str) -> None:
        """Fail all calls that wait, and all later ones, with ``WebSocketDisconnect``."""
        self._end = (code, reason)
        for call in self._waiting.values():
            call.news.set()

    @contextmanager
    def _begin(self, type: str, payload: Any, *, streams: bool = False) -> Iterator[_Call]:
        if self._end is not None:
            raise WebSocketDisconnect(*self._end)
        id = f"call-{next(self._ids)}"
        call = _Call(type, self._codec.encode(type, payload, id), streams=streams)
        self._waiting[id] = call
        try:
            yield call
        finally:
            self._waiting.pop(id, None)

    async def _wait(self, call: _Call, timeout: float | None, step: Awaitable[T]) -> T:
        """Await a step that needs the peer, which is read meanwhile; ``timeout`` s at most."""
        self._need(call)
        try:
            with anyio.move_on_after(timeout):
                return await step
        finally:
            self.needy.discard(call)
        raise NoAnswer(call.type)

    def _need(self, call: _Call) -> None:
        self.needy.add(call)
        self._on_change()

    def _make_room(self, call: _Call) -> None:
        if call in self.full:
            self.full.remove(call)
            self._on_change()

    async def _exchange(self, call: _Call) -> Envelope:
        await self._send(call.message)
        return await self._take(call)

    async def _take(self, call: _Call) -> Envelope:
        """Take an answer, or wait for one."""
        while not call.answers:
            if call.overflowed:
                raise RouterError("too_busy", f"Expected replies to {call.type!r} to be taken")
            if self._end is not None:
                raise WebSocketDisconnect(*self._end)
            if call.news.is_set():  # by answers that have been taken
                call.news = anyio.Event()
                self._need(call)
            await call.news.wait()
        return call.answers.popleft()

    async def next_reply(self, call: _Call, timeout: float | None) -> Envelope:
        """Take a reply to a call that streams, for ``_Replies``."""
        if not call.answers:
            return await self._wait(call, timeout, self._take(call))
        await checkpoint_if_cancelled()
        answer = call.answers.popleft()
        self._make_room(call)
        return answer

    def open(self, answer: Envelope) -> Any:
        """Decode an answer's payload; raise it if it is an error."""
        is_error = answer.type == ERROR
        try:
            payload = self._codec.decode_payload(answer, _ERROR if is_error else _ANYTHING)
        except RouterError as error:
            raise DecodeError(f"Expected an answer that can be decoded: {error}") from error
        if is_error:
            raise RouterError(payload.code, payload.message, payload.details)
        return payload


class _Replies:
    """Iterates over the replies to a call.

    Not an async generator: one that a ``break`` leaves behind is finalised by the garbage
    collector, and trio warns about that.
    """

    def __init__(self, calls: Calls, call: _Call, timeout: float | None) -> None:
        self._calls = calls
        self._call = call
        self._timeout = timeout
        self._more = True

    def __aiter__(self) -> _Replies:
        return self

    async def __anext__(self) -> Any:
        if not self._more:
            raise StopAsyncIteration
        answer = await self._calls.next_reply(self._call, self._timeout)
        self._more = answer.more
        payload = self._calls.open(answer)
        if payload is None and not self._more:
            raise StopAsyncIteration
        return payload
