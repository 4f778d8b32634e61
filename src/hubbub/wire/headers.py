"""The grammar of the handshake's header fields (RFC 6455 §4.3, §9.1; RFC 9110 §5.6).

No judgement on what they ask for lives here. Used by both sides of the handshake, and by
deflate.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

__all__ = (
    "Extension",
    "Headers",
    "Parameters",
    "accept_key",
    "field_values",
    "group_fields",
    "parse_extensions",
    "parse_tokens",
)

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names and values in the order of the wire; names in lower case."""

Parameters: TypeAlias = tuple[tuple[str, str | None], ...]
"""Names and values in the order of the wire, repeated ones included."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_token = re.compile(_TOKEN)
_tokens = re.compile(rf"[ \t]*(?:{_TOKEN}[ \t]*)?(?:,[ \t]*(?:{_TOKEN}[ \t]*)?)*")
# One name, with its value if it has one, and the delimiter after it.
_item = re.compile(
    rf'[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?[ \t]*([;,]|\Z)'
)
_empty = re.compile(r"[ \t]*,?")


class Extension(NamedTuple):
    """One element of Sec-WebSocket-Extensions: an offer, or what was agreed on."""

    name: str
    parameters: Parameters = ()

    def __str__(self) -> str:
        return "; ".join((self.name, *(k if v is None else f"{k}={v}" for k, v in self.parameters)))


def accept_key(key: bytes) -> bytes:
    """Compute Sec-WebSocket-Accept from Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def field_values(headers: Headers, name: bytes) -> list[str]:
    """Collect the values of all fields with a name (in lower case)."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def group_fields(headers: Headers) -> dict[bytes, list[str]]:
    """Collect the values of all fields, by name."""
    fields: dict[bytes, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value.decode("latin-1"))
    return fields


def parse_tokens(values: Iterable[str]) -> list[str]:
    """Parse a list of tokens, such as that of Sec-WebSocket-Protocol or Connection.

    Several fields make one list, and empty elements do not count (RFC 9110 §5.6.1).

    Raises:
        ValueError: if a value is not a list of tokens.
    """
    tokens: list[str] = []
    for value in values:
        if not _tokens.fullmatch(value):
            raise ValueError(f"Expected a list of tokens, got {value!r}")
        tokens += _token.findall(value)
    return tokens


def parse_extensions(values: Iterable[str]) -> list[Extension]:
    """Parse Sec-WebSocket-Extensions (RFC 6455 §9.1).

    Raises:
        ValueError: if a value does not follow the grammar.
    """
    return [extension for value in values for extension in _parse_extension_list(value)]


def _parse_extension_list(value: str) -> list[Extension]:
    extensions: list[Extension] = []
    names: list[tuple[str, str | None]] = []  # of one element: the extension, its parameters
    pos = 0
    while pos < len(value):
        item = _item.match(value, pos)
        if item is None:
            empty = _empty.match(value, pos)
            if names or empty is None or empty.end() == pos:
                raise ValueError(f"Expected a list of extensions, got {value!r}")
            pos = empty.end()
            continue
        name, token, quoted, delimiter = item.groups()
        argument = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if not names and argument is not None:
            raise ValueError(f"Expected the name of an extension, got {item[0]!r}")
        names.append((name, argument))
        if delimiter != ";":
            extensions.append(Extension(name=names[0][0], parameters=tuple(names[1:])))
            names = []
        pos = item.end()
    if names:
        raise ValueError(f"Expected a parameter at the end of {value!r}")
    return extensions
