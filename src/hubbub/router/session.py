"""Session: one connection's messages, from the wire to the handlers, and the answers back.

The only loop that reads the connection; it never runs a handler itself. What has been read and
is not done is bounded by ``limit``:

    read ─> decode ─> route ─> validate ─> lane ─> handler ─> reply
                 └─ answers ─> Calls        └─ bound reached: read no further

A lane is a line of messages of which one is handled at a time, by a task of the lane's.
``ordered`` messages share one lane, ``keyed`` ones have one for each key that there is, and a
``concurrent`` one has a task of its own. At the bound the loop stops reading, unless a handler waits for an answer of
this very peer: that answer has to be read, so what comes before it is refused as ``too_busy``.
Registration and the connection's beginning are not here. Made by Router.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import anyio

from hubbub._tasks import create_task_group
from hubbub.calls import Calls
from hubbub.close_codes import ABNORMAL
from hubbub.codecs.envelope import CODECS, JSON, REPLY, NoEnvelope
from hubbub.exceptions import RouterError, WebSocketDisconnect, is_disconnect
from hubbub.router.limits import TokenBuckets
from hubbub.router.routes import Context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping

    from anyio.abc import TaskGroup

    from hubbub.codecs.envelope import Envelope, Id
    from hubbub.member import Member
    from hubbub.router.connection import Connection
    from hubbub.router.limits import RateLimit
    from hubbub.router.routes import Route
    from hubbub.types import Data

    _Job: TypeAlias = Callable[[], Awaitable[None]]

__all__ = ("Limits", "Session")

A = TypeVar("A")
T = TypeVar("T")

_logger = logging.getLogger("hubbub")
_POLICY_VIOLATION: Final = 1008  # RFC 6455 §7.4.1
_ORDERED: Final = ("ordered",)  # the lane of all messages in that mode
_INTERNAL: Final = RouterError("internal", "This could not be handled")
_NOT_THE_PEERS_FAULT: Final = frozenset({"too_busy", "internal"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask of a router: see ``Router``."""

    running: int
    refuse_when_busy: bool
    bad_messages: int | None
    rate: RateLimit | None
    grace: float


