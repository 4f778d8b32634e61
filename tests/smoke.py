"""A look at the built wheel, run where nothing but the wheel is installed: no pytest here."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

import hubbub

if TYPE_CHECKING:
    from hubbub.types import Message

CONTENTS = (
    "hubbub/py.typed",
    "hubbub_pytest.py",
    "hubbub/demo/static/index.html",
    "hubbub/demo/static/style.css",
    "hubbub/demo/static/chat.js",
    "dist-info/licenses/LICENSE",
)


async def check_that_a_room_works() -> None:
    hub, sent = hubbub.Hub(), list[str]()

    async def receive() -> Message:
        if not events:
            await anyio.sleep_forever()
        return events.pop()

    async def send(message: Message) -> None:
        sent.append(message.get("text", message["type"]))

    events: list[Message] = [{"type": "websocket.connect"}]
    ws = hubbub.WebSocket({"type": "websocket"}, receive, send)
    async with hub, ws, hub.join("room", ws):
        assert (await hub.broadcast_json("room", {"type": "hi"})).sent == 1
    assert sent == ["websocket.accept", '{"type":"hi"}', "websocket.close"], sent


def check_that_the_command_names_its_extra() -> None:
    command = [sys.executable, "-m", "hubbub"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert 'pip install "hubbub[cli]"' in ran.stderr, ran.stderr


def check_that_pytest_finds_the_plugin() -> None:
    [plugin] = entry_points(group="pytest11", name="hubbub_pytest")
    assert find_spec(plugin.value) is not None


if __name__ == "__main__":
    names = zipfile.ZipFile(sys.argv[1]).namelist()
    missing = [part for part in CONTENTS if not any(name.endswith(part) for name in names)]
    assert not missing, missing
    assert not [name for name in names if name.startswith(("tests", "examples"))]
    assert "site-packages" in Path(hubbub.__file__).parts, hubbub.__file__
    anyio.run(check_that_a_room_works)
    check_that_the_command_names_its_extra()
    check_that_pytest_finds_the_plugin()
