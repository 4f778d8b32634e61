"""Clients that others have made, beside those of ``tests.ws_bridge.test_clients``."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import anyio
import pytest
from sniffio import current_async_library

from tests.interop.conftest import lacks, require
from tests.interop.visit import SCRIPT, expect_visit, make_app
from tests.peer import eventually
from tests.ws_bridge.peers import KEY, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.interop

End = tuple[int | None, str]


@pytest.fixture
def ends() -> list[End]:
    """How the application heard of the end of an echo."""
    return []


@pytest.fixture
async def address(ends: list[End]) -> AsyncGenerator[str]:
    async with served(make_app(ends), origins=[None, "https://friend.example"]) as (host, port):
        yield f"{host}:{port}"


async def run(*command: str) -> bytes:
    """Run a program; give what it prints."""
    with anyio.fail_after(30):
        process = await anyio.run_process(command, check=False)
    assert process.returncode == 0, process.stderr.decode()
    return process.stdout


@pytest.fixture(params=["ws", "its own"])
def script_host(request: pytest.FixtureRequest) -> list[str]:
    """How to run a script with one of the WebSockets that there are for Node."""
    node = shutil.which("node")
    if node is None:
        lacks("node")
    if request.param == "ws":
        ws = request.getfixturevalue("node") / "node_modules" / "ws"
        return [node, "-e", f"globalThis.WebSocket = require({json.dumps(str(ws))});"]
    command = [node, "--experimental-websocket", "-e", "WebSocket;"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this Node has no WebSocket of its own")
    return command


@pytest.mark.timeout(300)  # the first one may have to install what Node needs
async def test_node(script_host: list[str], address: str, ends: list[End]) -> None:
    *command, given = script_host
    visit = f"({SCRIPT})('ws://{address}').then((it) => console.log(JSON.stringify(it)))"
    expect_visit(json.loads(await run(*command, given + visit)))
    await eventually(lambda: ends)
    assert ends == [(4321, "why")]


async def test_aiohttp(address: str, ends: list[End]) -> None:
    if current_async_library() != "asyncio":
        pytest.skip("aiohttp knows asyncio")
    require("aiohttp")
    from aiohttp import ClientSession, WSServerHandshakeError

    async with ClientSession(f"ws://{address}") as session:
        async with session.ws_connect(
            "/echo", protocols=["other", "chat"], compress=15, max_msg_size=0
        ) as client:
            assert client.protocol == "chat"
            assert client.compress
            for text in ("", "hé", "x" * 100_000):
                await client.send_str(text)
                assert await client.receive_str() == text
            for data in (b"", bytes(range(256)), bytes(5_000_000)):
                await client.send_bytes(data)
                assert await client.receive_bytes() == data
            await client.close(code=4321, message=b"why")
        await eventually(lambda: ends)
        assert ends == [(4321, "why")]
        async with session.ws_connect("/bye") as client:
            assert await client.receive_str() == "soon"
            end = await client.receive()
            assert (end.data, end.extra) == (4001, "bye")
        with pytest.raises(WSServerHandshakeError) as raised:
            await session.ws_connect("/private")
        assert raised.value.status == 401


def upgrade(*further: str, version: str = "13", key: str = KEY.decode()) -> list[str]:
    """The headers of a handshake, for curl."""
    version, key = f"Sec-WebSocket-Version: {version}", f"Sec-WebSocket-Key: {key}"
    headers = ("Connection: Upgrade", "Upgrade: websocket", version, key, *further)
    return [option for header in headers for option in ("-H", header)]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 426),
        (upgrade(version="8"), 426),
        (["-X", "POST", *upgrade()], 405),
        (upgrade(key="short"), 400),
        (upgrade("Origin: https://evil.example"), 403),
        (upgrade(f"X: {'y' * 70_000}"), 431),
        (upgrade("Origin: https://friend.example"), 401),
    ],
)
async def test_curl_is_refused(address: str, options: list[str], status: int) -> None:
    if shutil.which("curl") is None:
        lacks("curl")
    url = f"http://{address}/private"
    head, _, body = (await run("curl", "-sS", "-i", *options, url)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-length: %d" % len(body) in head.lower()


async def test_curl() -> None:
    """It prints what it hears up to the close, which it does not answer."""
    if shutil.which("curl") is None:
        lacks("curl")
    if b" ws " in await run("curl", "--version"):
        scheme, options, heard = "ws", [], b"soon\x0f\xa1bye"
    else:  # then it shows the frames as they come
        scheme, options, heard = "http", upgrade(), b"\x81\x04soon\x88\x05\x0f\xa1bye"
    async with served(make_app([]), close_timeout=0.1) as (host, port):
        assert await run("curl", "-sS", *options, f"{scheme}://{host}:{port}/bye") == heard