class Session:
    """One connection that a router serves, from its first message to its last handler."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        limits: Limits,
        connection: Connection,
        member: Member | None,
    ) -> None:
        self._routes = routes
        self._limits = limits
        self._connection = connection
        self._member = member
        # A member's replies stand in order with what is broadcast to it.
        self._send = connection.send if member is None else member.send
        self._codec = CODECS.get(connection.accepted_subprotocol or "", JSON)
        self._calls = connection.calls = Calls(self._send, self._codec, on_wait=self._notify)
        self._buckets = TokenBuckets(limits.rate) if limits.rate is not None else None
        self._lanes: dict[Hashable, deque[_Job]] = {}
        self._running = 0  # messages that were read and are not done
        self._bad = 0  # messages in a row
        self._change = anyio.Event()  # set when a message is done, or a call begins to wait
        self._wakeup = anyio.Event()  # set when the ordered lane is no longer empty
        self._tasks: TaskGroup

    async def run(self) -> None:
        """Serve until the connection ends, and its handlers have ended or been cancelled."""
        async with create_task_group() as self._tasks:
            try:
                await self._read()
            finally:
                code, reason = self._connection.close_code, self._connection.close_reason
                self._calls.end(ABNORMAL if code is None else code, reason or "")
            with anyio.move_on_after(self._limits.grace):
                while self._running:
                    await self._changed()
            self._tasks.cancel_scope.cancel()

    async def _read(self) -> None:
        async for data in self._connection.iter_messages():
            refusal = self._take(data)
            if refusal is not None:
                await self._refuse(*refusal)
            while self._is_full() and not self._limits.refuse_when_busy and not self._calls:
                await self._changed()

    def _take(self, data: Data) -> tuple[RouterError, Id] | None:
        """Put a message where it belongs, or say why not."""
        in_time = self._buckets is None or self._buckets.take(len(data))
        try:
            envelope = self._codec.decode(data)
        except NoEnvelope as error:
            return error, error.id
        try:
            self._route(envelope, in_time=in_time)
        except RouterError as error:
            return error, envelope.id
        except Exception:  # of the application: a validator's, a key's
            _logger.exception("Validating a message of type %r failed", envelope.type)
            return _INTERNAL, envelope.id
        return None

    def _route(self, envelope: Envelope, *, in_time: bool) -> None:
        route = self._routes.get(envelope.type)
        if route is None and envelope.is_answer and self._calls.settle(envelope):
            self._bad = 0
        elif not in_time:
            raise RouterError("rate_limited", "Expected fewer messages in this time")
        elif route is not None:
            self._enter_lane(route, envelope)
            self._bad = 0
        elif not envelope.is_answer:  # one that nobody waits for any more is no fault
            raise RouterError("unknown_type", f"There is no type {envelope.type!r}")

    def _enter_lane(self, route: Route, envelope: Envelope) -> None:
        if self._is_full():
            raise RouterError("too_busy", f"Expected at most {self._limits.running} at a time")
        context = Context(self._connection, self._member, envelope)
        if route.signature.payload is not None:
            context.payload = self._codec.decode_payload(envelope, route.signature.payload)
        job = partial(self._handle, route, context)
        if route.mode == "ordered":
            self._line_up(_ORDERED, job)
        elif route.key is not None:
            self._line_up(("keyed", route.key(context.payload)), job)
        else:
            self._running += 1
            self._tasks.start_soon(self._do, job)

    def _line_up(self, key: Hashable, job: _Job) -> None:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = deque()
            self._tasks.start_soon(self._work, key, lane)
        elif not lane:
            self._wakeup.set()
        lane.append(job)
        self._running += 1

    async def _work(self, key: Hashable, lane: deque[_Job]) -> None:
        while True:
            while lane:
                await self._do(lane[0])
                lane.popleft()
            if key is not _ORDERED:
                break
            # The lane of most messages: to wait for the next costs half of a new task.
            self._wakeup = anyio.Event()
            await self._wakeup.wait()
        del self._lanes[key]

    async def _do(self, job: _Job) -> None:
        await job()
        self._running -= 1
        self._change.set()

    def _is_full(self) -> bool:
        return self._running >= self._limits.running

    def _notify(self) -> None:
        self._change.set()

    async def _changed(self) -> None:
        self._change = anyio.Event()
        await self._change.wait()

    # -- Handling -----------------------------------------------------------------------

    async def _handle(self, route: Route, context: Context) -> None:
        id = context.envelope.id
        try:
            result = await _within(route.timeout, route.call, context)
            if isinstance(result, AsyncGeneratorType):
                await self._stream(route, id, result)
            elif result is not None or id is not None:
                await self._transmit(self._codec.encode(route.type + REPLY, result, id))
        except RouterError as error:
            await self._answer_error(error, id)
        except Exception as error:
            if self._is_over() and is_disconnect(error):
                return  # a handler may let it pass
            _logger.exception("The handler of %r failed", route.type)
            await self._answer_error(_INTERNAL, id)

    async def _stream(self, route: Route, id: Id, replies: AsyncGenerator[Any, Any]) -> None:
        type = route.type + REPLY
        async with aclosing(replies):
            while not self._is_over():
                try:
                    reply = await _within(route.timeout, anext, replies)
                except StopAsyncIteration:
                    break
                await self._transmit(self._codec.encode(type, reply, id, more=id is not None))
        if id is not None:
            await self._transmit(self._codec.encode(type, None, id))

    # -- Answering ----------------------------------------------------------------------

    async def _refuse(self, error: RouterError, id: Id) -> None:
        if self._lanes.get(_ORDERED) and not self._is_full():
            self._line_up(_ORDERED, partial(self._answer_error, error, id))  # in its turn
        else:
            await self._answer_error(error, id)
        if error.code in _NOT_THE_PEERS_FAULT:
            return
        self._bad += 1
        if self._limits.bad_messages is not None and self._bad >= self._limits.bad_messages:
            await self._connection.close(_POLICY_VIOLATION, "too many bad messages")

    async def _answer_error(self, error: RouterError, id: Id) -> None:
        try:
            message = self._codec.encode_error(error, id)
        except (TypeError, ValueError):  # of the details, which are the application's
            _logger.exception("The error %r cannot be sent", error.code)
            message = self._codec.encode_error(_INTERNAL, id)
        await self._transmit(message)

    async def _transmit(self, message: Data) -> None:
        """Send an answer; the end of the connection is the reader's business."""
        if self._is_over():
            return
        try:
            await self._send(message)
        except WebSocketDisconnect:
            pass
        except RuntimeError:  # closed by another handler, while this one waited for its turn
            if not self._is_over():
                raise

    def _is_over(self) -> bool:
        return self._connection.close_code is not None


async def _within(timeout: float | None, call: Callable[[A], Awaitable[T]], argument: A) -> T:
    """Await a call, or raise ``RouterError`` when it takes longer than that."""
    if timeout is None:  # a scope costs as much as all the rest of a message
        return await call(argument)
    with anyio.move_on_after(timeout):
        return await call(argument)
    raise RouterError("timeout", f"Expected to be done in {timeout:g} s")
