"""The README's program does what the README says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hubbub import App, Hub
from tests.peer import Peer, eventually, running

README = (Path(__file__).parent.parent / "README.md").read_text()
PROGRAM, MOUNTED = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def program() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(PROGRAM, "README.md", "exec"), names)
    return names


async def test_echo_and_chat(program: dict[str, Any]) -> None:
    app, hub = program["app"], program["hub"]
    assert isinstance(app, App)
    assert isinstance(hub, Hub)
    echo, ada, grace = Peer(path="/echo"), Peer(path="/chat"), Peer(path="/chat")
    async with hub, running(app, echo, ada, grace):
        await eventually(lambda: len(hub.connections) == 2)
        echo.say("hi")
        ada.say("hello")
        await eventually(lambda: echo.heard == ["hi"])
        await eventually(lambda: grace.heard == ["hello"])
        assert ada.heard == []
        for peer in (echo, ada, grace):
            peer.leave()


async def test_mounted_in_starlette(program: dict[str, Any]) -> None:
    exec(compile(MOUNTED, "README.md", "exec"), program)
    peer = Peer(path="/ws/chat", root_path="")
    async with program["lifespan"](program["site"]), running(program["site"], peer):
        await eventually(lambda: program["hub"].connections)
        peer.leave()
