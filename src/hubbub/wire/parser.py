"""Parser: from the peer's bytes to messages and control frames (RFC 6455 §5, RFC 7692 §6).

It says what is wrong with a frame as early as its bytes can tell. It sends nothing and knows
no state of the connection: those are protocol's, which alone calls it.
"""

from __future__ import annotations

import io
import sys
from codecs import utf_8_decode
from typing import TYPE_CHECKING

from hubbub.close_codes import (
    INVALID_DATA,
    NO_STATUS,
    PROTOCOL_ERROR,
    TOO_BIG,
    is_close_code,
)
from hubbub.wire.events import Close, Failure, Pause, Ping, Pong
from hubbub.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    MAX_CONTROL,
    PING,
    PONG,
    RSV1,
    TEXT,
    Role,
)
from hubbub.wire.masking import apply_mask

if TYPE_CHECKING:
    from hubbub.types import Data
    from hubbub.wire.deflate import Inflater
    from hubbub.wire.events import Event

__all__ = ("Parser",)

_MAX_EMPTY = 1024  # empty fragments of one message: no encoder makes so many

_FRAMES_PER_PAUSE = 128  # control frames and fragments: a quarter of a millisecond's work
_PAUSE = Pause()

_FIN_TEXT = FIN | TEXT
_FIN_BINARY = FIN | BINARY
_FIN_RSV1 = FIN | RSV1

# Which first bytes a frame may have, by what went before it. All the rest is refused: other
# reserved bits and opcodes (§5.2), control frames in fragments (§5.5), a continuation of
# nothing, a message within a message (§5.4), RSV1 except on a message's first frame (RFC 7692 §6).
_CONTROL = frozenset({FIN | CLOSE, FIN | PING, FIN | PONG})
_IN_MESSAGE = _CONTROL | {CONTINUATION, FIN | CONTINUATION}
_BETWEEN = _CONTROL | {TEXT, BINARY, _FIN_TEXT, _FIN_BINARY}
_BETWEEN_DEFLATE = _BETWEEN | {first | RSV1 for first in _BETWEEN - _CONTROL}


