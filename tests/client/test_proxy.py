"""Proxies: HTTP CONNECT and SOCKS, given or by the environment."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from contextlib import asynccontextmanager
from inspect import signature
from typing import TYPE_CHECKING

import anyio
import pytest
import trustme

from hubbub import App, WebSocket
from hubbub.client import connect
from hubbub.client.proxy import find_proxy
from hubbub.client.target import parse_target
from tests.ws_bridge.peers import served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import ByteStream, SocketStream

VARIABLES = [f"{name}_proxy" for name in ("ws", "wss", "http", "https", "socks", "all", "no")]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Proxy:
    """A proxy of both kinds on one port; everything leads to ``port``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []
        self.peers: list[object] = []
        self.status = b"200 OK"

    async def __call__(self, stream: SocketStream) -> None:
        async with stream:
            self.peers.append(stream.extra(anyio.abc.SocketAttribute.remote_address))
            first = await stream.receive()
            if first.startswith(b"CONNECT"):
                self.asked.append(first.split()[1].decode())
                await stream.send(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
            elif first.startswith(b"\x04"):  # SOCKS 4A: a name behind an address that is none
                assert first[4:8] == b"\x00\x00\x00\x01"
                host, (port,) = first.split(b"\x00")[-2].decode(), struct.unpack("!H", first[2:4])
                self.asked.append(f"{host}:{port}")
                await stream.send(b"\x00\x5a" + bytes(6))
            else:  # RFC 1928
                await stream.send(b"\x05\x00")
                request = await stream.receive()
                host, port = request[5:-2].decode(), *struct.unpack("!H", request[-2:])
                self.asked.append(f"{host}:{port}")
                await stream.send(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            async with await anyio.connect_tcp("127.0.0.1", self.port) as other:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(pump, stream, other)
                    await pump(other, stream)


async def pump(source: ByteStream, sink: ByteStream) -> None:
    try:
        async for data in source:
            await sink.send(data)
        await sink.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


@asynccontextmanager
async def proxied(
    context: ssl.SSLContext | None = None,
) -> AsyncGenerator[tuple[Proxy, str]]:
    """Run a server and a proxy to it; give the proxy and its address."""

    async def echo(ws: WebSocket) -> None:
        async with ws:
            async for text in ws:
                await ws.send_text(text)

    async with served(App({"/": echo}), ssl=context) as (_, port):
        proxy = Proxy(port)
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, proxy)
            yield proxy, f"127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
            tasks.cancel_scope.cancel()


async def check(connection: connect) -> None:
    async with connection as ws:
        await ws.send_text("hi")
        assert await ws.receive_text() == "hi"


@pytest.mark.parametrize("scheme", ["http", "socks4a", "socks5", "socks5h"])
async def test_through_a_proxy(scheme: str) -> None:
    async with proxied() as (proxy, address):
        await check(connect("ws://far.example:81/", proxy=f"{scheme}://{address}"))
        assert proxy.asked == ["far.example:81"]


async def test_tls_through_a_proxy() -> None:
    authority = trustme.CA()
    ours, theirs = (
        ssl.create_default_context(purpose)
        for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH)
    )
    authority.issue_cert("far.example").configure_cert(theirs)
    authority.configure_trust(ours)
    async with proxied(theirs) as (proxy, address):
        await check(connect("wss://far.example/", proxy=f"http://{address}", ssl=ours))
        assert proxy.asked == ["far.example:443"]


async def test_from_an_address_of_ours() -> None:
    async with proxied() as (_, address):
        await check(connect("ws://a/", proxy=f"http://{address}", local_address=("127.0.0.1", 0)))


@pytest.mark.skipif(
    "local_port" not in signature(anyio.connect_tcp).parameters,
    reason="this anyio connects from any port",
)
async def test_from_a_port_of_ours() -> None:
    async with proxied() as (proxy, address):
        with socket.create_server(("127.0.0.1", 0)) as free:
            here = free.getsockname()
        await check(connect("ws://a/", proxy=f"http://{address}", local_address=here))
        assert proxy.peers == [here]


@pytest.mark.parametrize("variable", ["ws_proxy", "http_proxy", "all_proxy", "ALL_PROXY"])
async def test_by_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    async with proxied() as (proxy, address):
        monkeypatch.setenv(variable, address if variable == "http_proxy" else f"http://{address}")
        await check(connect("ws://far.example:81/"))
        assert proxy.asked == ["far.example:81"]
        with pytest.raises(socket.gaierror):
            await check(connect("ws://far.invalid/", proxy=False))
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("ws://a/", {}, None),
        ("ws://a/", {"https_proxy": "http://p:1"}, None),
        ("wss://a/", {"https_proxy": "http://p:1", "http_proxy": "http://q:1"}, "http://p:1"),
        ("wss://a/", {"wss_proxy": "http://p:1", "https_proxy": "http://q:1"}, "http://p:1"),
        ("wss://a/", {"socks_proxy": "socks5://p:1", "all_proxy": "http://q:1"}, "socks5://p:1"),
        ("ws://a/", {"all_proxy": "http://p:1", "no_proxy": "b,a"}, None),
        ("ws://a:81/", {"all_proxy": "http://p:1", "no_proxy": "a:82"}, "http://p:1"),
        ("ws://x.a/", {"all_proxy": "http://p:1", "no_proxy": ".a"}, None),
        ("ws://a/", {"all_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("ws+unix:///a", {"all_proxy": "http://p:1"}, None),
    ],
)
def test_which_variable_counts(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_proxy(parse_target(url)) == proxy


async def test_a_proxy_that_refuses() -> None:
    async with proxied() as (proxy, address):
        proxy.status = b"407 Proxy Authentication Required"
        with pytest.raises(ConnectionError, match="407"):
            await check(connect("ws://a/", proxy=f"http://{address}"))


async def test_a_proxy_that_is_not_there() -> None:
    async with proxied() as (_, address):
        pass
    with pytest.raises(OSError, match="proxy"):
        await check(connect("ws://a/", proxy=f"http://{address}"))


async def test_a_proxy_that_hangs_up() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, anyio.aclose_forcefully)
            for scheme in ("http", "socks5"):
                with pytest.raises(ConnectionError, match="proxy"):
                    await check(connect("ws://a/", proxy=f"{scheme}://127.0.0.1:{port}"))
            tasks.cancel_scope.cancel()


async def test_a_proxy_that_never_answers() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(TimeoutError, match="did not open"):
            await check(connect("ws://a/", proxy=f"http://127.0.0.1:{port}", open_timeout=0.2))


async def test_a_proxy_of_another_kind() -> None:
    with pytest.raises(ValueError, match="http, socks4 or socks5, got ftp"):
        await check(connect("ws://a/", proxy="ftp://p:1"))


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError, match=r'pip install "hubbub\[proxy\]"'):
        await check(connect("ws://a/", proxy="http://p:1"))
