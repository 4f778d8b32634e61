"""Contract: which messages a router takes and sends, with the schemas of their payloads.

AsyncAPI documents and TypeScript types are made from it, but not here. Schemas are JSON Schema;
those with a name are in one table, to which the others refer. Made by Router and by the command
line.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec

from hubbub.codecs.payload import PayloadType
from hubbub.exceptions import RouterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hubbub.router.routes import Route

__all__ = (
    "REFERENCE",
    "Channel",
    "Contract",
    "Describable",
    "Described",
    "Schema",
    "Sent",
    "describe",
)

Schema: TypeAlias = dict[str, Any]

REFERENCE: Final = "#/components/schemas/"
"""What comes before a schema's name in references to it."""

_PYDANTIC: Final = "pydantic."


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages that the application sends by itself.

    Attributes:
        type: their type.
        payload: the annotation of their payload.
        reply: the annotation of what the peer replies; None when it is not asked.
    """

    type: str
    payload: Any
    reply: Any = None


@dataclass(frozen=True, slots=True)
class Described:
    """Messages of one type.

    Attributes:
        type: the type.
        summary: what they are for, in one line; empty when that is not known.
        payload: the schema of the payload.
        optional: whether the payload may be left out.
        reply: the schema of the reply's payload; None when there is no reply.
        streams: whether there may be several replies.
    """

    type: str
    summary: str
    payload: Schema
    optional: bool
    reply: Schema | None = None
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Channel:
    """The messages of one router.

    Attributes:
        received: what the application takes.
        sent: what it sends by itself.
    """

    received: Sequence[Described]
    sent: Sequence[Described]


@dataclass(frozen=True, slots=True)
class Contract:
    """The messages of some routers, and the schemas that they refer to.

    Attributes:
        channels: path -> the messages of the router there.
        schemas: name -> schema.
    """

    channels: Mapping[str, Channel]
    schemas: Mapping[str, Schema]


class Describable(Protocol):
    """What is asked of a router."""

    @property
    def routes(self) -> Mapping[str, Route]:
        """The routes, by message type."""
        ...

    @property
    def sent(self) -> Mapping[str, Sent]:
        """What the application sends by itself, by message type."""
        ...


def describe(routers: Mapping[str, Describable]) -> Contract:
    """Describe the messages of some routers.

    Args:
        routers: path -> the router there; the path of a single one may be empty.
    """
    made, table = _schemas([wanted for router in routers.values() for wanted in _types(router)])
    schemas = iter(made)
    channels = {
        path: Channel(
            [_received(route, next(schemas), next(schemas)) for route in router.routes.values()],
            [_sent(sent, next(schemas), next(schemas)) for sent in router.sent.values()],
        )
        for path, router in routers.items()
    }
    return Contract(channels, table)


def _types(router: Describable) -> Iterator[tuple[PayloadType | None, bool]]:
    """Yield the types of a router's messages, two each, and whether we write or read them."""
    for route in router.routes.values():
        yield route.signature.payload, False
        yield _type(route.signature.returns), True
    for sent in router.sent.values():
        yield _type(sent.payload), True
        yield _type(sent.reply), False


def _type(annotation: Any) -> PayloadType | None:
    try:
        return PayloadType(annotation)
    except TypeError:  # perhaps it can be sent, but it has no schema
        return None


def _received(route: Route, payload: Schema, reply: Schema) -> Described:
    signature = route.signature
    summary = (inspect.getdoc(route.handler) or "").partition("\n")[0]
    optional = _may_be_empty(signature.payload)
    return Described(route.type, summary, payload, optional, reply, signature.streams)


def _sent(sent: Sent, payload: Schema, reply: Schema) -> Described:
    return Described(sent.type, "", payload, False, None if sent.reply is None else reply)


def _may_be_empty(payload: PayloadType | None) -> bool:
    if payload is None:
        return True
    try:
        payload.from_json(msgspec.Raw(b"{}"))
    except (msgspec.ValidationError, RouterError):
        return False
    return True


def _schemas(
    wanted: Sequence[tuple[PayloadType | None, bool]],
) -> tuple[list[Schema], dict[str, Schema]]:
    """Make a schema of each type, and the table of those that they refer to."""
    schemas: list[Schema] = [{} for _ in wanted]
    types = [(at, type) for at, (type, _) in enumerate(wanted) if type is not None]
    msgspecs = [(at, type.annotation) for at, type in types if type.adapter is None]
    made, table = msgspec.json.schema_components(
        [annotation for _, annotation in msgspecs], ref_template=REFERENCE + "{name}"
    )
    for (at, _), schema in zip(msgspecs, made, strict=True):
        schemas[at] = schema
    pydantics = [
        (at, "serialization" if wanted[at][1] else "validation", type.adapter)
        for at, type in types
        if type.adapter is not None
    ]
    if pydantics:
        # A prefix, because the two libraries may describe one type in two ways.
        adapter: Any = sys.modules["pydantic"].TypeAdapter
        by_index, others = adapter.json_schemas(
            pydantics, ref_template=f"{REFERENCE}{_PYDANTIC}{{model}}"
        )
        for (at, _), schema in by_index.items():
            schemas[at] = schema
        table |= {_PYDANTIC + name: schema for name, schema in others.get("$defs", {}).items()}
    return schemas, table
