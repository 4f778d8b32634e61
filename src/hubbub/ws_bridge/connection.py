"""Connection: one peer from its first byte to its last, and the application that serves it.

The pull of messages out of the socket, and the way to the close, made of wire (bytes),
channels (ASGI) and writer. It starts no clock and no task: caretaker does, which looks after
its deadlines. Made by server, for each peer.
"""

from __future__ import annotations

import logging
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

from hubbub.close_codes import ABNORMAL
from hubbub.exceptions import ClientDisconnected, WebSocketDisconnect
from hubbub.prepared import OUTLET
from hubbub.wire.events import Close, Ping
from hubbub.wire.handshake import Refusal, UpgradeRequest
from hubbub.ws_bridge.channels import create_ws_receive, create_ws_send
from hubbub.ws_bridge.opening import Opening
from hubbub.ws_bridge.scope import build_ws_scope
from hubbub.ws_bridge.transport import CHUNK
from hubbub.ws_bridge.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubbub.prepared import Batch
    from hubbub.types import ASGIApp, Data, Message, Scope
    from hubbub.wire.protocol import Protocol
    from hubbub.ws_bridge.config import Config
    from hubbub.ws_bridge.transport import Transport
    from hubbub.ws_bridge.writer import Helper

__all__ = ("Connection", "Phase")

_logger = logging.getLogger("hubbub.ws_bridge")

_CALLS_PER_CHECKPOINT: Final = 64  # sends, or receives, that did not have to wait
_MAX_READ_AHEAD: Final = 1024 * 1024  # bytes of messages, beside Config.max_queue
_GOING_AWAY: Final = 1001
_INTERNAL_ERROR: Final = 1011


class Phase(Enum):
    """How far a connection is."""

    REQUEST = "the peer has not sent its request whole"
    ANSWER = "the application has not answered it"
    OPEN = "messages go both ways"
    CLOSING = "how it ends is known, and it is on its way there"


_OPEN = Phase.OPEN  # looking it up in an enum is dear before Python 3.12


