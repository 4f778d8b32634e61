"""Protocol: one connection's frames in both directions, and how it comes to its close.

No socket lives here: bytes in, events out; messages in, bytes out (RFC 6455 §5 to §7). Used by
the server's connection and by the client, once the handshake is done.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from hubbub.close_codes import ABNORMAL
from hubbub.wire.deflate import Inflater, deflate
from hubbub.wire.events import Close, Failure
from hubbub.wire.frames import (
    BINARY,
    CLOSE,
    FIN,
    MAX_CONTROL,
    PING,
    PONG,
    RSV1,
    TEXT,
    Role,
    build_frame,
    build_masked_frame,
    close_payload,
)
from hubbub.wire.parser import Parser

if TYPE_CHECKING:
    from hubbub.prepared import Batch
    from hubbub.types import Data
    from hubbub.wire.deflate import PerMessageDeflate
    from hubbub.wire.events import Event, Pause

__all__ = ("DEFAULT_MAX_MESSAGE_SIZE", "MOVES", "Move", "Protocol", "State")

DEFAULT_MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024
_TEXT = FIN | TEXT
_BINARY = FIN | BINARY
_COMPRESS_FROM = 128  # below, 3 us of zlib save a fifth of very little (measured)


class State(Enum):
    """How far a connection is on the way to its close (RFC 6455 §7.1)."""

    OPEN = "open"
    CLOSE_SENT = "close sent"
    """Our close frame is out, the peer's is not yet in."""
    CLOSE_DUE = "close due"
    """The peer's close frame is in, or the fault for which we close; ours is not yet out."""
    CLOSED = "closed"
    """Nothing goes either way: the server closes the TCP connection first (§7.1.1)."""


class Move(Enum):
    """What can happen to a connection that concerns its close."""

    SEND_MESSAGE = "send a message"
    SEND_CONTROL = "send a ping or a pong"
    SEND_CLOSE = "send a close frame"
    RECEIVE_CLOSE = "receive a close frame"
    FAIL = "fail the connection"
    LOSE = "lose the connection"


MOVES: Final[dict[State, dict[Move, State]]] = {
    State.OPEN: {
        Move.SEND_MESSAGE: State.OPEN,
        Move.SEND_CONTROL: State.OPEN,
        Move.SEND_CLOSE: State.CLOSE_SENT,
        Move.RECEIVE_CLOSE: State.CLOSE_DUE,
        Move.FAIL: State.CLOSE_DUE,
        Move.LOSE: State.CLOSED,
    },
    State.CLOSE_SENT: {
        Move.SEND_CONTROL: State.CLOSE_SENT,  # pings before its close want pongs (§5.5.2)
        Move.RECEIVE_CLOSE: State.CLOSED,
        Move.FAIL: State.CLOSED,
        Move.LOSE: State.CLOSED,
    },
    State.CLOSE_DUE: {
        Move.SEND_MESSAGE: State.CLOSE_DUE,  # what was under way may be finished (§5.5.1)
        Move.SEND_CONTROL: State.CLOSE_DUE,
        Move.SEND_CLOSE: State.CLOSED,
    },
    State.CLOSED: {},
}
"""The whole life of a connection. A move that is missing here is an error."""


_OPEN = State.OPEN  # looking it up in an enum is slow before Python 3.12


