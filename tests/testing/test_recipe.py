"""The nox recipe of the docs, run as a user's project would, but for the installing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
"""
TEST = """
from app import app

async def test_greeting(ws_client):
    client = await ws_client(app)
    async with client.connect("/") as ws:
        assert await ws.receive() == "hello"
"""


@pytest.fixture
def recipe() -> str:
    page = Path(ROOT, "docs/testing.md").read_text()
    programs: list[str] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [program] = [program for program in programs if "import nox" in program]
    return program


def test_it_is_short_and_installs_what_there_is(recipe: str) -> None:
    assert len(recipe.splitlines()) <= 20
    [extras] = re.findall(r'"hubbub\[(.*?)\]"', recipe)
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()


@pytest.mark.timeout(300)
def test_it_runs_a_users_tests_on_every_loop(recipe: str, tmp_path: Path) -> None:
    Path(tmp_path, "noxfile.py").write_text(recipe)
    Path(tmp_path, "app.py").write_text(APP)
    Path(tmp_path, "test_app.py").write_text(TEST)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NOX")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTEST_PLUGINS": "hubbub_pytest",  # in case that hubbub is not installed, but on a path
    }
    command = [sys.executable, "-m", "nox", "--no-venv", "--no-install"]
    nox = subprocess.run(
        [*command, "--", "-v", "--color=no"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    said = nox.stdout + nox.stderr
    assert nox.returncode == 0, said
    for loop in ("asyncio", "uvloop", "trio"):
        assert f"test_app.py::test_greeting[{loop}] PASSED" in said
