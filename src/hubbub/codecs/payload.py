"""PayloadType: what a payload has to be, and how bytes become one.

A type is msgspec's business (Struct, dataclass, TypedDict, attrs, builtins), or pydantic's when
something of pydantic's is in it. The only file that knows pydantic, and it never imports it:
whoever has a model has done so. Used by the router and by the envelope's codecs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from hubbub.exceptions import RouterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import TypeAdapter, ValidationError

__all__ = ("PayloadType", "encode_hook", "explain")

_MAX_PROBLEMS = 10  # of one payload, that its peer is told
_MAX_TEXT = 200  # characters of each


class PayloadType:
    """A type that payloads are validated by.

    Attributes:
        annotation: the type, as it was written.
        adapter: pydantic's, when the type is its business.
        from_json: makes a value from JSON.
        from_msgpack: makes a value from MessagePack. Both raise ``msgspec.ValidationError``, or
            a ``RouterError`` when there is more to say, for a value that is not of the type; and
            ``msgspec.DecodeError``, ``UnicodeError`` or ``RecursionError`` for bytes that cannot
            be decoded.
    """

    __slots__ = ("adapter", "annotation", "from_json", "from_msgpack")

    def __init__(self, annotation: Any) -> None:
        """Prepare for a type.

        Raises:
            TypeError: if there is no way from a message to the type.
        """
        self.annotation = annotation
        self.adapter: TypeAdapter[Any] | None = None
        self.from_json: Callable[[msgspec.Raw], Any]
        self.from_msgpack: Callable[[msgspec.Raw], Any]
        if _is_pydantics(annotation):
            adapter = self.adapter = sys.modules["pydantic"].TypeAdapter(annotation)
            decode = msgspec.msgpack.Decoder().decode
            validate_json = _by_pydantic(adapter.validate_json)
            validate_python = _by_pydantic(adapter.validate_python)
            self.from_json = lambda raw: validate_json(bytes(raw))
            self.from_msgpack = lambda raw: validate_python(decode(raw))
        else:
            msgspec.json.schema_components((annotation,))  # what has no schema cannot be decoded
            self.from_json = msgspec.json.Decoder(annotation).decode
            self.from_msgpack = msgspec.msgpack.Decoder(annotation).decode


def explain(error: msgspec.ValidationError) -> RouterError:
    """Turn msgspec's error into what a peer is told."""
    message, _, path = str(error).rpartition(" - at ")
    return _invalid([(path.strip("`"), message) if message else ("$", path)])


def encode_hook(value: Any) -> Any:
    """Turn a pydantic model into values that msgspec can encode.

    Raises:
        TypeError: if the value is not a model.
    """
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"Expected a value that can be encoded, got {type(value).__name__}")


def _is_pydantics(annotation: Any) -> bool:
    return (
        hasattr(annotation, "__pydantic_validator__")  # a model, or a dataclass of pydantic's
        or type(annotation).__module__.startswith("pydantic")  # metadata in an Annotated
        or any(map(_is_pydantics, get_args(annotation)))
    )


def _by_pydantic(validate_with: Callable[[Any], Any]) -> Callable[[Any], Any]:
    invalid: type[ValidationError] = sys.modules["pydantic"].ValidationError

    def validate(value: Any) -> Any:
        try:
            return validate_with(value)
        except invalid as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            if problems[0]["type"] == "json_invalid":
                raise msgspec.DecodeError(problems[0]["msg"]) from error
            raise _invalid([(_path(each["loc"]), each["msg"]) for each in problems]) from error

    return validate


def _path(location: tuple[str | int, ...]) -> str:
    """Write pydantic's location as msgspec writes a path."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)


def _invalid(problems: list[tuple[str, str]]) -> RouterError:
    """Say what is wrong where, within bounds: part of the text is the peer's own."""
    details = [
        {"path": _shorten(path), "message": _shorten(message)}
        for path, message in problems[:_MAX_PROBLEMS]
    ]
    first = details[0]
    return RouterError("invalid_payload", f"{first['message']} at {first['path']}", details)


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
