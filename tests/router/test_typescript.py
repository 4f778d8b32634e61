"""Whether the types are right, a compiler says: tests/interop/test_contract.py."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub import Router
from hubbub.router.contract import Channel, Contract, Described, describe
from hubbub.router.typescript import declarations
from tests.router.messages import app, router


def type_of(schema: Any, **schemas: Any) -> str:
    """How a payload of some schema is written."""
    messages = Channel([], [Described("x", "", schema, optional=False)])
    text = declarations(Contract({"": messages}, schemas))
    [line] = [line for line in text.splitlines() if '{ type: "x"; ' in line]
    return line.partition("payload: ")[2].rpartition("; id?: Id }")[0]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "unknown"),
        (True, "unknown"),
        (False, "never"),
        ({"type": "string", "format": "date"}, "string"),
        ({"type": "integer"}, "number"),
        ({"type": ["number", "integer", "null"]}, "number | null"),
        ({"type": "boolean"}, "boolean"),
        ({"const": "a"}, '"a"'),
        ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string | null"),
        ({"oneOf": [{"const": 1}, {"const": 1}]}, "1"),
        ({"allOf": [{"type": "object"}, {"anyOf": [{"const": 1}, {"const": 2}]}]},
         "(Record<string, unknown>) & (1 | 2)"),
        ({"type": "array"}, "Array<unknown>"),
        ({"type": "array", "items": {"type": "string"}}, "Array<string>"),
        (
            {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 1},
            "[1, (2)?, ...Array<unknown>]",
        ),
        (
            {"type": "array", "prefixItems": [{"const": 1}], "minItems": 1, "items": False},
            "[1]",
        ),
        ({"type": "object", "additionalProperties": {"const": 1}}, "Record<string, 1>"),
        ({"type": "object", "properties": {}}, "Record<string, unknown>"),
        (
            {"type": "object", "properties": {"a": {}, "b-c": {}}, "required": ["a"]},
            '{ a: unknown; "b-c"?: unknown }',
        ),
    ],
)  # fmt: skip
def test_a_schema(schema: Any, expected: str) -> None:
    assert type_of(schema) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Node", "Node"),
        ("node", "Node"),
        ("Box_int_", "Box_int_"),
        ("pydantic.M-Input", "PydanticMInput"),
        ("Id", "Id_"),
        ("Record", "Record_"),
        ("calls", "Calls_"),
        ("2d", "T2d"),
    ],
)
def test_a_name(name: str, expected: str) -> None:
    reference = {"$ref": f"#/components/schemas/{name}"}
    assert type_of(reference, **{name: {"type": "string"}}) == expected


def test_names_that_would_be_the_same() -> None:
    reference = {"$ref": "#/components/schemas/node"}
    assert type_of(reference, Node={}, node={}) == "Node_"


def test_an_application() -> None:
    text = declarations(describe({"": router}))
    for line in (
        '  | { type: "node.add"; payload: Node; id?: Id }',
        '  | { type: "ping"; payload?: unknown; id?: Id }',
        '  | { type: "confirm.reply"; payload: boolean; id?: Id };',
        '  | { type: "shape/draw.reply"; payload: Point | null; id?: Id; more?: true }',
        '  | { type: "confirm"; payload: Color; id?: Id }',
        "  /** Add a node. */",
        "  /** Draw * a shape. */",
        '  "node.add": { payload: Node; reply: Box_int_ };',
        '  "model": { payload?: PydanticModelInput; reply: PydanticModelOutput | null };',
    ):
        assert line in text.splitlines()


def test_several_routers() -> None:
    routers = {path: each for path, each in app.routes.items() if isinstance(each, Router)}
    text = declarations(describe(routers))
    for name in ("GameClientMessage", "GameServerMessage", "GameCalls", "T2OtherCalls"):
        assert f"export type {name} =" in text
    assert text.count("export type Node =") == 1
