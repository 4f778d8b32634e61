"""The benchmarks run: what they measure, a machine with other work to do cannot say."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "router.py"
    spec = spec_from_file_location("benchmark_router", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "MESSAGES", 40)
    monkeypatch.setattr(module, "ROUNDS", 2)
    return module


async def test_router(router: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    await router.measure_router("loop", 1.0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("loop: ") for line in lines)
