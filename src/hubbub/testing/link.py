"""Link: one connection between an application and a peer, in memory.

Two bounded queues, the answer to the handshake, and the end, whoever made it. To the
application it is the event stream and the responder behind ASGI's ``receive`` and ``send``
(``ws_bridge.channels``); what else a server does with these is not known here. Used by server
and peer, at its two ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from hubbub.close_codes import ABNORMAL
from hubbub.exceptions import ClientDisconnected
from hubbub.testing.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from hubbub.testing.profiles import Profile
    from hubbub.types import Data, Message

__all__ = ("Answer", "Ending", "Link", "Side")

Side: TypeAlias = Literal["application", "peer"]


@dataclass(slots=True)
class Answer:
    """What the application answered to the handshake; 101 means that it accepted."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    subprotocol: str | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended.

    Attributes:
        code: the code of the close frame; None if it had none, 1006 if there was no frame.
        reason: the reason of the close frame.
        by: who ended it.
    """

    code: int | None
    reason: str
    by: Side


class Link:
    """One connection.

    Attributes:
        pace: how fast the peer reads.
        answer: the application's answer, as far as it was given.
        answered: set when the answer is whole, or never will be.
        ending: how it ended; None while it lasts.
        ended: set when it has.
        aborted: whether the peer has vanished.
        incoming: messages for the application.
        outgoing: messages for the peer.
    """

    def __init__(self, profile: Profile, capacity: int, pace: Pace | None = None) -> None:
        """Make a connection whose application has not answered yet.

        Args:
            profile: the server between the two.
            capacity: messages that may be on their way, in each direction.
            pace: how fast the peer reads, if something else reads for it.

        Raises:
            ValueError: if the capacity is not at least 1.
        """
        if capacity < 1:
            raise ValueError(f"Expected a capacity of at least 1 message, got {capacity}")
        self.pace = pace or Pace()
        self.answer: Answer | None = None
        self.answered = anyio.Event()
        self.ended = anyio.Event()
        self.ending: Ending | None = None
        self.aborted = False
        self.incoming = Queue(capacity)
        self.outgoing = Queue(capacity)
        self._profile = profile

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(ABNORMAL, "", "peer")  # a send that is shielded would wait for ever

    def open(self, answer: Answer) -> None:
        """Give the whole answer."""
        self.answer = answer
        self.answered.set()

    def end(self, code: int | None, reason: str, by: Side) -> None:
        """End it; only the first call counts.

        What was on its way to the other side still arrives; whoever waits to send is woken.
        """
        if self.ending is None:
            self.ending = Ending(code, reason, by)
            if by == "application":
                self.incoming.clear()
            self.incoming.close()
            self.outgoing.close()
            self.pace.resume()
            self.answered.set()
            self.ended.set()

    def abort(self) -> None:
        """End it for a peer that takes nothing more, not even what was on its way."""
        self.aborted = True
        self.end(ABNORMAL, "", "peer")
        self.outgoing.clear()

    # -- The events behind the application's `receive` -------------------------------------

    async def receive(self) -> Message:
        """Return the next message, or the disconnect, as an ASGI event."""
        try:
            data = await self.incoming.take()
        except anyio.EndOfStream:
            return self._disconnect()
        both = {"text": None, "bytes": None} if self._profile.both_keys else {}
        kind = "text" if isinstance(data, str) else "bytes"
        return {"type": "websocket.receive", **both, kind: data}

    def _disconnect(self) -> Message:
        assert self.ending is not None
        profile, code, reason = self._profile, self.ending.code, self.ending.reason
        if self.ending.by == "application":
            if code == ABNORMAL:
                code = profile.refusal_code
            elif profile.own_code is not None:
                code, reason = profile.own_code, ""
        elif code == ABNORMAL or not profile.tells_code:
            code = profile.abort_code
        elif code is None:
            code = profile.no_code
        event: Message = {"type": "websocket.disconnect", "code": code}
        return {**event, "reason": reason} if profile.tells_reason else event

    # -- The responder behind its `send` ---------------------------------------------------

    async def accept(self, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Let the peer in."""
        await self._checkpoint()
        self.open(Answer(101, headers, subprotocol))

    def refuse(self, status: int) -> None:
        """Refuse the peer on the server's behalf."""
        self.answer = Answer(status, [])
        self.end(ABNORMAL, "", "application")

    async def start_response(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin to refuse the peer."""
        await self._checkpoint()
        self.answer = Answer(status, headers)

    async def send_body(self, data: bytes, *, more: bool) -> None:
        """Continue to refuse the peer."""
        await self._checkpoint()
        assert self.answer is not None
        self.answer.body += data
        if not more:
            self.end(ABNORMAL, "", "application")

    async def send(self, data: Data) -> None:
        """Send a message when the peer has room for it; when cancelled, none is sent."""
        how = self._profile.send
        with anyio.CancelScope(shield=how == "shielded"):  # until the peer reads, or the end
            if how == "buffers":
                await self._checkpoint()
                self.outgoing.add(data)
            else:
                await self.pace.wait(max(len(data), 1))
                await self.outgoing.put(data)
        if self.ending is not None:
            raise self._gone()

    async def close(self, code: int, reason: str) -> None:
        """Close it on the application's behalf."""
        await self._checkpoint()
        self.end(code, reason, "application")

    async def _checkpoint(self) -> None:
        await checkpoint()
        if self.ending is not None:
            raise self._gone()

    def _gone(self) -> ClientDisconnected:
        assert self.ending is not None
        return ClientDisconnected(self.ending.code or ABNORMAL, self.ending.reason)


class Queue:
    """A bounded queue of messages, whose end wakes whoever waits for it."""

    __slots__ = ("_capacity", "_changed", "_closed", "_messages")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._closed = False
        self._messages: deque[Data] = deque()
        self._changed = anyio.Event()

    async def put(self, data: Data) -> None:
        """Add a message when there is room; none after the end."""
        await checkpoint()
        while not self._closed and len(self._messages) >= self._capacity:
            await self._changed.wait()
        self.add(data)

    def add(self, data: Data) -> None:
        """Add a message, room or not; none after the end."""
        if not self._closed:
            self._messages.append(data)
            self._change()

    async def take(self) -> Data:
        """Take the next message.

        Raises:
            anyio.EndOfStream: if there is none, and never will be.
        """
        await self.wait()
        if not self._messages:
            raise anyio.EndOfStream
        data = self._messages.popleft()
        self._change()
        return data

    async def wait(self) -> None:
        """Wait until there is a message, or the end."""
        await checkpoint()
        while not self._messages and not self._closed:
            await self._changed.wait()

    @property
    def first(self) -> Data | None:
        """The next message, if there is one."""
        return self._messages[0] if self._messages else None

    def clear(self) -> None:
        """Discard what waits."""
        self._messages.clear()
        self._change()

    def close(self) -> None:
        """Let nothing more in."""
        self._closed = True
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
