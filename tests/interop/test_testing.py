"""The testing kit with the same applications of other frameworks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from hubbub.testing import Rejected, TestClient
from tests.interop import test_frameworks
from tests.interop.conftest import require

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.interop.test_frameworks import Framework

pytestmark = test_frameworks.pytestmark


@pytest.fixture
def ends() -> list[object]:
    """How the handler of a room heard of the end."""
    return []


@pytest.fixture
async def client(framework: Framework, ends: list[object]) -> AsyncGenerator[TestClient]:
    require(framework.name)
    app = import_module(f"tests.interop.apps.{framework.name}_app").make_app(ends)
    async with TestClient(app, raise_app_exceptions=False) as client:
        yield client


async def test_a_room(client: TestClient, framework: Framework, ends: list[object]) -> None:
    async with client.connect(
        "/rooms/café?color=dark red", headers={"X-Token": "secret"}, subprotocols=["other", "chat"]
    ) as ws:
        assert ws.accepted_subprotocol == "chat"
        assert ws.headers["X-Room"] == "open"
        asked = await ws.receive_json()
        assert asked == {
            "name": "café",
            "color": "dark red",
            "token": "secret",
            "greeting": "hello",
        }
        await ws.send_text("hé")
        assert await ws.receive_text() == "hé"
        await ws.expect_silence()
        await ws.close(4321, "why")
    assert ends == [framework.hears]


async def test_a_handler_closes(client: TestClient) -> None:
    async with client.connect("/bye") as ws:
        await ws.expect_close(4001, "bye")


async def test_a_handler_fails(client: TestClient, framework: Framework) -> None:
    async with client.connect("/broken") as ws:
        await ws.expect_close(*framework.fails_with)


async def test_a_handler_refuses(client: TestClient, framework: Framework) -> None:
    with pytest.raises(Rejected) as refusal:
        async with client.connect("/private"):
            raise AssertionError("connected")
    assert refusal.value.status == framework.refuses_with
    assert int(refusal.value.headers["content-length"]) == len(refusal.value.body) > 0
