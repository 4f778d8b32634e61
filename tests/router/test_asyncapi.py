from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from hubbub import Router
from hubbub.codecs.envelope import JSON
from hubbub.router.asyncapi import document
from hubbub.router.contract import describe
from tests.router.messages import Node, app, game, router


@pytest.fixture(scope="module")
def written() -> Any:
    return json.loads(json.dumps(router.asyncapi(title="Game", version="2.0.0")))


def follow(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [each for item in value for each in references(item)]
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for item in value.values() for each in references(item)]
    return []


def test_it_says_what_it_is_of(written: Any) -> None:
    assert written["asyncapi"] == "3.0.0"
    assert written["info"] == {"title": "Game", "version": "2.0.0"}


def test_a_message_that_is_taken(written: Any) -> None:
    operation = written["operations"]["node.add"]
    assert operation["action"] == "receive"
    assert operation["summary"] == "Add a node."
    message = follow(written, operation["messages"][0]["$ref"])
    assert message["name"] == "node.add"
    envelope = message["payload"]
    assert envelope["required"] == ["type", "payload"]
    assert envelope["properties"]["type"] == {"const": "node.add"}
    node = follow(written, envelope["properties"]["payload"]["$ref"])
    assert node["required"] == ["children"]
    reply, error = (follow(written, each["$ref"]) for each in operation["reply"]["messages"])
    assert (reply["name"], error["name"]) == ("node.add.reply", "error")
    assert follow(written, reply["payload"]["properties"]["payload"]["$ref"])["title"] == "Box[int]"


def test_a_message_that_is_sent(written: Any) -> None:
    said, confirm = written["operations"]["said"], written["operations"]["confirm"]
    assert said["action"] == confirm["action"] == "send"
    assert "reply" not in said
    reply = follow(written, confirm["reply"]["messages"][0]["$ref"])
    assert reply["payload"]["properties"]["payload"] == {"type": "boolean"}


def test_replies_of_a_generator_have_an_end(written: Any) -> None:
    operation = written["operations"]["shape_draw"]
    reply = follow(written, operation["reply"]["messages"][0]["$ref"])["payload"]
    validator = jsonschema.Draft7Validator({**reply, "components": written["components"]})
    validator.validate({"type": "shape/draw.reply", "payload": [1, "a"], "id": 7, "more": True})
    validator.validate({"type": "shape/draw.reply", "payload": None, "id": 7})
    assert not validator.is_valid({"type": "shape/draw.reply", "payload": 5, "id": 7})
    single = follow(written, written["operations"]["node.add"]["reply"]["messages"][0]["$ref"])
    assert "more" not in single["payload"]["properties"]


@pytest.mark.parametrize(
    ("type", "required"),
    [("node.add", True), ("shape_draw", True), ("model", False), ("ping", False), ("set", False)],
)
def test_a_payload_that_may_be_left_out(written: Any, type: str, required: bool) -> None:
    message = follow(written, written["operations"][type]["messages"][0]["$ref"])
    assert ("payload" in message["payload"]["required"]) == required


def test_keys_are_what_asyncapi_allows_and_differ(written: Any) -> None:
    assert {"ping", "ping_", "shape_draw"} <= set(written["operations"])
    messages = written["channels"]["router"]["messages"]
    assert messages["ping_"]["name"] == "ping!"


def test_schemas_are_of_draft_7(written: Any) -> None:
    text = json.dumps(written)
    assert "prefixItems" not in text
    assert "discriminator" not in text
    schemas = written["components"]["schemas"]
    assert schemas["Node"]["properties"]["place"]["items"] == [
        {"type": "integer"},
        {"type": "string"},
    ]
    assert schemas["Node"]["properties"]["place"]["additionalItems"] is False
    assert schemas["Point"]["additionalItems"] is True


def test_all_references_lead_somewhere(written: Any) -> None:
    found = references(written)
    assert len(found) > 20
    for reference in found:
        assert follow(written, reference)


def test_what_cannot_be_described_is_anything(written: Any) -> None:
    operation = written["operations"]["ping_"]
    reply = follow(written, operation["reply"]["messages"][0]["$ref"])
    assert reply["payload"]["properties"]["payload"] == {}


def test_several_routers_share_their_schemas() -> None:
    routers = {path: each for path, each in app.routes.items() if isinstance(each, Router)}
    written = document(describe(routers), title="App", version="1")
    assert {name: channel["address"] for name, channel in written["channels"].items()} == {
        "game": "/game",
        "2_other": "/2/other",
    }
    assert {"node.add", "node.add_"} <= set(written["operations"])
    for reference in references(written):
        assert follow(written, reference)


def test_a_router_without_messages() -> None:
    written = Router().asyncapi()
    assert written["operations"] == {}
    assert list(written["channels"]["router"]["messages"]) == ["error"]


def test_what_is_sent_has_a_type_that_can_be() -> None:
    with pytest.raises(ValueError, match="Expected a type"):
        game.sends("error", Node)


def test_a_payload_that_is_described_is_taken() -> None:
    payload = game.routes["node.add"].signature.payload
    assert payload is not None
    envelope = JSON.decode('{"type": "node.add", "payload": {"children": [{"children": []}]}}')
    assert len(JSON.decode_payload(envelope, payload).children) == 1
