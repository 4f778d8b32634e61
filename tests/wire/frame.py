"""Frames written out by hand, so that the code under test is not its own judge."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hubbub.wire.events import Pause
from hubbub.wire.frames import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hubbub.wire.events import Event
    from hubbub.wire.protocol import Protocol

KEY = bytes.fromhex("37fa213d")  # RFC 6455 §5.7


def xor(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def frame(first: int, payload: bytes = b"", *, key: bytes | None = KEY) -> bytes:
    """A frame as a client sends it; as a server does when `key` is None."""
    bit = 0 if key is None else 0x80
    if len(payload) < 126:
        header = struct.pack("!BB", first, bit | len(payload))
    elif len(payload) < 65536:
        header = struct.pack("!BBH", first, bit | 126, len(payload))
    else:
        header = struct.pack("!BBQ", first, bit | 127, len(payload))
    return header + payload if key is None else header + key + xor(payload, key)


def peer_frame(role: Role, first: int, payload: bytes = b"") -> bytes:
    """A frame as the peer of `role` sends it."""
    return frame(first, payload, key=KEY if role is Role.SERVER else None)


def receive(protocol: Protocol, *chunks: bytes) -> list[Event]:
    """All events of some chunks, each taken as soon as it is there."""
    events: list[Event] = []
    for chunk in chunks:
        protocol.receive_data(chunk)
        events += drain(protocol)
    return events


def drain(protocol: Protocol) -> Iterable[Event]:
    """All events, without a pause."""
    while (event := protocol.next_event()) is not None:
        if not isinstance(event, Pause):
            yield event


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]
