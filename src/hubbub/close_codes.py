"""Which close codes and reasons may be put on the wire (RFC 6455 §5.5.1, §7.4).

Nothing else lives here. Used by everything that closes a connection.
"""

from __future__ import annotations

__all__ = ("check_close",)

_MAX_REASON = 123  # a control frame carries 125 bytes, and the code takes two of them


def check_close(code: int, reason: str) -> None:
    """Refuse what must not stand in a close frame.

    Args:
        code: 1000-1003 or 1007-1014 (the codes of the IANA registry that may be sent), or
            3000-4999 (registered by libraries, and private).
        reason: at most 123 bytes of UTF-8.

    Raises:
        ValueError: if either is outside its range.
    """
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ValueError(f"Expected a close code of 1000-1003, 1007-1014 or 3000-4999, got {code}")
    size = len(reason.encode())
    if size > _MAX_REASON:
        raise ValueError(
            f"Expected a close reason of at most {_MAX_REASON} bytes of UTF-8, got {size}"
        )
