from __future__ import annotations

import os

import pytest

from hubbub.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    build_frame,
    build_masked_frame,
    close_payload,
)
from tests.wire.frame import KEY, frame

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 70_000]


@pytest.mark.parametrize(
    ("first", "payload", "expected"),
    [
        (FIN | TEXT, b"Hello", "81 05 48 65 6c 6c 6f"),
        (TEXT, b"Hel", "01 03 48 65 6c"),
        (FIN | CONTINUATION, b"lo", "80 02 6c 6f"),
        (FIN | PING, b"Hello", "89 05 48 65 6c 6c 6f"),
        (FIN | PONG, b"Hello", "8a 05 48 65 6c 6c 6f"),
    ],
)
def test_examples_of_rfc6455_5_7(first: int, payload: bytes, expected: str) -> None:
    assert build_frame(first, payload) == bytes.fromhex(expected)


def test_lengths_of_rfc6455_5_7() -> None:
    assert build_frame(FIN | BINARY, bytes(256))[:4] == bytes.fromhex("827E0100")
    assert build_frame(FIN | BINARY, bytes(65536))[:10] == bytes.fromhex("827F0000000000010000")


def test_masked_example_of_rfc6455_5_7(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: KEY[:size])
    expected = bytes.fromhex("818537fa213d7f9f4d5158")
    assert build_masked_frame(FIN | TEXT, b"Hello") == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("first", [FIN | TEXT, BINARY, CONTINUATION, FIN | CLOSE])
def test_every_form_of_the_length(first: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = bytes(i % 251 for i in range(size))
    assert build_frame(first, payload) == frame(first, payload, key=None)
    monkeypatch.setattr(os, "urandom", lambda size: KEY[:size])
    assert build_masked_frame(first, payload) == frame(first, payload)


def test_masking_keys_are_fresh() -> None:
    built = {build_masked_frame(FIN | TEXT, b"same") for _ in range(20)}
    assert len(built) == 20


def test_close_payload() -> None:
    assert close_payload(1000, "") == b"\x03\xe8"
    assert close_payload(4999, "bye é") == b"\x13\x87bye \xc3\xa9"
    assert close_payload(1005, "") == b""
    assert close_payload(1000, "a" * 123) == b"\x03\xe8" + b"a" * 123


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (999, ""),
        (1004, ""),
        (1005, "why"),
        (1006, ""),
        (1015, ""),
        (2999, ""),
        (5000, ""),
        (1000, "a" * 124),
        (1000, "é" * 62),
    ],
)
def test_what_may_not_stand_in_a_close_frame(code: int, reason: str) -> None:
    with pytest.raises(ValueError, match="Expected a close"):
        close_payload(code, reason)
