"""Frames: their first bytes, their headers, and the payload of a close frame (RFC 6455 §5).

How frames make up messages is not decided here: see parser. Used by parser and protocol.
"""

from __future__ import annotations

import os
from enum import Enum
from struct import Struct
from typing import Final

from hubbub.close_codes import NO_STATUS, check_close
from hubbub.wire.masking import apply_mask

__all__ = (
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "FIN",
    "MAX_CONTROL",
    "PING",
    "PONG",
    "RSV1",
    "TEXT",
    "Role",
    "build_frame",
    "build_masked_frame",
    "close_payload",
)

# Plain integers, not an enum: the parser compares one of these for every frame.
CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN: Final = 0x80  # this frame is the last one of its message
RSV1: Final = 0x40  # its message is compressed (RFC 7692 §6)

MAX_CONTROL: Final = 125  # RFC 6455 §5.5


class Role(Enum):
    """Which side of the connection we are."""

    CLIENT = "client"
    SERVER = "server"


# The whole header of a short unmasked frame that is a message by itself, or a control frame.
_SHORT: Final = {
    first: tuple(bytes((first, length)) for length in range(126))
    for first in (
        FIN | TEXT,
        FIN | BINARY,
        FIN | RSV1 | TEXT,
        FIN | RSV1 | BINARY,
        FIN | CLOSE,
        FIN | PING,
        FIN | PONG,
    )
}
_pack_16: Final = Struct("!BBH").pack  # the headers of longer ones
_pack_64: Final = Struct("!BBQ").pack


def _header(first: int, mask_bit: int, length: int) -> bytes:
    """Build a header without the masking key, with the shortest form of the length (§5.2)."""
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 1 << 16:
        return _pack_16(first, mask_bit | 126, length)
    return _pack_64(first, mask_bit | 127, length)


def build_frame(first: int, payload: bytes) -> bytes:
    """Build a frame as a server sends it.

    Args:
        first: the first byte: FIN, reserved bits and opcode.
        payload: the application data, already compressed when RSV1 says so.
    """
    length = len(payload)
    if length < 126 and first in _SHORT:
        return _SHORT[first][length] + payload
    return _header(first, 0, length) + payload


def build_masked_frame(first: int, payload: bytes) -> bytes:
    """Build a frame as a client sends it, masked with a key nobody can foresee (§5.3, §10.3).

    Args:
        first: the first byte: FIN, reserved bits and opcode.
        payload: the application data, already compressed when RSV1 says so.
    """
    mask = os.urandom(4)
    return _header(first, 0x80, len(payload)) + mask + apply_mask(payload, mask)


def close_payload(code: int, reason: str) -> bytes:
    """Build the payload of a close frame (§5.5.1); 1005 stands for an empty one.

    Raises:
        ValueError: if the code or the reason may not stand in a close frame.
    """
    if code == NO_STATUS and not reason:
        return b""
    check_close(code, reason)
    return code.to_bytes(2, "big") + reason.encode()
