from __future__ import annotations

import importlib
import json as stdlib
import sys
from typing import Any

import pytest

from hubbub.codecs import json


@pytest.fixture(params=["orjson", "stdlib"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    assert json.HAS_ORJSON
    engine: str = request.param
    if engine == "stdlib":
        monkeypatch.setattr(json, "orjson", None)
    return engine


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True]}, '{"a":[1,2.5,null,true]}'),
        ("é☃", '"é☃"'),
        (0, "0"),
    ],
)
def test_both_engines_write_the_same(value: Any, text: str) -> None:
    assert json.encode(value) == text
    assert json.decode(text) == value


@pytest.mark.parametrize("text", ["", "{", "nope", "NaN", "Infinity", "[1,]", "[" * 100_000])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(stdlib.JSONDecodeError):
        json.decode(text)


def test_what_has_no_json_form() -> None:
    with pytest.raises(TypeError):
        json.encode({"a": object()})


def test_nan_never_reaches_the_wire(engine: str) -> None:
    if engine == "orjson":
        assert json.encode(float("nan")) == "null"
    else:
        with pytest.raises(ValueError, match="not JSON compliant"):
            json.encode(float("nan"))


def test_without_orjson_the_standard_library_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)
    try:
        assert not importlib.reload(json).HAS_ORJSON
        assert json.decode(json.encode({"a": "é"})) == {"a": "é"}
    finally:
        monkeypatch.undo()
        importlib.reload(json)
