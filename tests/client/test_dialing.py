"""How a stream to the server is made: addresses, UNIX sockets, TLS."""

from __future__ import annotations

import gc
import socket
import ssl
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from anyio.streams.tls import TLSStream

from hubbub import App, WebSocket
from hubbub.client import connect, dialing
from hubbub.ws_bridge import serve
from tests.ws_bridge.peers import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for text in ws:
            await ws.send_text(text)


async def check(connection: connect) -> None:
    async with connection as ws:
        await ws.send_text("hi")
        assert await ws.receive_text() == "hi"


# -- Addresses ------------------------------------------------------------------------


@pytest.fixture
def nowhere() -> Iterator[tuple[str, int]]:
    """An address that neither answers nor refuses: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address: tuple[str, int] = listener.getsockname()
        for _ in range(4):
            guest = stack.enter_context(socket.socket())
            guest.setblocking(False)
            guest.connect_ex(address)
        yield address


@pytest.fixture
def refusing() -> Iterator[tuple[str, int]]:
    """An address that refuses: nobody listens there, and nobody else can."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses."""

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)


async def test_by_name() -> None:
    async with served(App({"/": echo})) as (_, port):
        await check(connect(f"ws://localhost:{port}/"))


@pytest.mark.skipif(not socket.has_ipv6, reason="IPv6 is not here")
async def test_by_an_address_of_ipv6() -> None:
    async with anyio.create_task_group() as tasks:
        try:
            [address] = await tasks.start(partial(serve, App({"/": echo}), "::1", 0))
        except OSError as error:
            pytest.skip(f"IPv6 is not here: {error}")
        await check(connect(f"ws://[::1]:{address[1]}/"))
        tasks.cancel_scope.cancel()


async def test_when_the_first_address_refuses_the_second_is_tried(
    monkeypatch: pytest.MonkeyPatch, refusing: tuple[str, int]
) -> None:
    async with served(App({"/": echo})) as address:
        resolve_to(monkeypatch, refusing, address)
        monkeypatch.setattr(dialing, "_HEAD_START", 60)
        await check(connect("ws://test/"))


async def test_when_the_first_address_is_silent_the_second_is_tried(
    monkeypatch: pytest.MonkeyPatch, nowhere: tuple[str, int]
) -> None:
    async with served(App({"/": echo})) as address:
        resolve_to(monkeypatch, nowhere, address, nowhere)
        await check(connect("ws://test/", open_timeout=30))


async def test_families_take_turns() -> None:
    v4 = [(socket.AF_INET, number) for number in range(3)]
    v6 = [(socket.AF_INET6, number) for number in range(2)]
    assert dialing._alternate(v6 + v4) == [v6[0], v4[0], v6[1], v4[1], v4[2]]
    assert dialing._alternate(v4) == v4


async def test_when_all_addresses_refuse(
    monkeypatch: pytest.MonkeyPatch, refusing: tuple[str, int]
) -> None:
    resolve_to(monkeypatch, refusing, refusing)
    with pytest.raises(ConnectionRefusedError) as raised:
        await check(connect("ws://test:81/"))
    assert "test port 81: Connection refused; Connection refused" in str(raised.value)


async def test_when_no_address_answers(
    monkeypatch: pytest.MonkeyPatch, nowhere: tuple[str, int]
) -> None:
    resolve_to(monkeypatch, nowhere, nowhere)
    with pytest.raises(TimeoutError):
        await check(connect("ws://test/", open_timeout=0.5))


async def test_a_cancellation_that_comes_together_with_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The socket is closed: else the garbage collector would complain of it."""
    reach = dialing._reach

    async def reach_and_cancel(*args: Any) -> None:
        await reach(*args)
        scope.cancel()

    monkeypatch.setattr(dialing, "_reach", reach_and_cancel)
    async with served(App({"/": echo})) as (host, port):
        with anyio.CancelScope() as scope:
            await check(connect(f"ws://{host}:{port}/"))
        assert scope.cancelled_caught


async def test_two_addresses_that_answer_in_the_same_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One socket is taken and the other closed: else the garbage collector would complain."""
    reach, reached, both = dialing._reach, 0, anyio.Event()

    async def reach_together(*args: Any) -> None:
        nonlocal reached
        await reach(*args)
        reached += 1
        if reached == 2:
            both.set()
        await both.wait()

    monkeypatch.setattr(dialing, "_reach", reach_together)
    monkeypatch.setattr(dialing, "_HEAD_START", 0)
    async with served(App({"/": echo})) as address:
        resolve_to(monkeypatch, address, address)
        await check(connect("ws://test/"))
    assert reached == 2
    gc.collect()


async def test_small_messages_are_not_held_back() -> None:
    async with served(App({"/": echo})) as (host, port):
        with await dialing._connect_tcp(host, port, None) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_from_an_address_of_ours(host: str) -> None:
    seen: list[Any] = []

    async def look(ws: WebSocket) -> None:
        async with ws:
            seen.append(ws.client)

    async with anyio.create_task_group() as tasks:
        try:
            [address] = await tasks.start(partial(serve, App({"/": look}), host, 0))
        except OSError as error:
            pytest.skip(f"{host} is not here: {error}")
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.bind((host, 0))
            port = sock.getsockname()[1]  # after the server has its own, or it could be the same
        authority = f"[{host}]" if ":" in host else host
        async with connect(f"ws://{authority}:{address[1]}/", local_address=(host, port)):
            assert seen == [(host, port)]
        tasks.cancel_scope.cancel()


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "hub.sock"
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(serve, App({"/echo": echo}), uds=path))
        await check(connect(f"ws+unix://{path}:/echo"))
        tasks.cancel_scope.cancel()
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        await check(connect(f"ws+unix://{path}"))


# -- TLS ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_tls(server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async with served(App({"/": echo}), ssl=server_context) as (_, port):
        await check(connect(f"wss://localhost:{port}/", ssl=trusting))


async def test_tls_on_a_stream_that_was_given(
    server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with served(App({"/": echo}), ssl=server_context) as (host, port):
        stream = await anyio.connect_tcp(host, port)
        await check(connect("wss://localhost/", ssl=trusting, stream=stream))


async def test_a_stream_that_is_tls_already(
    server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with served(App({"/": echo}), ssl=server_context) as (host, port):
        stream = await anyio.connect_tcp(host, port)
        secure = await TLSStream.wrap(stream, ssl_context=trusting, hostname="localhost")
        await check(connect("wss://localhost/", stream=secure))


async def test_certificates_that_are_not_to_be_trusted(
    server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with served(App({"/": echo}), ssl=server_context) as (host, port):
        with pytest.raises(ssl.SSLCertVerificationError):  # by nobody we know
            await check(connect(f"wss://localhost:{port}/"))
        with pytest.raises(ssl.SSLCertVerificationError):  # for somebody else
            await check(connect(f"wss://{host}:{port}/", ssl=trusting))


async def test_a_server_that_does_not_speak_tls() -> None:
    async with served(App({"/": echo})) as (host, port):
        with pytest.raises(ssl.SSLError):
            await check(connect(f"wss://{host}:{port}/"))


async def test_a_server_that_hangs_up_in_the_tls_handshake() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def hang_up(stream: anyio.abc.SocketStream) -> None:
            await stream.receive()
            await stream.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, hang_up)
            with pytest.raises(ConnectionError, match="ended the TLS handshake"):
                await check(connect(f"wss://127.0.0.1:{port}/"))
            tasks.cancel_scope.cancel()
