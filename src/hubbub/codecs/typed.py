"""TYTX: JSON texts whose strings carry the types that JSON lacks, by genro-tytx.

``{"price":"1.50::N"}::JS`` is a dict with a ``Decimal``. The only file that knows genro-tytx
(the ``tytx`` extra), which it imports when it is used. What is hydrated is decided here: a text
without a marker is plain JSON, so nobody's ``"100::N"`` turns into a number by accident.
"""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hubbub.codecs import json
from hubbub.exceptions import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("HAS_TYTX", "MARKERS", "decode", "encode")

HAS_TYTX = find_spec("genro_tytx") is not None

MARKERS = _TYTX, _JS = ("::TYTX", "::JS")
"""``::TYTX`` is hubbub's own marker, ``::JS`` the one that genro's peers write and read."""

# What earlier writers of ::TYTX called a datetime and a date.
_OLD_CODES = {"dt": "DH", "d": "D"}


def encode(value: Any, marker: str = _TYTX) -> str:
    """Encode a value as a marked TYTX text.

    Args:
        value: JSON values, ``Decimal``, ``date``, ``datetime``, ``time`` and ``bytes``,
            nested at will. Datetimes go as UTC in milliseconds.
        marker: one of ``MARKERS``.

    Raises:
        TypeError: if something in the value has no TYTX form.
        ValueError: if the marker is neither of the two.
    """
    from genro_tytx import to_tytx

    if marker not in MARKERS:
        raise ValueError(f"Expected one of the markers {', '.join(MARKERS)}, got {marker!r}")
    # In a list even a bare scalar is written as JSON; the brackets are then taken off.
    text = str(to_tytx([_map_strings(value, _escape)]))
    return text.removesuffix(_JS)[1:-1] + marker


def decode(text: str) -> Any:
    """Decode a TYTX text; one without a marker is plain JSON.

    Raises:
        json.JSONDecodeError: if the text, without its marker, is not JSON.
        DecodeError: if a string in it is not of the type that it names.
    """
    for marker in MARKERS:
        if text.endswith(marker):
            break
    else:
        return json.decode(text)
    plain = json.decode(text.removesuffix(marker))
    hydrate = _hydrate_any if marker == _TYTX else _hydrate
    try:
        return _map_strings(plain, hydrate)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise DecodeError(f"Expected typed JSON, got {error}") from error


def _map_strings(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(item, change) for item in value]
    return value


def _escape(text: str) -> str:
    """Mark a text that looks typed as text, with TYTX's own suffix for that."""
    return f"{text}::T" if _is_typed(text) else text


def _hydrate(text: str) -> Any:
    from genro_tytx import from_tytx

    return from_tytx(text) if _is_typed(text) else text


def _is_typed(text: str) -> bool:
    from genro_tytx import SUFFIX_TO_TYPE

    _, separator, code = text.rpartition("::")
    return bool(separator) and code in SUFFIX_TO_TYPE


def _hydrate_any(text: str) -> Any:
    """Hydrate a string of either generation of codes.

    ``::D`` has meant both a decimal and a date; no text is both, so the text tells.
    """
    head, separator, code = text.rpartition("::")
    if not separator:
        return text
    if code == "D" and not _is_date(head):
        code = "N"
    return _hydrate(f"{head}::{_OLD_CODES.get(code, code)}")


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    # 20250115 is a date to fromisoformat, and a decimal to everybody else.
    return "-" in text
