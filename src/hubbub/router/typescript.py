"""TypeScript types of what routers take and send.

Types only, for a client that somebody else has written. Used by the command line.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from hubbub.codecs.envelope import REPLY
from hubbub.router.contract import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hubbub.router.contract import Channel, Contract, Described, Schema

__all__ = ("declarations",)

_HEAD: Final = """\
// What goes over the wire, written by `hubbub types`.

/** Chosen by the sender of a message; comes back in every answer to it. */
export type Id = string | number;

/** The answer to a message that was not handled, or not to its end. */
export type ErrorMessage = {
  type: "error";
  payload: { code: string; message: string; details: unknown[] };
  id?: Id;
};
"""
# Names that an application's type cannot have.
_TAKEN: Final = frozenset({"Array", "ErrorMessage", "Id", "Record"})
_OURS: Final = ("ClientMessage", "ServerMessage", "Calls")
_SCALARS: Final = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
}


def declarations(contract: Contract) -> str:
    """Write the declarations, as the text of a module.

    For each router: ``ClientMessage`` and ``ServerMessage``, what either side may send, and
    ``Calls``: type -> payload and reply. If there are several, with its path before the names.
    """
    several = len(contract.channels) > 1
    prefixes = {path: _camel(path) if several else "" for path in contract.channels}
    taken = {prefix + name for prefix in prefixes.values() for name in _OURS}
    writer = _Writer(contract.schemas, _TAKEN | taken)
    types = [
        f"export type {writer.names[name]} = {writer.type(schema)};\n"
        for name, schema in contract.schemas.items()
    ]
    channels = [
        writer.channel(prefixes[path], channel) for path, channel in contract.channels.items()
    ]
    return "\n".join([_HEAD, *types, *channels])


class _Writer:
    """Writes schemas as types.

    Attributes:
        names: the names of schemas -> those of their types.
    """

    def __init__(self, schemas: Mapping[str, Schema], taken: set[str] | frozenset[str]) -> None:
        self.names: dict[str, str] = {}
        for schema in schemas:
            name = _camel(schema)
            while name in taken or name in self.names.values():
                name += "_"
            self.names[schema] = name

    def channel(self, prefix: str, channel: Channel) -> str:
        client, server, calls = ["ErrorMessage"], ["ErrorMessage"], []
        for each in channel.received:
            payload, reply = self.type(each.payload), self.type(each.reply)
            client.append(_message(each.type, payload, optional=each.optional))
            if each.streams:
                reply = _union([reply, "null"])
            server.append(_message(each.type + REPLY, reply, more=each.streams))
            calls.append(_comment(each.summary) + _call(each, payload, reply))
        for each in channel.sent:
            server.append(_message(each.type, self.type(each.payload)))
            if each.reply is not None:
                client.append(_message(each.type + REPLY, self.type(each.reply)))
        return (
            f"/** What a client may send. */\n"
            f"export type {prefix}ClientMessage ={_lines(client)};\n\n"
            f"/** What the server may send. */\n"
            f"export type {prefix}ServerMessage ={_lines(server)};\n\n"
            f"/** What a client may ask: type -> payload and reply. */\n"
            f"export type {prefix}Calls = {{\n{''.join(calls)}}};\n"
        )

    def type(self, schema: Any) -> str:
        """Write a schema; what TypeScript cannot say is ``unknown``."""
        if not isinstance(schema, dict):
            return "never" if schema is False else "unknown"
        if "$ref" in schema:
            return self.names[schema["$ref"].removeprefix(REFERENCE)]
        if "const" in schema:
            return _literal(schema["const"])
        if "enum" in schema:
            return _union(map(_literal, schema["enum"]))
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return _union(map(self.type, schema[key]))
        if "allOf" in schema:
            return " & ".join(f"({self.type(part)})" for part in schema["allOf"])
        kinds = schema.get("type", ())
        kinds = [kinds] if isinstance(kinds, str) else kinds
        return _union(self._kind(kind, schema) for kind in kinds) or "unknown"

    def _kind(self, kind: str, schema: Schema) -> str:
        if kind == "array":
            return self._array(schema)
        if kind == "object":
            return self._object(schema)
        return _SCALARS[kind]

    def _array(self, schema: Schema) -> str:
        rest = schema.get("items")
        if "prefixItems" not in schema:
            return f"Array<{self.type(rest)}>"
        required = schema.get("minItems", 0)
        items = [
            self.type(item) if at < required else f"({self.type(item)})?"
            for at, item in enumerate(schema["prefixItems"])
        ]
        if rest is not False:
            items.append(f"...Array<{self.type(rest)}>")
        return f"[{', '.join(items)}]"

    def _object(self, schema: Schema) -> str:
        if "properties" not in schema:
            return f"Record<string, {self.type(schema.get('additionalProperties'))}>"
        required = schema.get("required", ())
        fields = [
            f"{_field(name)}{'' if name in required else '?'}: {self.type(field)}"
            for name, field in schema["properties"].items()
        ]
        return f"{{ {'; '.join(fields)} }}" if fields else "Record<string, unknown>"


def _message(type: str, payload: str, *, optional: bool = False, more: bool = False) -> str:
    mark = "?" if optional else ""
    end = "; more?: true" if more else ""
    return f"{{ type: {_literal(type)}; payload{mark}: {payload}; id?: Id{end} }}"


def _call(each: Described, payload: str, reply: str) -> str:
    mark = "?" if each.optional else ""
    return f"  {_literal(each.type)}: {{ payload{mark}: {payload}; reply: {reply} }};\n"


def _comment(text: str) -> str:
    return f"  /** {text.replace('*/', '*')} */\n" if text else ""


def _lines(types: Iterable[str]) -> str:
    return "".join(f"\n  | {type}" for type in types)


def _union(types: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(types))


def _field(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else json.dumps(name)


def _literal(value: Any) -> str:
    return json.dumps(value)


def _camel(name: str) -> str:
    """Make a name that TypeScript allows for a type, and has no word of its own like it."""
    words = re.findall(r"[A-Za-z0-9_]+", name)
    camel = "".join(word[0].upper() + word[1:] for word in words)
    return camel if camel[:1].isalpha() else f"T{camel}"