class Parser:
    """The receiving half of a connection.

    ``feed`` it received bytes, then call ``next_event`` until there is none. A message is
    unmasked, inflated and decoded when it is asked for, so that what waits here is never more
    than what was fed and one message.
    """

    __slots__ = (
        "_between",
        "_compressed_limit",
        "_data",
        "_discarding",
        "_empty",
        "_expected",
        "_first",
        "_header_size",
        "_inflater",
        "_kind",
        "_left",
        "_limit",
        "_mask",
        "_mask_bit",
        "_parts",
        "_pos",
        "_room",
        "_split",
        "_text",
        "_until_pause",
    )

    def __init__(
        self, role: Role, *, max_message_size: int | None, inflater: Inflater | None = None
    ) -> None:
        self._mask_bit = 0x80 if role is Role.SERVER else 0  # what the peer has to set
        self._header_size = 6 if role is Role.SERVER else 2  # the shortest, with masking key
        self._inflater = inflater
        self._limit = sys.maxsize if max_message_size is None else max_message_size
        # Data that does not compress grows, by an eighth at the very worst (zlib's
        # deflateBound), and by five bytes a flush.
        self._compressed_limit = min(self._limit + self._limit // 4 + 64, sys.maxsize)
        self._between = _BETWEEN if inflater is None else _BETWEEN_DEFLATE

        self._data = b""  # what was fed; parsed up to _pos
        self._pos = 0
        self._until_pause = _FRAMES_PER_PAUSE
        self._discarding = False
        # The frame whose payload is not received whole.
        self._left = 0  # bytes still to come
        self._first = 0
        self._mask = b""  # rotated to where the payload goes on
        # The message of which there are fragments, or parts of its only frame.
        self._expected = self._between
        self._room = self._limit
        self._kind = 0  # its opcode and RSV1
        self._parts = bytearray()
        self._text: io.StringIO | None = None  # instead of _parts, for text not compressed
        self._split = b""  # the beginning of a character that is not whole
        self._empty = 0

    @property
    def has_pending(self) -> bool:
        """Whether bytes were fed that are not parsed yet: frames, or the beginning of one."""
        return self._pos < len(self._data)

    def feed(self, data: bytes) -> None:
        """Take received bytes."""
        if self._data:  # what is left is at most a header, or a control frame
            self._data = self._data[self._pos :] + data
            self._pos = 0
        else:
            self._data = data

    def discard(self) -> None:
        """Inflate no more: compressed messages come out empty from now on."""
        self._discarding = True

    def next_event(self) -> Event | Pause | None:
        """Parse the next message or control frame.

        Returns:
            What was found, or None when more bytes are needed first.

        Raises:
            Failure: if the peer broke the protocol. Nothing may be called after it.
        """
        # One flat function with the frames' cases inline: this runs once per frame, and a
        # call costs as much as a tenth of all that is done for a small message.
        if self._left:
            message = self._take_rest()
            if message is not None or self._left:
                return message
        data = self._data
        size = len(data)
        while True:
            pos = self._pos
            if size - pos < 2:
                if pos == size:  # an idle connection keeps nothing
                    self._data = b""
                    self._pos = 0
                return None
            # The first two bytes are judged before anything else has to be there (§5.2).
            first = data[pos]
            if first not in self._expected:
                raise self._unexpected(first)
            length = data[pos + 1] ^ self._mask_bit
            if length > 127:  # §5.1
                raise Failure(
                    PROTOCOL_ERROR,
                    "frame without a mask" if self._mask_bit else "frame with a mask",
                )
            start = pos + self._header_size
            if first & 0x08:
                return _PAUSE if self._is_enough() else self._control(first, start, length)
            if length == 126:
                start += 2
                if size - pos < 4:
                    return None
                length = data[pos + 2] << 8 | data[pos + 3]
                if length < 126:
                    raise _not_shortest()
            elif length == 127:
                start += 8
                if size - pos < 10:
                    return None
                length = int.from_bytes(data[pos + 2 : pos + 10], "big")
                if length >> 63:
                    raise Failure(PROTOCOL_ERROR, "length with its most significant bit set")
                if length < 65536:
                    raise _not_shortest()
            if length > self._room:  # judged before the payload comes
                self._check_length(first, length)
            if size < start:
                return None
            end = start + length
            if end > size:
                self._first = first
                self._left = length
                self._mask = data[start - 4 : start] if self._mask_bit else b""
                self._pos = start
                return self._take_rest()
            payload = data[start:end]
            if self._mask_bit:
                payload = apply_mask(payload, data[start - 4 : start])
            self._pos = end
            if first == _FIN_TEXT:
                try:
                    return payload.decode()
                except UnicodeDecodeError as error:
                    raise _invalid_text(error) from error
            if first == _FIN_BINARY:
                return payload
            if first & _FIN_RSV1 == _FIN_RSV1:
                return self._inflate(first, payload)
            message = self._gather(first, payload)
            if message is not None:
                return message
            if self._is_enough():
                return _PAUSE

    def _is_enough(self) -> bool:
        """Count a frame that makes no message; tell whether it is time for a pause."""
        self._until_pause -= 1
        if self._until_pause:
            return False
        self._until_pause = _FRAMES_PER_PAUSE
        return True

    def _take_rest(self) -> Data | None:
        """Take what was received of a payload that is not whole yet.

        Its parts are gathered as if they were fragments: that bounds what is kept as bytes,
        and refuses text as soon as a byte is wrong.
        """
        chunk: bytes | memoryview
        chunk = memoryview(self._data)[self._pos : self._pos + self._left]
        taken = len(chunk)
        if not taken:
            return None
        self._pos += taken
        self._left -= taken
        if self._mask:
            mask = self._mask
            chunk = apply_mask(chunk, mask)
            self._mask = (mask + mask)[taken & 3 :][:4]
        if self._left:
            self._data = b""
            self._pos = 0
        first = self._first
        self._first &= FIN
        return self._gather(first & ~FIN if self._left else first, chunk)

    def _gather(self, first: int, chunk: bytes | memoryview) -> Data | None:
        """Add a fragment to its message; return the message when it is whole."""
        if first & 0x0F:  # else a continuation
            self._begin(first)
        self._room -= len(chunk)
        if self._text is None:
            self._parts += chunk
        else:
            self._write_text(self._text, chunk, final=bool(first & FIN))
        if first & FIN:
            return self._finish()
        if not chunk:  # costs no memory, but could keep a reader busy for ever
            self._empty += 1
            if self._empty > _MAX_EMPTY:
                raise Failure(TOO_BIG, f"message with more than {_MAX_EMPTY} empty fragments")
        return None

    def _begin(self, first: int) -> None:
        self._expected = _IN_MESSAGE
        self._kind = first & ~FIN
        if self._kind == TEXT:
            self._text = io.StringIO()
        elif self._kind & RSV1:
            self._room = self._compressed_limit

    def _finish(self) -> Data:
        self._expected = self._between
        self._room = self._limit
        self._empty = 0
        if self._text is not None:
            text = self._text.getvalue()
            self._text = None
            return text
        payload = bytes(self._parts)
        self._parts = bytearray()
        return self._inflate(self._kind, payload) if self._kind & RSV1 else payload

    def _inflate(self, first: int, payload: bytes) -> Data:
        if self._discarding:
            return b""
        assert self._inflater is not None  # else RSV1 is not expected
        data = self._inflater.inflate(payload)
        return _decode(data) if first & TEXT else data

    def _write_text(self, text: io.StringIO, chunk: bytes | memoryview, *, final: bool) -> None:
        """Decode text as it is received: it is refused at its first wrong byte (§8.1)."""
        data = self._split + chunk if self._split else chunk
        try:
            decoded, used = utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as error:
            raise _invalid_text(error) from error
        text.write(decoded)
        self._split = split = bytes(data[used:])
        # Python's decoder waits for the third byte of a surrogate; it is wrong at the second.
        if split[:1] == b"\xed" and split[1:] > b"\x9f":
            raise Failure(INVALID_DATA, "invalid UTF-8: invalid continuation byte")

    def _control(self, first: int, start: int, length: int) -> Ping | Pong | Close | None:
        if length > MAX_CONTROL:  # §5.5
            raise Failure(PROTOCOL_ERROR, f"control frame of more than {MAX_CONTROL} bytes")
        data = self._data
        end = start + length
        if len(data) < end:
            return None
        payload = data[start:end]
        if self._mask_bit:
            payload = apply_mask(payload, data[start - 4 : start])
        self._pos = end
        if first == FIN | PING:
            return Ping(payload)
        if first == FIN | PONG:
            return Pong(payload)
        return _parse_close(payload)

    def _check_length(self, first: int, length: int) -> None:
        """Judge the length of a frame that is larger than the room left for its message."""
        if not first & RSV1 or length > self._compressed_limit:
            raise Failure(TOO_BIG, f"message of more than {self._limit} bytes")

    def _unexpected(self, first: int) -> Failure:
        """Say what is wrong with a frame's first byte."""
        opcode = first & 0x0F
        compressible = self._inflater is not None and opcode in (TEXT, BINARY)
        if first & 0x30 or (first & RSV1 and not compressible):
            reason = "reserved bit set"
        elif opcode & 0x07 > 2:
            reason = f"reserved opcode {opcode}"
        elif opcode & 0x08:
            reason = "control frame in fragments"
        elif self._expected is _IN_MESSAGE:
            reason = "new message before the end of the last one"
        else:
            reason = "continuation of no message"
        return Failure(PROTOCOL_ERROR, reason)


def _decode(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise _invalid_text(error) from error


def _invalid_text(error: UnicodeDecodeError) -> Failure:
    return Failure(INVALID_DATA, f"invalid UTF-8: {error.reason}")


def _not_shortest() -> Failure:
    return Failure(PROTOCOL_ERROR, "length not in its shortest form")  # §5.2


def _parse_close(payload: bytes) -> Close:
    """Read the payload of a close frame (§5.5.1, §7.4)."""
    if not payload:
        return Close(NO_STATUS)
    if len(payload) == 1:
        raise Failure(PROTOCOL_ERROR, "close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not is_close_code(code):
        raise Failure(PROTOCOL_ERROR, f"invalid close code {code}")
    return Close(code, _decode(payload[2:]))
