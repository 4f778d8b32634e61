"""A client that goes through proxies that others have made."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from hubbub.client import connect
from hubbub.exceptions import HandshakeError
from tests.interop.conftest import require
from tests.interop.visit import make_app
from tests.peer import eventually
from tests.ws_bridge.peers import served

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.interop

# Its own entry point asks for a loop, which neither uvloop nor Python 3.14 makes any more.
MAIN = """
import asyncio, sys
sys.modules["uvloop"] = None
import pproxy.server
asyncio.set_event_loop(asyncio.new_event_loop())
pproxy.server.main()
"""


@contextmanager
def running(listen: str) -> Iterator[str]:
    """Run a proxy; give its address."""
    require("pproxy")
    command = [sys.executable, "-u", "-c", MAIN, "--auth", "0", "-l", listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[3]  # Serving on ipv? 127.0.0.1:12345 by …
        finally:
            process.kill()


@pytest.fixture(scope="module")
def proxy() -> Iterator[str]:
    with running("http+socks4+socks5://127.0.0.1:0") as address:
        yield address


@pytest.fixture(scope="module")
def private_proxy() -> Iterator[str]:
    with running("http+socks5://127.0.0.1:0/#ann:secret") as address:
        yield address


async def visit(proxy: str) -> None:
    ends: list[tuple[int | None, str]] = []
    async with served(make_app(ends)) as (_, port):
        async with connect(f"ws://localhost:{port}/echo", proxy=proxy) as ws:
            await ws.send("x" * 1_000_000)
            assert await ws.receive() == "x" * 1_000_000
            assert await ws.ping() > 0
            await ws.close(3000, "enough")
        await eventually(lambda: ends == [(3000, "enough")])
        with pytest.raises(HandshakeError) as raised:
            async with connect(f"ws://localhost:{port}/private", proxy=proxy):
                raise AssertionError
        assert (raised.value.status, raised.value.body) == (401, b"Who are you?")


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5", "socks5h"])
async def test_it_leads_to_the_server(proxy: str, scheme: str) -> None:
    await visit(f"{scheme}://{proxy}")


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_it_wants_a_password(private_proxy: str, scheme: str) -> None:
    await visit(f"{scheme}://ann:secret@{private_proxy}")
    for user in ("", "ann:wrong@"):
        with pytest.raises(ConnectionError, match="does not let us through"):
            async with connect("ws://far.example/", proxy=f"{scheme}://{user}{private_proxy}"):
                raise AssertionError


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5"])
async def test_a_server_that_is_not_there(proxy: str, scheme: str) -> None:
    with socket.socket() as taken:  # and does not listen
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises((ConnectionError, HandshakeError)):
            async with connect(url, proxy=f"{scheme}://{proxy}", open_timeout=30):
                raise AssertionError