class Protocol:
    """One WebSocket connection, without its socket.

    Receiving: ``receive_data`` or ``receive_eof``, then ``next_event`` until it returns None,
    and only then more data: so memory holds no more than what was received at once, and one
    message. Sending: each ``send_*`` returns the bytes that are to be sent.

    Pings are answered by whoever owns the socket, with ``send_pong``; so is the close, with
    ``send_close``: between an event and its answer there may be messages to send.

    Args:
        role: which side we are.
        max_message_size: the limit for a message, inflated; None for none: then the peer
            decides how much memory it takes.
        deflate: what the handshake agreed on; None to go without compression.

    Attributes:
        state: how far the connection is on the way to its close.
        close_code: the code of the Close event; None before it.
        close_reason: the reason of the Close event.
        frames_key: the key of its frames in ``Batch.frames``. None for a client: its frames
            cannot be shared, since each is masked with a key of its own.
    """

    __slots__ = (
        "_build",
        "_eof",
        "_parser",
        "_window_bits",
        "close_code",
        "close_reason",
        "frames_key",
        "state",
    )

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        deflate: PerMessageDeflate | None = None,
    ) -> None:
        self.state = State.OPEN
        self.close_code: int | None = None
        self.close_reason = ""
        self._build = build_frame if role is Role.SERVER else build_masked_frame
        self._eof = False
        self._window_bits = 0  # for compressing; 0 for not at all
        inflater: Inflater | None = None
        if deflate is not None:
            peer = Role.CLIENT if role is Role.SERVER else Role.SERVER
            inflater = Inflater(
                takeover=deflate.takeover(peer),
                window_bits=deflate.window_bits(peer),
                max_size=max_message_size,
            )
            # zlib cannot write for a window of 8 bits; nobody has to compress (RFC 7692 §6).
            bits = deflate.window_bits(role)
            self._window_bits = bits if bits > 8 else 0
        self.frames_key = self._window_bits if role is Role.SERVER else None
        self._parser: Parser | None = Parser(
            role, max_message_size=max_message_size, inflater=inflater
        )  # None once nothing more is read

    # Receiving

    @property
    def has_pending(self) -> bool:
        """Whether bytes were received that ``next_event`` has not looked at yet."""
        return self._parser is not None and self._parser.has_pending

    def receive_data(self, data: bytes) -> None:
        """Take received bytes; those after the end are discarded (§5.5.1)."""
        if self._parser is not None:
            self._parser.feed(data)

    def receive_eof(self) -> None:
        """Note that nothing more will be received."""
        self._eof = True

    def discard(self) -> None:
        """Save work on what is still received: of its events, only the close matters."""
        if self._parser is not None:
            self._parser.discard()

    def next_event(self) -> Event | Pause | None:
        """Parse the next message, ping, pong or close out of what was received.

        Returns:
            A text message as str, a binary one as bytes, or another event; None when more data
            is needed first, and for ever after Close. After a Pause, call it again when other
            tasks have had a turn.
        """
        parser = self._parser
        if parser is None:
            return None
        try:
            event = parser.next_event()
        except Failure as failure:
            event = Close(failure.code, failure.reason, failed=True)
            self._end(event, Move.FAIL)
        else:
            if event is None:
                if self._eof:
                    event = Close(ABNORMAL)
                    self._end(event, Move.LOSE)
            elif type(event) is Close:
                self._end(event, Move.RECEIVE_CLOSE)
        return event

    def _end(self, close: Close, move: Move) -> None:
        self._move(move)
        self.close_code = close.code
        self.close_reason = close.reason
        self._parser = None

    # Sending

    def send_message(self, data: Data) -> bytes:
        """Build the frame of a message.

        Raises:
            RuntimeError: if the connection is past sending messages.
        """
        if self.state is not _OPEN:
            self._move(Move.SEND_MESSAGE)
        first, payload = (_TEXT, data.encode()) if isinstance(data, str) else (_BINARY, data)
        if self._window_bits and len(payload) >= _COMPRESS_FROM:
            compressed = deflate(payload, self._window_bits)
            if len(compressed) < len(payload):
                return self._build(first | RSV1, compressed)
        return self._build(first, payload)

    def send_batch(self, batch: Batch) -> bytes:
        """Build the frames of messages that go to many: once for all that can share them.

        Raises:
            RuntimeError: if the connection is past sending messages.
        """
        key = self.frames_key
        if key is None:
            return b"".join(self.send_message(message.data) for message in batch.messages)
        if self.state is not _OPEN:
            self._move(Move.SEND_MESSAGE)
        return batch.frames.get(key) or batch.build_frames(key, self.send_message)

    def send_ping(self, payload: bytes = b"") -> bytes:
        """Build a ping.

        Raises:
            RuntimeError: if the connection is past sending.
            ValueError: if the payload is larger than 125 bytes.
        """
        return self._control(FIN | PING, payload)

    def send_pong(self, payload: bytes) -> bytes:
        """Build a pong: the answer to a ping, with its payload (§5.5.3).

        Raises:
            RuntimeError: if the connection is past sending.
            ValueError: if the payload is larger than 125 bytes.
        """
        return self._control(FIN | PONG, payload)

    def send_close(self, code: int = 1000, reason: str = "") -> bytes:
        """Build the close frame, which is our last frame.

        After a Close event it is the answer, whatever the arguments: the peer's own code and
        reason come back to it (§5.5.1), or it learns which rule it broke (§7.1.7).

        Args:
            code: the close code.
            reason: the close reason, at most 123 bytes of UTF-8.

        Raises:
            RuntimeError: if the close frame is already out, or the connection lost.
            ValueError: if code or reason may not stand in a close frame.
        """
        if self.state is State.CLOSE_DUE and self.close_code is not None:
            code, reason = self.close_code, self.close_reason
        payload = close_payload(code, reason)
        self._move(Move.SEND_CLOSE)
        return self._build(FIN | CLOSE, payload)

    def _control(self, first: int, payload: bytes) -> bytes:
        if len(payload) > MAX_CONTROL:  # §5.5
            raise ValueError(
                f"Expected a payload of at most {MAX_CONTROL} bytes, got {len(payload)}"
            )
        self._move(Move.SEND_CONTROL)
        return self._build(first, payload)

    def _move(self, move: Move) -> None:
        moves = MOVES[self.state]
        if move not in moves:
            raise RuntimeError(
                f"Expected a connection that can {move.value}, got state {self.state.name}"
            )
        self.state = moves[move]
