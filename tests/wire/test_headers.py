from __future__ import annotations

from contextlib import suppress

import pytest

from hubbub.wire.headers import (
    Extension,
    accept_key,
    field_values,
    group_fields,
    parse_extensions,
    parse_tokens,
)


def test_sample_key_of_rfc6455_1_3() -> None:
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_field_values() -> None:
    headers = [(b"a", b"1"), (b"b", b"2"), (b"a", b"\xe9")]
    assert field_values(headers, b"a") == ["1", "é"]
    assert field_values(headers, b"c") == []
    assert group_fields(headers) == {b"a": ["1", "é"], b"b": ["2"]}


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ([], []),
        ([""], []),
        (["chat"], ["chat"]),
        (["chat, superchat", "v2.json"], ["chat", "superchat", "v2.json"]),
        ([" ,a,\t,b , "], ["a", "b"]),
        ([" ", "\t,"], []),
    ],
)
def test_tokens(values: list[str], tokens: list[str]) -> None:
    assert parse_tokens(values) == tokens


@pytest.mark.parametrize(
    "value", ["a b", "a;b", '"a"', "é", "a,b c", "a/b", "a\x00", "a\n", "a,é", "é,a"]
)
def test_what_is_no_token(value: str) -> None:
    with pytest.raises(ValueError, match="Expected a list of tokens, got"):
        parse_tokens([value])


@pytest.mark.parametrize(
    ("value", "extensions"),
    [
        ("", []),
        (" ", []),
        ("foo", [Extension("foo")]),
        (" foo\t", [Extension("foo")]),
        ("foo, bar; baz=2", [Extension("foo"), Extension("bar", (("baz", "2"),))]),
        (",foo,, bar ,", [Extension("foo"), Extension("bar")]),
        ("a;b;b=1;b=2", [Extension("a", (("b", None), ("b", "1"), ("b", "2")))]),
        ('a ; b = "10"', [Extension("a", (("b", "10"),))]),
        (r'a;b="x\"\\y,;z"', [Extension("a", (("b", r"x\"\y,;z".replace(r"\"", '"')),))]),
        ('a;b=""', [Extension("a", (("b", ""),))]),
    ],
)
def test_extensions(value: str, extensions: list[Extension]) -> None:
    assert parse_extensions([value]) == extensions


@pytest.mark.parametrize(
    "value", ["a;", "a;,b", "a;b=", "a=b", "a b", ";a", 'a;b="x', "a;b==1", "=", 'a;b="x"y', "é"]
)
def test_what_is_no_list_of_extensions(value: str) -> None:
    with pytest.raises(ValueError, match="Expected"):
        parse_extensions([value])


def test_a_hostile_list_takes_no_long_time() -> None:
    for value in (
        "," * 60_000,
        ", " * 30_000 + "=",
        " " * 60_000 + "=",
        "a" * 60_000 + "=",
        "a;" * 30_000,
        'a;b="' + "\\" * 60_000,
    ):
        for parse in (parse_extensions, parse_tokens):
            with suppress(ValueError):
                parse([value])


def test_an_extension_as_text() -> None:
    assert str(Extension("a")) == "a"
    assert str(Extension("a", (("b", None), ("c", "9")))) == "a; b; c=9"
