"""Applications of other frameworks, unmodified, on our server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.foreign import ASYNCIO, TRIO, UVLOOP, Backend
from tests.interop.conftest import require
from tests.peer import eventually
from tests.ws_bridge.peers import Client, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wsproto.events import AcceptConnection


@dataclass(frozen=True)
class Framework:
    """A framework, and what its applications do in its own way, whatever the server."""

    name: str
    backends: tuple[Backend, ...]
    hears: object = (4321, "why")
    """What a handler hears of a close(4321, "why")."""
    fails_with: tuple[int, str] = (1011, "")
    """How a connection ends whose handler fails."""
    refuses_with: int = 401
    """The status of a refusal that is meant to be 401."""
    takes_empty_bytes: bool = True


FRAMEWORKS = (
    Framework("starlette", (ASYNCIO, UVLOOP, TRIO)),
    Framework("fastapi", (ASYNCIO, UVLOOP, TRIO)),
    Framework(
        "litestar",
        (ASYNCIO, UVLOOP, TRIO),
        hears=4321,
        fails_with=(4500, "Internal Server Error"),
        refuses_with=403,
    ),
    Framework(
        "quart",
        (ASYNCIO, UVLOOP),
        hears="cancelled",
        fails_with=(1000, ""),
        takes_empty_bytes=False,
    ),
    Framework(
        "quart_trio", (TRIO,), hears="cancelled", fails_with=(1000, ""), takes_empty_bytes=False
    ),
)
pytestmark = [
    pytest.mark.interop,
    pytest.mark.parametrize(
        ("framework", "anyio_backend"),
        [
            pytest.param(framework, (name, options), id=f"{framework.name}-{loop}")
            for framework in FRAMEWORKS
            for name, options in framework.backends
            for loop in ["uvloop" if options.get("use_uvloop") else name]
        ],
    ),
]


@pytest.fixture
def ends() -> list[object]:
    """How the handler of a room heard of the end."""
    return []


@pytest.fixture
async def client(framework: Framework, ends: list[object]) -> AsyncGenerator[Client]:
    require(framework.name)
    app = import_module(f"tests.interop.apps.{framework.name}_app").make_app(ends)
    async with served(app) as address, await anyio.connect_tcp(*address) as stream:
        yield Client(stream)


async def enter_room(client: Client) -> tuple[AcceptConnection, object]:
    """Give the answer to the handshake, and the first message."""
    answer = await client.open(
        "/rooms/caf%C3%A9?color=dark%20red",
        subprotocols=["other", "chat"],
        extra_headers=[(b"X-Token", b"secret")],
    )
    return answer, json.loads(await client.hear())


async def test_what_is_asked_arrives(client: Client) -> None:
    answer, asked = await enter_room(client)
    assert answer.subprotocol == "chat"
    assert (b"x-room", b"open") in answer.extra_headers
    assert asked == {"name": "café", "color": "dark red", "token": "secret", "greeting": "hello"}


async def test_texts_come_back(client: Client) -> None:
    await enter_room(client)
    for text in ("", "hé", "x" * 100_000):
        await client.say(text)
        assert await client.hear() == text


async def test_bytes_come_back(client: Client, framework: Framework) -> None:
    await client.open("/bytes")
    for data in (bytes(range(256)), bytes(100_000)):
        await client.say(data)
        assert await client.hear() == data
    await client.say(b"")
    if framework.takes_empty_bytes:
        assert await client.hear() == b""
    else:
        assert (await client.answer_close())[0] == 1011


async def test_a_handler_hears_of_the_end(
    client: Client, ends: list[object], framework: Framework
) -> None:
    await enter_room(client)
    assert await client.close(4321, "why") == (4321, "why")
    await eventually(lambda: ends)
    assert ends == [framework.hears]


async def test_a_handler_closes(client: Client) -> None:
    await client.open("/bye")
    assert await client.answer_close() == (4001, "bye")


async def test_a_handler_fails(client: Client, framework: Framework) -> None:
    await client.open("/broken")
    assert await client.answer_close() == framework.fails_with


async def test_a_handler_refuses(client: Client, framework: Framework) -> None:
    await client.request("/private")
    status, headers, body = await client.rejected()
    assert status == framework.refuses_with
    assert int(headers["content-length"]) == len(body) > 0
