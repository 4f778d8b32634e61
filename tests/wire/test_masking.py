from __future__ import annotations

import importlib
import sys

import pytest

import hubbub.wire.masking
from hubbub.wire.masking import apply_mask, apply_mask_in_python
from tests.wire.frame import KEY, xor

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 31, 125, 1023, 1024, 1025, 1026, 1027, 70_000]


@pytest.mark.parametrize("mask", [KEY, b"\0\0\0\0", b"\xff\0\x80\x01"])
@pytest.mark.parametrize("size", SIZES)
def test_in_python_and_in_c(size: int, mask: bytes) -> None:
    data = bytes(i * 7 % 256 for i in range(size))
    expected = xor(data, mask)
    for function in (apply_mask, apply_mask_in_python):
        assert function(data, mask) == expected
        assert function(memoryview(data), mask) == expected
        assert function(expected, mask) == data


def test_in_python_where_there_is_no_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    try:
        module = importlib.reload(hubbub.wire.masking)
        assert module.apply_mask is module.apply_mask_in_python
    finally:
        monkeypatch.undo()
        module = importlib.reload(hubbub.wire.masking)
    assert module.apply_mask is not module.apply_mask_in_python
