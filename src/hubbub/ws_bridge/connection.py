"""Connection: one peer's messages, from the opening to the last byte, whichever side we are.

It pulls messages out of the socket, sends, and comes to its close, by means of wire (bytes) and
writer. It keeps no time and starts no task: caretaker does, which looks at it now and then. How
a connection is opened is not known here, but in server_connection and in the client.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from hubbub.close_codes import ABNORMAL
from hubbub.exceptions import ClientDisconnected
from hubbub.wire.events import Close, Pause, Ping, Pong
from hubbub.ws_bridge.transport import CHUNK
from hubbub.ws_bridge.writer import Writer

if TYPE_CHECKING:
    from hubbub.prepared import Batch
    from hubbub.types import Data, Message
    from hubbub.wire.protocol import Protocol
    from hubbub.ws_bridge.config import Config
    from hubbub.ws_bridge.transport import Transport
    from hubbub.ws_bridge.writer import Helper

__all__ = ("Connection", "Phase", "is_over")

_CALLS_PER_CHECKPOINT: Final = 64  # sends, or receives, that did not have to wait
_EVENTS_PER_CHECKPOINT: Final = 64  # those that are discarded
_MAX_READ_AHEAD: Final = 1024 * 1024  # bytes of messages, besides Config.max_queue


class Phase(Enum):
    """How far a connection is."""

    REQUEST = "the peer has not sent its request whole"
    ANSWER = "the application has not answered it"
    OPEN = "messages go both ways"
    CLOSING = "how it ends is known, and it is on its way there"


_OPEN = Phase.OPEN  # looking it up in an enum is slow before Python 3.12


class Connection:
    """One peer.

    The application's own task runs it: ``receive`` reads the socket and parses, ``send``
    writes. To the application it is the event stream behind ``receive``, what carries out a
    ``send``, and its Outlet.

    Attributes:
        phase: how far it is.
        transport: the peer's bytes.
        writer: what is to be sent.
        received: how many bytes were received; a change shows that the peer lives.
        receives: how often the application has asked for an event.
        reading: whether a task waits for the peer's bytes, or takes them now.
    """

    __slots__ = (
        "_config",
        "_disconnect",
        "_frames_key",
        "_helper",
        "_inbox",
        "_left_alone",
        "_more",
        "_paused",
        "_protocol",
        "_sends",
        "_stand_in",
        "phase",
        "reading",
        "received",
        "receives",
        "transport",
        "writer",
    )

    def __init__(self, transport: Transport, config: Config, helper: Helper) -> None:
        self.phase = Phase.REQUEST
        self.transport = transport
        self.writer = Writer(transport, helper)
        self.reading = True
        self.received = 0
        self.receives = 0
        self._config = config
        self._helper = helper
        self._protocol: Protocol | None = None
        self._frames_key: int | None = None  # the protocol's, while open
        self._disconnect: Message | None = None  # the event, once the end is known
        self._inbox: deque[Message] | None = None  # what the stand-in has read
        self._stand_in: _StandIn | None = None
        self._left_alone: anyio.Event | None = None  # set when a receive is over
        self._more = False  # whether the last chunk was full, so that there is likely more
        self._paused = False  # amid received bytes, for other tasks to have a turn
        self._sends = 0

    def _begin(self, protocol: Protocol) -> None:
        """Open: from now on there are messages."""
        self._protocol = protocol
        self._frames_key = protocol.frames_key
        self.phase = Phase.OPEN

    # -- Receiving -----------------------------------------------------------------------

    async def receive(self) -> Message:
        """Return the next message, or the disconnect, as an ASGI event.

        It may be cancelled: nothing is lost.

        Raises:
            anyio.BusyResourceError: if another task is receiving.
        """
        self.receives += 1
        if not self.receives % _CALLS_PER_CHECKPOINT:
            await checkpoint()
        while self._stand_in is not None:
            await self._stand_in.dismiss()
        if self._inbox:
            return self._inbox.popleft()
        event = self._next_event()
        if event is not None:
            return event
        self.reading = True
        try:
            while event is None:
                await self._read()
                event = self._next_event()
        finally:
            self.reading = False
            if self._left_alone is not None:
                self._left_alone.set()
        return event

    def _next_event(self) -> Message | None:
        """Parse up to the next event for the application; answer what is not for it."""
        if self._disconnect is not None:
            return self._disconnect
        protocol = self._protocol
        if protocol is None:
            return None
        while True:
            event = protocol.next_event()
            if type(event) is str:
                return {"type": "websocket.receive", "text": event}
            if type(event) is bytes:
                return {"type": "websocket.receive", "bytes": event}
            if event is None:
                return None
            if type(event) is Ping:
                self.writer.write_pong(protocol.send_pong(event.payload))
            elif type(event) is Close:
                self._meet_close(protocol, event)
                return self._disconnect
            elif type(event) is Pause:
                self._paused = True
                return None
            else:
                assert type(event) is Pong
                self._meet_pong(event)

    def _meet_pong(self, pong: Pong) -> None:
        """Learn from a pong. That the peer lives is known already, from ``received``."""

    async def _read(self) -> None:
        """Send what is corked, then receive the peer's next bytes."""
        self.writer.flush()
        if self._paused:
            self._paused = False
            return await checkpoint()
        try:
            if self._more:
                await checkpoint()
            else:
                await self.transport.wait_readable()
        except anyio.ClosedResourceError:
            self._take_in(b"")
        else:
            self._take_in(self.transport.try_receive())

    def _take_in(self, data: bytes | None) -> None:
        self._more = data is not None and len(data) == CHUNK
        if data:
            self.received += len(data)
            if self._protocol is not None:
                self._protocol.receive_data(data)
            elif self.phase is not Phase.CLOSING:
                self._open(data)
        elif data is not None:
            self.drop()

    def _open(self, data: bytes) -> None:
        """Take bytes received before there is a protocol: only a server gets any."""

    # -- Sending -------------------------------------------------------------------------

    async def send(self, data: Data) -> None:
        """Send a message.

        When cancelled, the message is sent whole or not at all.

        Raises:
            ClientDisconnected: if the connection is over.
        """
        self._sends += 1
        if not self._sends % _CALLS_PER_CHECKPOINT:
            await checkpoint()
        writer = self.writer
        if not writer.has_room:
            await writer.wait_room()
        protocol = self._protocol
        if self.phase is not _OPEN or writer.broken or protocol is None:
            raise self._disconnected()
        frame = protocol.send_message(data)
        if protocol.has_pending:  # the application will soon be back to receive it
            writer.cork(frame)
        else:
            writer.write(frame)

    def try_send(self, batch: Batch) -> bool:
        """Send messages if they can be sent now (the Outlet's part)."""
        frames = batch.frames.get(self._frames_key)
        if frames is None:
            if self.phase is not _OPEN:
                return False
            assert self._protocol is not None
            frames = self._protocol.send_batch(batch)
        return self.writer.try_write(frames)

    async def writable(self) -> None:
        """Wait until ``try_send`` is worth trying again (the Outlet's part)."""
        await self.writer.wait_drained()

    @property
    def closed(self) -> bool:
        """Whether no message can be sent any more (the Outlet's part)."""
        return self.phase is Phase.CLOSING or self.writer.broken

    # -- The end -------------------------------------------------------------------------

    def _end(self, code: int, reason: str) -> None:
        """Note how it ends, and wake who reads; only the first call counts."""
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self.phase = Phase.CLOSING
            self._frames_key = None
            if self._protocol is not None:
                self._protocol.discard()
            if self.reading:  # perhaps for a peer that does not answer the close
                self.transport.wake()

    @property
    def close_code(self) -> int | None:
        """How it ends; None until that is known."""
        return None if self._disconnect is None else self._disconnect["code"]

    def _disconnected(self) -> ClientDisconnected:
        event = self._disconnect or {"code": ABNORMAL, "reason": ""}
        return ClientDisconnected(event["code"], event["reason"])

    async def close(self, code: int, reason: str) -> None:
        """Begin to close."""
        if self.phase is not Phase.OPEN:
            raise self._disconnected()
        self._close(code, reason)

    def _close(self, code: int, reason: str) -> None:
        assert self._protocol is not None
        self.writer.write(self._protocol.send_close(code, reason))
        self._end(code, reason)

    def _meet_close(self, protocol: Protocol, close: Close) -> None:
        """Answer the peer's close frame, or its fault."""
        self.writer.write(protocol.send_close())
        if close.failed:
            # The peer has not read that yet, and may still be sending. If it were closed now,
            # the socket would answer with a reset, which overtakes the close frame.
            self.writer.finish(self.transport.send_eof)
        else:
            self.writer.finish(self._finish)
        self._end(close.code, close.reason)

    def _finish(self) -> None:
        """Do what is left to do once both close frames are sent."""
        self.transport.finish()

    async def conclude(self) -> None:
        """Read on until the peer is done, too; caretaker keeps the deadline."""
        while self._stand_in is not None:
            await self._stand_in.dismiss()
        while self.reading:  # in a task that has outlived the application
            self._left_alone = anyio.Event()
            await self._left_alone.wait()
        self.reading = True
        while not self.transport.closed:
            self._discard()
            await self._read()

    def _discard(self) -> None:
        """Parse what is received after the end; only the peer's close frame counts."""
        protocol = self._protocol
        if protocol is None:
            return
        for _ in range(_EVENTS_PER_CHECKPOINT):
            event = protocol.next_event()
            if event is None:
                return
            if type(event) is Close:
                self.writer.finish(self._finish)
            elif type(event) is Pause:
                break
        self._paused = True

    # -- What caretaker does about it ----------------------------------------------------

    def meet_deadline(self, elapsed: float) -> None:
        """Do what is due after so many seconds in this phase."""
        if self.phase is Phase.CLOSING and is_over(elapsed, self._config.close_timeout):
            self.give_up()

    def give_up(self) -> None:
        """Close: the peer did not do in time what it had to."""
        if self.writer.unsent:
            self.transport.abort()
        else:
            self.transport.close()  # what was sent may still be read

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        assert self._protocol is not None
        self.writer.write(self._protocol.send_ping())

    def drop(self) -> None:
        """Close: the peer is gone."""
        self._end(ABNORMAL, "")
        self.transport.close()

    def lose(self, code: int, reason: str) -> None:
        """Give up an open connection whose peer no longer answers."""
        self._close(code, reason)
        self.transport.close()

    def shut_down(self, code: int, reason: str) -> None:
        """Begin to close, whatever the application is doing."""
        if self.phase is Phase.OPEN:
            self._close(code, reason)

    def send_stand_in(self) -> None:
        """Let another task read while the application is busy elsewhere, up to a bound."""
        if not self.transport.closed and not self._has_read_enough():
            self._stand_in = _StandIn()
            self.reading = True
            self._helper.start(self._read_ahead)

    async def _read_ahead(self) -> None:
        """Be the stand-in: read until the application comes back, or enough is read."""
        stand_in = self._stand_in
        assert stand_in is not None
        try:
            with stand_in.scope:
                while not self.transport.closed and not self._has_read_enough():
                    if self._disconnect is not None:
                        self._discard()
                    elif (event := self._next_event()) is not None:
                        if event is not self._disconnect:
                            self._inbox = self._inbox or deque()
                            self._inbox.append(event)
                        continue
                    await self._read()
        finally:
            self.reading = False
            self._stand_in = None
            stand_in.gone.set()

    def _has_read_enough(self) -> bool:
        inbox = self._inbox
        if not inbox or self._disconnect is not None:
            return False
        return len(inbox) >= self._config.max_queue or sum(map(_size, inbox)) >= _MAX_READ_AHEAD


class _StandIn:
    """The task that reads in the application's place, and how to end it."""

    __slots__ = ("gone", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.gone = anyio.Event()

    async def dismiss(self) -> None:
        self.scope.cancel()
        await self.gone.wait()


def is_over(elapsed: float, timeout: float | None) -> bool:
    """Tell whether a timeout has elapsed; None never has."""
    return timeout is not None and elapsed >= timeout


def _size(event: Message) -> int:
    return len(event.get("text") or event.get("bytes") or "")
