"""Typed JSON: what goes in comes out, and nothing that comes in breaks it."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import DecodeError
from hubbub.codecs import typed

TEXTS = st.one_of(
    st.text(),
    st.builds(
        "{}::{}".format,
        st.text(max_size=8),
        st.sampled_from(["N", "D", "DH", "DHZ", "H", "L", "R", "T", "B", "NN", "QS", "RAW", "JS"]),
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.decimals(allow_nan=False),
    st.dates(),
    st.binary(max_size=20),
    st.datetimes(timezones=st.just(UTC)).map(
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    ),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)


@given(VALUES, st.sampled_from(typed.MARKERS))
def test_round_trip(value: Any, marker: str) -> None:
    assert typed.decode(typed.encode(value, marker)) == value


@given(st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_without_a_marker_it_is_json(value: Any) -> None:
    assert typed.decode(json.dumps(value)) == value


@given(
    st.one_of(st.text(), st.recursive(TEXTS, st.lists).map(json.dumps)),
    st.sampled_from([*typed.MARKERS, ""]),
)
def test_whatever_comes_it_decodes_or_says_that_it_does_not(text: str, marker: str) -> None:
    with contextlib.suppress(json.JSONDecodeError, DecodeError):
        typed.decode(text + marker)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_is_not_json(value: float) -> None:
    assert typed.decode(typed.encode([value])) == [None]
