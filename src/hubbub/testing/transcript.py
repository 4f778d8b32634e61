"""Transcript: what a peer and an application have said to each other, for whoever reads a failure.

No connection lives here. Written by peer and watching; read by people.
"""

from __future__ import annotations

import reprlib
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hubbub.types import Data

__all__ = ("Transcript", "describe")

_KEPT: Final = 50  # entries
_shorten: Final = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 100


class Transcript:
    """The last things that both sides of a connection did, in their order.

    Attributes:
        application: what has become of the application.
        waiting: where it waits.
    """

    __slots__ = ("_entries", "_head", "_number", "application", "waiting")

    def __init__(self, title: str) -> None:
        self.application = "was not called yet"
        self.waiting: list[str] = []
        self._head = f"{title}: the application "
        self._entries: deque[str] = deque(maxlen=_KEPT)
        self._number = 0

    def peer(self, did: str) -> None:
        """Note what the peer did."""
        self._note("peer", did)

    def app(self, did: str) -> None:
        """Note what the application did."""
        self._note("app ", did)

    def is_in(self, text: str) -> bool:
        """Tell whether a text shows it, as it is now or as it was before."""
        return self._head in text

    def _note(self, who: str, did: str) -> None:
        self._number += 1
        self._entries.append(f"  {self._number:3}  {who}  {did}")

    def __str__(self) -> str:
        waits = f", and waits in {' and '.join(self.waiting)}" if self.waiting else ""
        lines = [f"{self._head}{self.application}{waits}"]
        if (missing := self._number - len(self._entries)) > 0:
            lines.append(f"       … {missing} before that")
        return "\n".join([*lines, *self._entries])


def describe(data: Data) -> str:
    """Show a message, or the beginning and the end of a long one."""
    kind, unit = ("text", "characters") if isinstance(data, str) else ("bytes", "bytes")
    shown = _shorten.repr(data)
    return f"{kind} {shown}" if len(data) < 100 else f"{kind} {shown} ({len(data)} {unit})"
