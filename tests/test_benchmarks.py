"""The benchmarks run: what they measure, a machine with other work to do cannot say."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port

if TYPE_CHECKING:
    from types import ModuleType


def load(name: str, monkeypatch: pytest.MonkeyPatch, **constants: object) -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = spec_from_file_location(f"benchmark_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look
    spec.loader.exec_module(module)
    for constant, value in constants.items():
        monkeypatch.setattr(module, constant, value)
    return module


async def test_router(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    await load("router", monkeypatch, MESSAGES=40, ROUNDS=2).measure_router("loop", 1.0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("loop: ") for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize("server", ["hubbub, asyncio", "hubbub, trio", "websockets"])
def test_servers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = load("servers", monkeypatch, CLIENTS=2, MEMBERS=3, SECONDS=0.1, free_port=free_port)
    for measure, window in servers.CASES.values():
        with servers.running(*servers.SERVERS[server]) as (pid, port):
            assert asyncio.run(measure(pid, port, window)) > 0
