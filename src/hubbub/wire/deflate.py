"""permessage-deflate: what is agreed on, and messages compressed and inflated (RFC 7692).

No frame lives here. Used by parser and protocol for messages, by handshake for the agreement.
"""

from __future__ import annotations

import re
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hubbub.close_codes import INVALID_DATA, TOO_BIG
from hubbub.wire.events import Failure
from hubbub.wire.frames import Role
from hubbub.wire.headers import Extension

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hubbub.wire.headers import Parameters

__all__ = ("OFFER", "Inflater", "PerMessageDeflate", "check_answer", "deflate", "negotiate")

_NAME: Final = "permessage-deflate"
_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_WINDOWS = ("server_max_window_bits", "client_max_window_bits")
_window_bits = re.compile("[89]|1[0-5]")  # no leading zeros (RFC 7692 §7.1.2)

_LEVEL = 1  # 10 KiB of JSON shrink to 24 % in 25 us; at level 6, to 19 % in 126 us (measured)
_MEM_LEVEL = 5  # a fresh context costs 5 us less than at 8, for the same ratio (measured)
_TAIL = b"\x00\x00\xff\xff"  # left out on the wire (RFC 7692 §7.2.1)
_MAX_FINAL_BLOCKS = 16  # of one message; each costs a new context and a copy of the rest

OFFER: Final = Extension(
    _NAME, (("client_no_context_takeover", None), ("client_max_window_bits", None))
)
"""What our client offers: it never keeps a context, and lets the server choose its window."""


