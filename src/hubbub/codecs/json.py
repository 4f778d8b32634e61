"""JSON texts, by orjson; by the standard library where orjson is not available.

The two differ in speed and in what they encode: orjson also knows dataclasses, ``datetime``
and ``UUID``. Both refuse what is not JSON, in either direction.
"""

from __future__ import annotations

import json
from typing import Any

try:
    import orjson
except ImportError:  # a platform that orjson has no wheel for
    orjson = None  # type: ignore[assignment]

__all__ = ("HAS_ORJSON", "decode", "encode")

HAS_ORJSON = orjson is not None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def encode(value: Any) -> str:
    """Encode a value as JSON text.

    Raises:
        TypeError: if the value, or something in it, has no JSON form.
        ValueError: without orjson, which writes ``null``, if it holds NaN or an infinity.
    """
    if orjson is not None:
        return orjson.dumps(value).decode()
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def decode(text: str) -> Any:
    """Decode a JSON text.

    Raises:
        json.JSONDecodeError: if it is not JSON (RFC 8259), or nested too deeply.
    """
    if orjson is not None:
        return orjson.loads(text)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise json.JSONDecodeError(str(error), text, 0) from error
