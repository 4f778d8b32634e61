"""What the protocol finds in the peer's bytes, messages apart: those are str and bytes.

No behaviour lives here. Made by parser, handed on by protocol to whoever owns the socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from hubbub.types import Data

__all__ = ("Close", "Event", "Failure", "Pause", "Ping", "Pong")


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asks for a pong with the same payload (RFC 6455 §5.5.2)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answers a ping, or just shows that it lives (RFC 6455 §5.5.3)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Many frames made no message. There is more to parse, when other tasks have had a turn."""


@dataclass(frozen=True, slots=True)
class Close:
    """Nothing more comes from the peer. This is the last event.

    Attributes:
        code: the peer's close code; 1005 when its close frame had none, 1006 when it left
            without one. When the peer broke the protocol, the code that tells it so.
        reason: the close reason that goes with the code.
        failed: whether the peer broke the protocol.
    """

    code: int
    reason: str = ""
    failed: bool = False


Event: TypeAlias = Data | Ping | Pong | Close


class Failure(Exception):
    """The peer broke the protocol: "Fail the WebSocket Connection" (RFC 6455 §7.1.7).

    Internal to wire: protocol makes a Close event of it.

    Attributes:
        code: the close code that says what it did: 1002, 1007 or 1009.
        reason: the close reason, for whoever has to find the fault at the other end.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
