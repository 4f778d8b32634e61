"""Which close codes and reasons may be put on the wire (RFC 6455 §5.5.1, §7.4).

Nothing else lives here. Used by everything that closes a connection, or reads a close frame.
"""

from __future__ import annotations

from typing import Final

__all__ = (
    "ABNORMAL",
    "INVALID_DATA",
    "NO_STATUS",
    "PROTOCOL_ERROR",
    "TOO_BIG",
    "check_close",
    "is_close_code",
)

PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005  # never sent: the close frame had no code
ABNORMAL: Final = 1006  # never sent: there was no close frame
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009

_MAX_REASON = 123  # a control frame carries 125 bytes, and the code takes two of them


def is_close_code(code: int) -> bool:
    """Tell whether a code may stand in a close frame.

    These are 1000-1003 and 1007-1014 (the codes of the IANA registry that may be sent), and
    3000-4999 (registered by libraries, and private).
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_close(code: int, reason: str) -> None:
    """Refuse what must not stand in a close frame.

    Args:
        code: one that ``is_close_code``.
        reason: at most 123 bytes of UTF-8.

    Raises:
        ValueError: if either is outside its range.
    """
    if not is_close_code(code):
        raise ValueError(f"Expected a close code of 1000-1003, 1007-1014 or 3000-4999, got {code}")
    size = len(reason.encode())
    if size > _MAX_REASON:
        raise ValueError(
            f"Expected a close reason of at most {_MAX_REASON} bytes of UTF-8, got {size}"
        )
