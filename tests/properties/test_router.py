"""A router against a model: what answers come, and in which order, whatever a peer says."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Router, RouterError
from tests.peer import eventually
from tests.router.client import connected

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.floats(-9, 9).filter(lambda number: not number.is_integer()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=4,
)
ids = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=3) | st.integers(0, 9)
sums = st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.integers(0, 9) | values})
envelopes = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["echo", "add", "fail", "crash", "count", "other", "x.reply", "error"]
        )
    },
    optional={"payload": values | sums | st.integers(0, 3), "id": ids | values},
)
messages = st.lists(
    st.one_of(envelopes, values).map(json.dumps)
    | envelopes.map(lambda envelope: json.dumps(envelope).encode())
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | st.binary(max_size=9),
    max_size=12,
)

THE_END = '{"type": "echo", "payload": "the end"}'
PEERS_FAULT = {"bad_json", "bad_envelope", "invalid_payload", "unknown_type"}


class Add(msgspec.Struct):
    a: int
    b: int


router = Router(max_bad_messages=None, max_running=4)


@router.on("echo")
async def echo(payload: Any) -> Any:
    return payload


@router.on("add")
async def add(payload: Add) -> int:
    return payload.a + payload.b


@router.on("fail")
async def fail() -> None:
    raise RouterError("failed")


@router.on("crash")
async def crash() -> None:
    raise ZeroDivisionError


@router.on("count")
async def count(payload: int) -> Any:
    if not 0 <= payload <= 3:
        raise RouterError("failed")
    for number in range(payload):
        yield number


def answers(message: str | bytes) -> list[tuple[str, Any, Any]]:
    """What a message must be answered with: (type or code, payload, id)."""
    try:
        envelope = json.loads(message, parse_constant=refuse)
    except ValueError:
        return [("bad_json", None, None)]
    if not isinstance(envelope, dict) or not isinstance(envelope.get("type"), str):
        return [("bad_envelope", None, usable_id(envelope))]
    id = usable_id(envelope)
    if not envelope["type"] or id != envelope.get("id"):
        return [("bad_envelope", None, id)]
    return handled(envelope["type"], envelope.get("payload", {}), id)


def handled(type: str, payload: Any, id: Any) -> list[tuple[str, Any, Any]]:
    reply = f"{type}.reply"
    if type == "echo":
        return [(reply, payload, id)] if payload is not None or id is not None else []
    if type == "add":
        numbers: list[Any] = (
            [payload.get("a"), payload.get("b")] if isinstance(payload, dict) else [None]
        )
        if all(is_integer(number) for number in numbers):
            return [(reply, sum(numbers), id)]
        return [("invalid_payload", None, id)]
    if type == "count":
        if not is_integer(payload):
            return [("invalid_payload", None, id)]
        if not 0 <= payload <= 3:
            return [("failed", None, id)]
        end = [] if id is None else [(reply, None, id)]
        return [(reply, number, id) for number in range(payload)] + end
    if is_answer(type):
        return []
    codes = {"fail": "failed", "crash": "internal"}
    return [(codes.get(type, "unknown_type"), None, id)]


def is_bad(message: str | bytes) -> bool | None:
    """Whether a message counts against the peer; None for what is itself an answer."""
    expected = answers(message)
    if expected:
        return expected[0][0] in PEERS_FAULT
    return None if is_answer(json.loads(message)["type"]) else False


def is_answer(type: str) -> bool:
    return type == "error" or type.endswith(".reply")


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def usable_id(envelope: Any) -> Any:
    id: Any = envelope.get("id") if isinstance(envelope, dict) else None
    return id if isinstance(id, str) or (is_integer(id) and abs(id) < 2**53) else None


def refuse(constant: str) -> float:
    raise ValueError(constant)


def heard(message: dict[str, Any]) -> tuple[str, Any, Any]:
    id = message.get("id")
    if message["type"] == "error":
        return (message["payload"]["code"], None, id)
    return (message["type"], message["payload"], id)


@settings(max_examples=100, deadline=None)
@given(said=messages)
async def test_every_message_has_its_answers_in_order(said: list[str | bytes]) -> None:
    async with connected(router) as client:
        for message in [*said, THE_END]:
            client.say(message)
        await eventually(lambda: '"the end"' in str(client.heard[-1:]))
        expected = [answer for message in said for answer in answers(message)]
        assert [heard(message) for message in client.messages[:-1]] == expected
        assert client.closed_with is None


@settings(max_examples=50, deadline=None)
@given(said=messages)
async def test_only_too_many_bad_ones_in_a_row_end_it(said: list[str | bytes]) -> None:
    strict = Router(max_bad_messages=2)
    strict.include(router)
    faults = [fault for message in said if (fault := is_bad(message)) is not None]
    async with connected(strict) as client:
        for message in [*said, THE_END]:
            client.say(message)
        if (True, True) in pairwise(faults):
            await eventually(lambda: client.closed_with)
            assert client.closed_with == (1008, "too many bad messages")
        else:
            await eventually(lambda: '"the end"' in str(client.heard[-1:]))
            assert client.closed_with is None
