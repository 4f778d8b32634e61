"""What a receiver answers to each kind of bad frame, and what it must not mistake for one."""

from __future__ import annotations

import pytest

from hubbub.wire.events import Close
from hubbub.wire.frames import BINARY, CLOSE, CONTINUATION, FIN, PING, RSV1, TEXT, Role
from hubbub.wire.protocol import Protocol
from tests.wire.frame import frame, octets, receive

CASES = {
    "bad utf-8, single frame": (frame(FIN | TEXT, b"a\xff"), 1007),
    "bad utf-8 in the first fragment": (frame(TEXT, b"a\xff"), 1007),
    "bad utf-8 in a frame that is not whole": (frame(FIN | TEXT, b"a\xff" + bytes(99))[:8], 1007),
    "utf-8 cut off at the end": (frame(TEXT, b"\xe2") + frame(FIN | CONTINUATION), 1007),
    "RSV2": (bytes([FIN | 0x20 | TEXT, 0x80]), 1002),
    "RSV3": (bytes([FIN | 0x10 | TEXT, 0x80]), 1002),
    "RSV1 without extension": (bytes([FIN | RSV1 | TEXT, 0x80]), 1002),
    "opcode 3": (bytes([FIN | 3, 0x80]), 1002),
    "opcode 11": (bytes([FIN | 11, 0x80]), 1002),
    "ping of more than 125 bytes": (bytes([FIN | PING, 0x80 | 126]), 1002),
    "fragmented ping": (bytes([PING, 0x80]), 1002),
    "stray continuation": (frame(FIN | CONTINUATION, b"a"), 1002),
    "text inside a fragmented message": (frame(TEXT, b"a") + frame(FIN | TEXT, b"b"), 1002),
    "empty first fragment, then a new text": (frame(TEXT) + frame(FIN | TEXT, b"b"), 1002),
    "unmasked client frame, two bytes": (b"\x81\x01", 1002),
    "length not minimal, 16 bits": (b"\x82\xfe\x00\x7d", 1002),
    "length not minimal, 64 bits": (b"\x82\xff" + (65535).to_bytes(8, "big"), 1002),
    "close code 999": (frame(FIN | CLOSE, (999).to_bytes(2, "big")), 1002),
    "close code 1005": (frame(FIN | CLOSE, (1005).to_bytes(2, "big")), 1002),
    "close code 2999": (frame(FIN | CLOSE, (2999).to_bytes(2, "big")), 1002),
    "close code 5000": (frame(FIN | CLOSE, (5000).to_bytes(2, "big")), 1002),
    "close of one byte": (frame(FIN | CLOSE, b"\x03"), 1002),
    "bad utf-8 in the close reason": (frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007),
    "length of 2^63": (b"\x82\xff\x80" + bytes(7), 1002),  # §5.2: it MUST NOT have that bit
    "length of 2^63-1": (b"\x82\xff\x7f" + b"\xff" * 7, 1009),
    "length over the limit, payload not sent": (
        b"\x82\xff" + (1 << 24 | 1).to_bytes(8, "big"),
        1009,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_frames(name: str) -> None:
    data, code = CASES[name]
    for chunks in ([data], octets(data)):
        protocol = Protocol(Role.SERVER)
        events = receive(protocol, *chunks)
        assert [(event.code, event.failed) for event in events if isinstance(event, Close)] == [
            (code, True)
        ]
        assert protocol.close_code == code


def test_a_character_split_over_fragments() -> None:
    data = frame(TEXT, b"\xf0\x9f") + frame(FIN | CONTINUATION, b"\x98\x80")
    assert receive(Protocol(Role.SERVER), data) == ["😀"]


def test_an_empty_first_fragment() -> None:
    data = frame(BINARY) + frame(FIN | CONTINUATION, b"a")
    assert receive(Protocol(Role.SERVER), data) == [b"a"]