class Connection:
    """One peer.

    The application's own task runs it: ``receive`` reads the socket and parses, ``send``
    writes. To the application it is the event stream behind ``receive``, the responder behind
    ``send``, and what its Outlet writes to.

    Attributes:
        phase: how far it is.
        transport: the peer's bytes.
        writer: what is to be sent.
        received: how many bytes have come; who compares it sees that the peer lives.
        receives: how often the application has come for an event.
        reading: whether somebody waits for the peer's bytes, or takes them now.
        request_line: the request's first line, without its query; None until it is known.
        status: of the answer to it; None until there is one.
    """

    __slots__ = (
        "_app",
        "_config",
        "_disconnect",
        "_helper",
        "_inbox",
        "_more",
        "_opening",
        "_protocol",
        "_scope",
        "_sends",
        "_stand_in",
        "phase",
        "reading",
        "received",
        "receives",
        "request_line",
        "status",
        "transport",
        "writer",
    )

    def __init__(self, app: ASGIApp, transport: Transport, config: Config, helper: Helper) -> None:
        self.phase = Phase.REQUEST
        self.transport = transport
        self.writer = Writer(transport, helper)
        self.reading = True
        self.received = 0
        self.receives = 0
        self.request_line: str | None = None
        self.status: int | None = None
        self._app = app
        self._config = config
        self._helper = helper
        self._opening: Opening | None = Opening(config)
        self._protocol: Protocol | None = None
        self._disconnect: Message | None = None  # the event, once the end is known
        self._inbox: deque[Message] | None = None  # what the stand-in has read
        self._stand_in: _StandIn | None = None
        self._scope = anyio.CancelScope()
        self._more = False  # whether the last chunk was full, so that there is likely more
        self._sends = 0

    async def run(self, state: Mapping[str, Any] | None, *, full: bool = False) -> None:
        """Serve the peer from its first byte to its last.

        Args:
            state: the lifespan's.
            full: whether there are connections enough without this one (503).
        """
        try:
            await self._read_request()
            if self.phase is Phase.ANSWER:
                if full:
                    self._refuse(Refusal(503, "Expected fewer connections"))
                else:
                    await self._call(state)
            await self._conclude()
        finally:
            if self.phase is Phase.OPEN:  # cancelled: the peer may as well know
                self._close(_GOING_AWAY, "")
            self.transport.close()

    # -- The opening ---------------------------------------------------------------------

    async def _read_request(self) -> None:
        self._take_in(self.transport.try_receive())  # by now it is often there
        while self.phase is Phase.REQUEST:
            await self._read()

    def _open(self, data: bytes) -> None:
        """Feed the opening; decide what it says."""
        assert self._opening is not None
        answer = self._opening.receive_data(data)
        self.request_line = self._opening.request_line
        if isinstance(answer, UpgradeRequest):
            self.phase = Phase.ANSWER
        elif answer is not None:
            self._refuse(answer)

    def _refuse(self, refusal: Refusal, code: int = ABNORMAL) -> None:
        assert self._opening is not None
        if self._opening.responding:  # half an answer cannot be taken back
            self.writer.finish(self.transport.finish)
        else:
            self.status = refusal.status
            self.writer.write(self._opening.refuse(refusal))
            self.writer.finish(self.transport.send_eof)
        self._end(code, "")

    async def _call(self, state: Mapping[str, Any] | None) -> None:
        """Call the application, and end what it leaves unfinished."""
        scope = self._build_scope(state)
        self.reading = False
        code = _INTERNAL_ERROR
        try:
            with self._scope:
                await self._app(
                    scope, create_ws_receive(self), create_ws_send(self, scope["subprotocols"])
                )
            if self.phase is Phase.ANSWER:
                _logger.error("The application returned without an answer to %s", scope["path"])
            code = 1000
        except Exception as error:  # the border to the application
            if not _is_disconnect(error):
                _logger.exception("The application failed on %s", scope["path"])
        if self.phase is Phase.ANSWER:
            self._refuse(Refusal(500, "Internal server error"))
        elif self.phase is Phase.OPEN:
            self._close(code, "")

    def _build_scope(self, state: Mapping[str, Any] | None) -> Scope:
        assert self._opening is not None
        transport = self.transport
        return build_ws_scope(
            self._opening.request,
            client=transport.client,
            server=transport.server,
            secure=transport.secure,
            root_path=self._config.root_path,
            state=state,
            extensions={OUTLET: _Outlet(self)},
        )

    async def accept(self, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the 101 (the responder's part)."""
        opening = self._require_opening()
        response, self._protocol = opening.accept(subprotocol, headers)
        self.writer.write(response)
        self._opening = None
        self.status = 101
        self.phase = Phase.OPEN

    async def start_response(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin a response of the application's own (the responder's part)."""
        self.writer.write(self._require_opening().start_response(status, headers))
        self.status = status

    async def send_body(self, data: bytes, *, more: bool) -> None:
        """Go on with it (the responder's part)."""
        if not self.writer.has_room:
            await self.writer.wait_room()
        self.writer.write(self._require_opening().send_body(data, more=more))
        if not more:
            self.writer.finish(self.transport.send_eof)
            self._end(ABNORMAL, "")

    def _require_opening(self) -> Opening:
        if self.phase is not Phase.ANSWER:
            raise self._disconnected()
        assert self._opening is not None
        return self._opening

    # -- Receiving -----------------------------------------------------------------------

    async def receive(self) -> Message:
        """Give the next message, or the disconnect, as an ASGI event.

        It may be cancelled: nothing is lost.

        Raises:
            anyio.BusyResourceError: if another task is at it.
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
            # Of a pong, `received` has told.

    async def _read(self) -> None:
        """Take what comes next from the peer, after what waits for it is sent."""
        self.writer.flush()
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
            self._end(ABNORMAL, "")
            self.transport.close()

    # -- Sending -------------------------------------------------------------------------

    async def send(self, data: Data) -> None:
        """Send a message (the responder's part).

        Cancelled, the message is sent whole or not at all.

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
        if protocol.has_pending:  # the application will be back for it soon
            writer.cork(frame)
        else:
            writer.write(frame)

    def try_send(self, batch: Batch) -> bool:
        """Send messages if they can be sent now (the Outlet's part)."""
        writer, protocol = self.writer, self._protocol
        if self.phase is not _OPEN or writer.draining or writer.broken or protocol is None:
            return False
        writer.write(protocol.send_batch(batch))
        return True

    @property
    def closed(self) -> bool:
        """Whether no message can be sent any more."""
        return self.phase is Phase.CLOSING or self.writer.broken

    # -- The end -------------------------------------------------------------------------

    def _end(self, code: int, reason: str) -> None:
        """Note how it ends; the first one to come here is the end."""
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self.phase = Phase.CLOSING

    @property
    def close_code(self) -> int | None:
        """How it ends; None until that is known."""
        return None if self._disconnect is None else self._disconnect["code"]

    def _disconnected(self) -> ClientDisconnected:
        event = self._disconnect or {"code": ABNORMAL, "reason": ""}
        return ClientDisconnected(event["code"], event["reason"])

    async def close(self, code: int, reason: str) -> None:
        """Begin to close (the responder's part)."""
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
            # It has not read that yet, and may still be sending. Closed now, the socket would
            # answer with a reset, which overtakes the close frame.
            self.writer.finish(self.transport.send_eof)
        else:
            self.writer.finish(self.transport.finish)
        self._end(close.code, close.reason)

    async def _conclude(self) -> None:
        """Read on until the peer, too, is done; caretaker has the deadline for it."""
        while self._stand_in is not None:
            await self._stand_in.dismiss()
        self.reading = True
        while not self.transport.closed:
            self._discard()
            await self._read()

    def _discard(self) -> None:
        """Parse what comes after the end, in which only the peer's close frame counts."""
        protocol = self._protocol
        while protocol is not None and (event := protocol.next_event()) is not None:
            if type(event) is Close:
                self.writer.finish(self.transport.finish)

    # -- What caretaker does about it ----------------------------------------------------

    def expire(self) -> None:
        """Refuse: the opening took too long."""
        if self.phase is Phase.REQUEST:
            self._refuse(Refusal(408, "Expected the request sooner"))
        else:
            self._refuse(Refusal(503, "The application did not answer in time"))

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        assert self._protocol is not None
        self.writer.write(self._protocol.send_ping())

    def lose(self, code: int, reason: str) -> None:
        """Give an open connection up: the peer is not there."""
        self._close(code, reason)
        self.transport.close()

    def shut_down(self, code: int, reason: str) -> None:
        """Begin to close, whatever the application is at."""
        if self.phase is Phase.REQUEST:
            self._end(code, reason)
            self.transport.close()
        elif self.phase is Phase.ANSWER:
            self._refuse(Refusal(503, "The server is shutting down"), code)
        elif self.phase is Phase.OPEN:
            self._close(code, reason)

    def cancel(self) -> None:
        """Cancel the application."""
        self._scope.cancel()

    def send_stand_in(self) -> None:
        """Let another task read, while the application is busy elsewhere; for a while."""
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
    """How to get rid of the task that reads in the application's place."""

    __slots__ = ("gone", "scope")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.gone = anyio.Event()

    async def dismiss(self) -> None:
        self.scope.cancel()
        await self.gone.wait()


class _Outlet:
    """What an application sees of a connection past ASGI: the protocol of that name."""

    __slots__ = ("_connection", "try_send")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.try_send = connection.try_send  # without a call between

    @property
    def closed(self) -> bool:
        return self._connection.closed

    async def writable(self) -> None:
        await self._connection.writer.wait_drained()


def _size(event: Message) -> int:
    return len(event.get("text") or event.get("bytes") or "")


def _is_disconnect(error: Exception) -> bool:
    """Tell whether this is the peer's leaving, which an application may let pass."""
    if isinstance(error, ExceptionGroup):
        return all(_is_disconnect(inner) for inner in error.exceptions)
    return isinstance(error, ClientDisconnected | WebSocketDisconnect)
