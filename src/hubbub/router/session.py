"""Session: one connection's messages, from the wire to the handlers, and the answers back.

The only loop that reads the connection; it never runs a handler itself. What has been read and
is not done is bounded:

    read ─> decode ─> route ─> validate ─> lane ─> handler ─> reply
                 └─ answers ─> Calls        └─ bound reached: read no further

``ordered`` messages share one lane, ``keyed`` ones have one for each key that there is, and a
``concurrent`` one has its own. At the bound, and when the peer's replies are not taken, the loop
stops reading, unless somebody waits for an answer of this very peer: that has to be read, so
messages before it are refused as ``too_busy``. Registration and the connection's beginning are
not here. Made by Router.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass
from math import inf
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final

import anyio

from hubbub._tasks import create_task_group
from hubbub.calls import Calls
from hubbub.close_codes import ABNORMAL
from hubbub.codecs.envelope import CODECS, JSON, REPLY, NoEnvelope
from hubbub.exceptions import RouterError, WebSocketDisconnect, is_disconnect
from hubbub.router.lanes import ORDERED, Lanes
from hubbub.router.limits import TokenBuckets
from hubbub.router.routes import Context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from anyio.abc import TaskStatus

    from hubbub.codecs.envelope import Envelope, Id
    from hubbub.member import Member
    from hubbub.router.connection import Connection
    from hubbub.router.lanes import Lane
    from hubbub.router.limits import RateLimit
    from hubbub.router.routes import Route
    from hubbub.types import Data

__all__ = ("Limits", "Session")

_logger = logging.getLogger("hubbub")
_POLICY_VIOLATION: Final = 1008  # RFC 6455 §7.4.1
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
        self.codec = CODECS.get(connection.accepted_subprotocol or "", JSON)
        self._routes = routes
        self._limits = limits
        self._connection = connection
        self._member = member
        # A member's replies stand in order with what is broadcast to it.
        self._send = connection.send if member is None else member.send
        self._buckets = TokenBuckets(limits.rate) if limits.rate is not None else None
        self._bad = 0  # messages in a row
        self._calls: Calls
        self._lanes: Lanes

    async def run(self, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until the connection ends, and its handlers have ended or been cancelled."""
        timeouts = (route.timeout for route in self._routes.values())
        shortest = min((each for each in timeouts if each is not None), default=None)
        async with create_task_group() as tasks:
            lanes = self._lanes = Lanes(tasks, shortest)
            calls = self._calls = Calls(self._send, self.codec, on_change=lanes.notify)
            self._connection.calls = calls
            task_status.started()
            try:
                await self._read()
            finally:
                code, reason = self._connection.close_code, self._connection.close_reason
                calls.end(ABNORMAL if code is None else code, reason or "")
            with anyio.move_on_after(self._limits.grace):
                while lanes.running:
                    await lanes.changed()
            tasks.cancel_scope.cancel()

    async def _read(self) -> None:
        lanes, calls = self._lanes, self._calls
        limit = inf if self._limits.refuse_when_busy else self._limits.running
        async for data in self._connection.iter_messages():
            refusal = self._take(data)
            if refusal is not None:
                await self._refuse(*refusal)
            while (lanes.running >= limit or calls.full) and not calls.needy:
                await lanes.changed()

    def _take(self, data: Data) -> tuple[RouterError, Id] | None:
        """Put a message where it belongs, or say why not."""
        in_time = self._buckets is None or self._buckets.take(len(data))
        try:
            envelope = self.codec.decode(data)
        except NoEnvelope as error:
            return error, error.id
        try:
            self._route(envelope, in_time=in_time)
        except RouterError as error:
            return error, envelope.id
        except Exception:  # from the application: a validator, a key
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
            if self._lanes.running >= self._limits.running:
                raise RouterError("too_busy", f"Expected at most {self._limits.running} at a time")
            wanted = route.signature.payload
            payload = None if wanted is None else self.codec.decode_payload(envelope, wanted)
            message = _Handling(self._connection, self._member, envelope, payload, self, route)
            self._lanes.put(message, route.lane(payload))
            self._bad = 0
        elif not envelope.is_answer:  # an answer that nobody waits for any more is no fault
            raise RouterError("unknown_type", f"There is no type {envelope.type!r}")

    async def _refuse(self, error: RouterError, id: Id) -> None:
        if self._lanes.is_busy(ORDERED) and self._lanes.running < self._limits.running:
            self._lanes.put(_Refusal(self, error, id), ORDERED)  # in its turn
        else:
            await self.answer_error(error, id)
        if error.code in _NOT_THE_PEERS_FAULT:
            return
        self._bad += 1
        if self._limits.bad_messages is not None and self._bad >= self._limits.bad_messages:
            await self._connection.close(_POLICY_VIOLATION, "too many bad messages")

    # -- For what is in lanes -----------------------------------------------------------

    async def answer_error(self, error: RouterError, id: Id) -> None:
        """Answer a message with an error."""
        try:
            message = self.codec.encode_error(error, id)
        except (TypeError, ValueError):  # from the details, which are the application's
            _logger.exception("The error %r cannot be sent", error.code)
            message = self.codec.encode_error(_INTERNAL, id)
        await self.transmit(message)

    async def transmit(self, message: Data) -> None:
        """Send an answer; the end of the connection is the reader's business."""
        try:
            await self._send(message)
        except WebSocketDisconnect:
            pass
        except RuntimeError:  # closed by another handler, while this one waited for its turn
            if not self.is_over:
                raise

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        member = self._member
        return self._connection.close_code is not None or (member is not None and member.is_over)


class _Handling(Context):
    """A message that its handler handles, and the replies to it: a job."""

    session: Session
    route: Route

    @property
    def timeout(self) -> float | None:
        return self.route.timeout

    async def do(self, lane: Lane) -> None:
        session, id = self.session, self.envelope.id
        try:
            result = await self.route.call(self)
            if result is None and id is None:
                return
            if isinstance(result, AsyncGeneratorType):
                await self._stream(result, lane)
            else:
                await session.transmit(session.codec.encode(self.route.type + REPLY, result, id))
        except RouterError as error:
            await session.answer_error(error, id)
        except Exception as error:
            if session.is_over and is_disconnect(error):
                return  # a handler may let it propagate
            _logger.exception("The handler of %r failed", self.route.type)
            await session.answer_error(_INTERNAL, id)

    async def _stream(self, replies: AsyncGenerator[Any, Any], lane: Lane) -> None:
        session, id = self.session, self.envelope.id
        type = self.route.type + REPLY
        async with aclosing(replies):
            async for reply in replies:
                if session.is_over:
                    return
                await session.transmit(session.codec.encode(type, reply, id, more=id is not None))
                lane.restart()
        if id is not None:
            await session.transmit(session.codec.encode(type, None, id))

    async def give_up(self) -> None:
        error = RouterError("timeout", f"Expected to be done in {self.timeout:g} s")
        await self.session.answer_error(error, self.envelope.id)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A message that is refused in its turn: a job."""

    session: Session
    error: RouterError
    id: Id
    timeout: None = None

    async def do(self, lane: Lane) -> None:
        del lane
        await self.session.answer_error(self.error, self.id)

    async def give_up(self) -> None:
        raise AssertionError("a refusal has any time")  # pragma: no cover - the same
