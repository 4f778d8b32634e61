from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from genro_tytx import from_tytx, to_tytx

from hubbub import DecodeError
from hubbub.codecs import typed

MOMENT = datetime(2025, 1, 15, 12, 30, tzinfo=UTC)
VALUES = [
    {"price": Decimal("100.50"), "day": date(2025, 1, 15), "at": MOMENT, "t": time(12, 3)},
    {"raw": b"\0\xff", "nothing": None, "yes": True, "n": 1, "f": 1.5},
    [Decimal(1), [Decimal(2)], {"a": [date(2025, 1, 1)]}],
    Decimal("1.10"),
    MOMENT,
    "plain",
    None,
    {},
]
LOOK_TYPED = ["100::N", "std::D", "a=1&b=2::QS", "x::T", "x::T::T", "::N", "{}::JS", "a::TYTX"]


@pytest.mark.parametrize("marker", typed.MARKERS)
@pytest.mark.parametrize("value", [*VALUES, *LOOK_TYPED, LOOK_TYPED])
def test_round_trip(value: Any, marker: str) -> None:
    text = typed.encode(value, marker)
    assert text.endswith(marker)
    json.loads(text.removesuffix(marker))
    assert typed.decode(text) == value


@pytest.mark.parametrize("value", [*VALUES, *LOOK_TYPED])
def test_genro_reads_what_we_write(value: Any) -> None:
    assert from_tytx(typed.encode(value, "::JS")) == value


@pytest.mark.parametrize("value", [value for value in VALUES if isinstance(value, dict | list)])
def test_we_read_what_genro_writes(value: Any) -> None:
    assert typed.decode(str(to_tytx(value))) == value


def test_without_a_marker_nothing_is_hydrated() -> None:
    assert typed.decode('{"a":"100::N"}') == {"a": "100::N"}


def test_the_older_codes_of_the_tytx_marker() -> None:
    text = (
        '{"price": "100.50::D", "n": "20250115::D", "day": "2025-01-15::d", '
        '"new": "2025-01-15::D", "at": "2025-01-15T12:30:00::dt", "other": "a::b"}::TYTX'
    )
    assert typed.decode(text) == {
        "price": Decimal("100.50"),
        "n": Decimal(20250115),
        "day": date(2025, 1, 15),
        "new": date(2025, 1, 15),
        "at": datetime(2025, 1, 15, 12, 30),
        "other": "a::b",
    }


@pytest.mark.parametrize("text", ["::JS", "{::JS", "nope::TYTX", "1.5::N", "'a'::JS"])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        typed.decode(text)


@pytest.mark.parametrize(
    "value",
    ["std::D", "abc::N", "zz::RAW", "x::L", "25:00::H", "9" * 5000 + "::L", "x::R", "::DH"],
)
@pytest.mark.parametrize("marker", typed.MARKERS)
def test_a_string_that_is_not_what_it_names(value: str, marker: str) -> None:
    with pytest.raises(DecodeError, match="Expected typed JSON, got"):
        typed.decode(json.dumps([value]) + marker)


def test_what_has_no_typed_form() -> None:
    with pytest.raises(TypeError):
        typed.encode({1, 2})


def test_another_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected one of the markers ::TYTX, ::JS, got '::X'"):
        typed.encode({}, "::X")
