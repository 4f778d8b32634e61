"""AsyncAPI 3.0 documents (https://www.asyncapi.com) of what routers take and send.

The envelope around the payloads is described here, as docs/contract.md has it. Used by Router
and by the command line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from hubbub.codecs.envelope import ERROR, REPLY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubbub.router.contract import Channel, Contract, Schema

__all__ = ("document",)

_ID: Final[Schema] = {
    "description": "Chosen by the sender of a message; comes back in every answer to it.",
    "anyOf": [{"type": "string", "maxLength": 128}, {"type": "integer"}],
}
_MORE: Final[Schema] = {
    "description": "Further replies to the same message follow.",
    "const": True,
}
_ERROR: Final[Schema] = {
    "type": "object",
    "required": ["code", "message", "details"],
    "properties": {
        "code": {"type": "string", "description": "For programs; stable."},
        "message": {"type": "string", "description": "For people."},
        "details": {"type": "array", "description": "What else there is to say."},
    },
}


def document(contract: Contract, *, title: str, version: str) -> dict[str, Any]:
    """Write a document, as JSON values.

    Args:
        contract: what routers take and send.
        title: the application's name.
        version: the application's version.
    """
    operations: dict[str, Any] = {}
    written: dict[str, Any] = {}
    for path, channel in contract.channels.items():
        key = _key(path.strip("/") or "router", written)
        written[key] = {"address": path or None, "messages": {}}
        _write(channel, f"#/channels/{key}", written[key]["messages"], operations)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": written,
        "operations": operations,
        "components": {
            "schemas": {name: _draft_7(schema) for name, schema in contract.schemas.items()}
        },
    }


def _write(
    channel: Channel, reference: str, messages: dict[str, Any], operations: dict[str, Any]
) -> None:
    def add(
        type: str, payload: Schema, *, optional: bool = False, streams: bool = False
    ) -> dict[str, str]:
        key = _key(type, messages)
        messages[key] = _message(type, payload, optional=optional, streams=streams)
        return {"$ref": f"{reference}/messages/{key}"}

    error = add(ERROR, _ERROR)
    for action, group in (("receive", channel.received), ("send", channel.sent)):
        for each in group:
            operation: dict[str, Any] = {
                "action": action,
                "channel": {"$ref": reference},
                "messages": [add(each.type, each.payload, optional=each.optional)],
            }
            if each.summary:
                operation["summary"] = each.summary
            if each.reply is not None:
                reply = add(each.type + REPLY, each.reply, streams=each.streams)
                operation["reply"] = {"channel": {"$ref": reference}, "messages": [reply, error]}
            operations[_key(each.type, operations)] = operation


def _message(type: str, payload: Schema, *, optional: bool, streams: bool) -> dict[str, Any]:
    """Describe an envelope."""
    properties = {"type": {"const": type}, "payload": _draft_7(payload), "id": _ID}
    if streams:
        properties["payload"] = {"anyOf": [properties["payload"], {"type": "null"}]}
        properties["more"] = _MORE
    return {
        "name": type,
        "correlationId": {"location": "$message.payload#/id"},
        "payload": {
            "type": "object",
            "required": ["type"] if optional else ["type", "payload"],
            "properties": properties,
        },
    }


def _key(name: str, taken: Mapping[str, Any]) -> str:
    """Make a key that AsyncAPI allows, and that is not taken."""
    key = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    while key in taken:
        key += "_"
    return key


def _draft_7(schema: Any) -> Any:
    """Turn a schema of JSON Schema 2020-12 into one of draft 7, as AsyncAPI has them."""
    if not isinstance(schema, dict):
        return schema
    written = {key: _part(key, value) for key, value in schema.items() if key != "discriminator"}
    if "prefixItems" in written:
        written["additionalItems"] = written.pop("items", True)
        written["items"] = written.pop("prefixItems")
    return written


def _part(key: str, value: Any) -> Any:
    if key in ("properties", "patternProperties"):
        return {name: _draft_7(schema) for name, schema in value.items()}
    if key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        return [_draft_7(schema) for schema in value]
    if key in ("items", "additionalProperties", "propertyNames", "not"):
        return _draft_7(value)
    return value
