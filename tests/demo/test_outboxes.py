"""What the demo shows of outboxes, and of those whom their policies have ended."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import anyio
import pytest

from hubbub import App, Hub
from hubbub.demo import outboxes as module
from hubbub.demo.chat import Chat
from hubbub.demo.outboxes import Outboxes
from tests.peer import Peer, call, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Watcher(Peer):
    def __init__(self) -> None:
        super().__init__(path="/outboxes")

    @property
    def view(self) -> dict[str, Any]:
        """The newest."""
        message = json.loads(self.heard[-1])
        assert message["type"] == "outboxes"
        return dict(message["payload"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTERVAL", 0.01)


@asynccontextmanager
async def open_house(*nicks: str, **query: str) -> AsyncGenerator[tuple[Hub, Watcher, list[Peer]]]:
    hub = Hub()
    chat = Chat(hub)
    app = App({"/chat": chat, "/outboxes": Outboxes(hub, chat)})
    watcher = Watcher()
    guests = []
    async with hub, anyio.create_task_group() as tasks:
        tasks.start_soon(call, app, watcher)
        await eventually(lambda: watcher.heard)
        for nick in nicks:
            parameters = urlencode({"nick": nick, **query}).encode()
            guests.append(Peer(path="/chat", query_string=parameters))
            tasks.start_soon(call, app, guests[-1])
            await eventually(lambda: len(hub.connections) == 1 + len(guests))
        yield hub, watcher, guests
        await hub.aclose()
        watcher.leave()


async def test_each_member_is_shown_as_it_is() -> None:
    async with open_house("ann", "bob", policy="drop-oldest") as (hub, watcher, [_, bob]):
        empty = {"policy": "drop-oldest", "capacity": 64, "max_bytes": 2**20}
        empty |= {"waiting": 0, "bytes": 0, "dropped": 0}
        both = [{"nick": "ann", **empty}, {"nick": "bob", **empty}]
        await eventually(lambda: watcher.view["members"] == both)
        assert watcher.view["hidden"] == 0
        assert watcher.view["disconnected"] == []
        bob.stop_reading()
        for _ in range(100):
            await hub.broadcast("lobby", "x" * 1000)
        both[1] |= {"waiting": 64, "bytes": 64_000, "dropped": 35}
        await eventually(lambda: watcher.view["members"] == both)
        bob.read_on()
        both[1] |= {"waiting": 0, "bytes": 0}
        await eventually(lambda: watcher.view["members"] == both)


async def test_of_many_some_are_counted_only() -> None:
    nicks = [f"guest{number}" for number in range(33)]
    async with open_house(*nicks) as (_, watcher, _):
        await eventually(lambda: watcher.view["hidden"] == 3)
        assert [member["nick"] for member in watcher.view["members"]] == nicks[:30]


async def test_who_is_disconnected_is_shown_so_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_house("ann", "bob") as (hub, watcher, [ann, bob]):
        bob.stop_reading()
        for _ in range(70):
            await hub.broadcast("lobby", "x")
            await eventually(lambda: not hub.rooms["lobby"].members[0].statistics().waiting)
        guest = {"nick": "bob", "policy": "disconnect"}
        await eventually(lambda: watcher.view["disconnected"] == [{**guest, "reason": ""}])
        assert [member["nick"] for member in watcher.view["members"]] == ["ann"]
        bob.read_on()
        gone = [{**guest, "reason": "slow consumer"}]
        await eventually(lambda: watcher.view["disconnected"] == gone)
        ann.leave()
        await eventually(lambda: watcher.view["members"] == [])
        assert watcher.view["disconnected"] == gone
        monkeypatch.setattr(module, "_REMEMBERED", -1)
        await eventually(lambda: watcher.view["disconnected"] == [])


async def test_a_watcher_that_does_not_read_harms_nobody() -> None:
    async with open_house("ann", "bob") as (hub, watcher, guests):
        watcher.stop_reading()
        for number in range(100):
            await hub.broadcast("lobby", str(number))
        await eventually(lambda: all(guest.heard[-1:] == ["99"] for guest in guests))
        watcher.read_on()


async def test_who_watches_goes_with_the_hub_and_is_told() -> None:
    async with open_house("ann") as (hub, watcher, [ann]):
        await hub.aclose(1012)
        await eventually(lambda: watcher.closed_with == ann.closed_with == (1012, ""))