@dataclass(frozen=True, slots=True)
class PerMessageDeflate:
    """The parameters that both sides agreed on (RFC 7692 §7.1); None for one that was not used."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    def window_bits(self, sender: Role) -> int:
        """Tell how far back the messages of one side may refer (RFC 7692 §7.1.2)."""
        if sender is Role.SERVER:
            return self.server_max_window_bits or 15
        return self.client_max_window_bits or 15

    def takeover(self, sender: Role) -> bool:
        """Tell whether the messages of one side may refer to its earlier ones (§7.1.1)."""
        if sender is Role.SERVER:
            return not self.server_no_context_takeover
        return not self.client_no_context_takeover

    def extension(self) -> Extension:
        """Return the element of Sec-WebSocket-Extensions that states this."""
        flags = [(name, None) for name in _FLAGS if getattr(self, name)]
        windows = [(name, str(bits)) for name in _WINDOWS if (bits := getattr(self, name))]
        return Extension(_NAME, (*flags, *windows))


def negotiate(
    offers: Iterable[Extension], *, client_no_context_takeover: bool = True
) -> PerMessageDeflate | None:
    """Answer a client's offers, as a server: agree to the first one that is valid.

    The answer always has ``server_no_context_takeover``: each message of ours is compressed
    by itself, so that one compressed frame serves all members of a room, and no connection
    keeps a context.

    Args:
        offers: all elements of Sec-WebSocket-Extensions, in the client's order.
        client_no_context_takeover: whether to ask the same of the client, which saves about
            40 KiB a connection and costs the client some compression.

    Returns:
        What to answer; None to go without compression.
    """
    for offer in offers:
        if offer.name != _NAME:
            continue
        try:
            asked = _read(offer.parameters)
        except ValueError:
            continue  # decline it, and look at the next (RFC 7692 §7.1)
        return PerMessageDeflate(
            server_no_context_takeover=True,
            client_no_context_takeover=client_no_context_takeover
            or "client_no_context_takeover" in asked,
            server_max_window_bits=asked.get("server_max_window_bits"),
            client_max_window_bits=asked.get("client_max_window_bits"),
        )
    return None


def check_answer(answer: Iterable[Extension]) -> PerMessageDeflate | None:
    """Check a server's answer to ``OFFER``, as a client.

    Args:
        answer: all elements of Sec-WebSocket-Extensions in the response.

    Returns:
        What was agreed on; None when the server goes without compression.

    Raises:
        ValueError: if the offer does not allow the answer (RFC 7692 §7.1, RFC 6455 §9.1).
    """
    agreed: PerMessageDeflate | None = None
    for extension in answer:
        if extension.name != _NAME:
            raise ValueError(f"Expected no extension but {_NAME}, got {extension.name}")
        if agreed is not None:
            raise ValueError(f"Expected {_NAME} once, got it twice")
        read = _read(extension.parameters)
        if "client_max_window_bits" in read and read["client_max_window_bits"] is None:
            raise ValueError("Expected a value for client_max_window_bits in a response")
        agreed = PerMessageDeflate(
            server_no_context_takeover="server_no_context_takeover" in read,
            client_no_context_takeover="client_no_context_takeover" in read,
            server_max_window_bits=read.get("server_max_window_bits"),
            client_max_window_bits=read.get("client_max_window_bits"),
        )
    return agreed


def _read(parameters: Parameters) -> dict[str, int | None]:
    """Read the parameters of an element; only client_max_window_bits may lack its value."""
    read: dict[str, int | None] = {}
    for name, value in parameters:
        if name in read:
            raise ValueError(f"Expected {name} once, got it twice")
        if value is None and name in (*_FLAGS, "client_max_window_bits"):
            read[name] = None
        elif value is not None and name in _WINDOWS and _window_bits.fullmatch(value):
            read[name] = int(value)
        else:
            raise ValueError(f"Expected a parameter of {_NAME}, got {name}={value}")
    return read


def deflate(payload: bytes, window_bits: int = 15) -> bytes:
    """Compress a message by itself, with a fresh context (RFC 7692 §7.2.1).

    Args:
        payload: the message.
        window_bits: 9 to 15, at most what was agreed on for this direction.
    """
    context = zlib.compressobj(_LEVEL, zlib.DEFLATED, -window_bits, _MEM_LEVEL)
    return context.compress(payload) + context.flush(zlib.Z_SYNC_FLUSH)[: -len(_TAIL)]


class Inflater:
    """Inflates the messages of one peer, and never past a limit (RFC 7692 §7.2.2).

    Args:
        takeover: whether the peer may refer to earlier messages.
        window_bits: how far back the peer may refer, as agreed on.
        max_size: the limit for one message, inflated; None for none.
    """

    __slots__ = ("_context", "_max_length", "_max_size", "_takeover", "_window_bits")

    def __init__(self, *, takeover: bool, window_bits: int, max_size: int | None) -> None:
        self._takeover = takeover
        self._window_bits = window_bits
        self._max_size = sys.maxsize if max_size is None else max_size
        self._max_length = 0 if max_size is None else max_size + 1  # for zlib, 0 is no limit
        self._context: zlib._Decompress | None = None  # from message to message, with takeover

    def inflate(self, payload: bytes) -> bytes:
        """Inflate a message.

        Raises:
            Failure: 1009 if it is larger than the limit (it is inflated to the limit, not
                further), 1007 if it is not the output of DEFLATE.
        """
        context = self._context or zlib.decompressobj(-self._window_bits)
        try:
            data = context.decompress(payload + _TAIL, self._max_length)
            if context.eof:
                context, data = self._inflate_rest(context, data)
        except zlib.error as error:
            raise Failure(INVALID_DATA, "invalid compressed data") from error
        if len(data) > self._max_size:
            raise Failure(TOO_BIG, f"message of more than {self._max_size} bytes")
        if self._takeover:
            self._context = None if context.eof else context
        return data

    def _inflate_rest(
        self, context: zlib._Decompress, data: bytes
    ) -> tuple[zlib._Decompress, bytes]:
        """Go on after a block with BFINAL, which may end any part of a message (§7.2.3.4)."""
        for _ in range(_MAX_FINAL_BLOCKS):
            rest = context.unused_data  # of a whole message, at most the tail we added
            if not context.eof or len(rest) <= len(_TAIL) or len(data) > self._max_size:
                return context, data
            context = zlib.decompressobj(-self._window_bits)
            data += context.decompress(rest, max(self._max_length - len(data), 0))
        raise Failure(INVALID_DATA, f"more than {_MAX_FINAL_BLOCKS} final blocks in a message")
