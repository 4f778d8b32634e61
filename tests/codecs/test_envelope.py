from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hubbub.codecs.envelope import JSON, MSGPACK, Codec, NoEnvelope
from hubbub.codecs.payload import PayloadType
from hubbub.exceptions import RouterError

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "contract.md").read_text()
SCHEMA = json.loads((DOCS / "contract.schema.json").read_text())
MESSAGE = jsonschema.Draft202012Validator(SCHEMA)
REPLY, ERROR = (
    jsonschema.Draft202012Validator({**SCHEMA["$defs"][name], "$defs": SCHEMA["$defs"]})
    for name in ("reply", "error")
)
ANYTHING = PayloadType(Any)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
types = st.text(max_size=3) | st.sampled_from(["x" * 128, "x" * 129, "é" * 128]) | values
ids = (
    st.text(max_size=3)
    | st.sampled_from(["x" * 128, "x" * 129, 2**53, 2**53 - 1, -(2**53), -(2**53) + 1])
    | values
)
nearly = st.fixed_dictionaries(
    {},
    optional={
        "type": types,
        "payload": values,
        "id": ids,
        "more": st.booleans() | values,
        "x": values,
    },
)


def refused_as(codec: Codec, data: str | bytes) -> str | None:
    """The code that a message is refused with, None if it is not."""
    try:
        codec.decode_payload(codec.decode(data), ANYTHING)
    except RouterError as error:
        return error.code
    return None


@given(nearly | values)
def test_what_is_an_envelope_the_schema_says(value: Any) -> None:
    # To a schema 1.0 is an integer.
    assume(not (isinstance(value, dict) and isinstance(value.get("id"), float)))
    expected = None if MESSAGE.is_valid(value) else "bad_envelope"
    assert refused_as(JSON, json.dumps(value)) == expected
    assert refused_as(MSGPACK, msgspec.msgpack.encode(value)) == expected


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
@given(payload=values, id=st.none() | st.text(max_size=9) | st.integers(-9, 9), more=st.booleans())
def test_replies_are_as_the_schema_says(codec: Codec, payload: Any, id: Any, more: bool) -> None:
    message = codec.encode("x.reply", payload, id, more=more)
    module: Any = msgspec.json if codec is JSON else msgspec.msgpack
    REPLY.validate(module.decode(message))
    envelope = codec.decode(message)
    assert (envelope.type, envelope.id, envelope.more) == ("x.reply", id, more)
    assert codec.decode_payload(envelope, ANYTHING) == payload
    assert isinstance(message, str if codec is JSON else bytes)


@given(details=st.lists(values), id=st.none() | st.text(max_size=9), text=st.text())
def test_errors_are_as_the_schema_says(details: list[Any], id: Any, text: str) -> None:
    message = JSON.encode_error(RouterError("code", text, details), id)
    ERROR.validate(json.loads(message))
    assert JSON.decode(message).is_answer


def test_the_examples_of_the_page_are_what_the_schema_says() -> None:
    decoder, seen = json.JSONDecoder(), list[str]()
    for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL):
        while block := block.lstrip():
            message, end = decoder.raw_decode(block)
            block = block[end:]
            seen.append(message["type"])
            MESSAGE.validate(message)
            if message["type"].endswith(".reply"):
                REPLY.validate(message)
    assert seen == [*("chat.send", "chat.send.reply", "error", "confirm", "confirm.reply", "error")]


@pytest.mark.parametrize(("type", "is_answer"), [("x", False), ("x.reply", True), ("error", True)])
def test_answers_are_known_by_their_type(type: str, is_answer: bool) -> None:
    assert JSON.decode(JSON.encode(type, {})).is_answer == is_answer


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
@given(data=st.binary() | st.text())
def test_anything_is_an_envelope_or_refused(codec: Codec, data: str | bytes) -> None:
    expected = {None, f"bad_{codec.name}", "bad_envelope", "invalid_payload"}
    assert refused_as(codec, data) in expected


def test_text_is_no_messagepack() -> None:
    with pytest.raises(NoEnvelope, match="bad_msgpack: Expected a binary message, got text"):
        MSGPACK.decode('{"type": "x"}')


def test_json_that_breaks_off_is_no_envelope_of_another_kind() -> None:
    with pytest.raises(NoEnvelope) as caught:
        JSON.decode('{"type": 5, "id": 7')
    assert (caught.value.code, caught.value.id) == ("bad_json", None)
    with pytest.raises(NoEnvelope) as caught:
        JSON.decode('{"type": 5, "id": 7}')
    assert (caught.value.code, caught.value.id) == ("bad_envelope", 7)


def test_what_has_no_form_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError, match="Expected a value that can be encoded, got object"):
        JSON.encode("x", object())
    with pytest.raises(ValueError, match="surrogates"):
        JSON.encode("x", "\ud800")


def test_a_codec_says_its_name() -> None:
    assert repr(JSON) == "<Codec json>"
