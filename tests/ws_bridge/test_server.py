"""The server as a whole: where it listens, whom it refuses, and how it ends."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
from asyncio import SelectorEventLoop
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSStream
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wsproto.events import CloseConnection

from hubbub.ws_bridge import run, serve, serve_connection
from hubbub.ws_bridge.socket_transport import socket_transport
from hubbub.ws_bridge.streams import SocketStream
from tests.peer import eventually
from tests.wire.frame import frame
from tests.ws_bridge.peers import (
    REQUEST,
    Application,
    Client,
    linked,
    served,
    until_disconnect,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import ByteStream

    from hubbub.types import Receive, Scope, Send


async def test_ipv6() -> None:
    app = Application()
    async with anyio.create_task_group() as tasks:
        [address] = await tasks.start(partial(serve, app, "::1", 0))
        async with await anyio.connect_tcp("::1", address[1]) as stream:
            await Client(stream).open()
        assert app.scopes[0]["server"] == ("::1", address[1])
        tasks.cancel_scope.cancel()
    assert app.scopes[0]["client"][0] == "::1"


async def test_a_unix_socket(tmp_path: Path) -> None:
    app, path = Application(), tmp_path / "sock"
    async with anyio.create_task_group() as tasks:
        assert await tasks.start(partial(serve, app, uds=path)) == [str(path)]
        async with await anyio.connect_unix(path) as stream:
            client = Client(stream)
            await client.open()
            await client.close()
        tasks.cancel_scope.cancel()
    assert app.scopes[0]["server"] == (str(path), None)
    assert app.scopes[0]["client"] is None
    assert not path.exists()


async def test_ready_sockets() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    async with anyio.create_task_group() as tasks:
        [address] = await tasks.start(partial(serve, Application(), sockets=[sock]))
        async with await anyio.connect_tcp(*address) as stream:
            await Client(stream).open()
        tasks.cancel_scope.cancel()
    assert sock.fileno() == -1


async def test_an_address_that_is_taken() -> None:
    async with served(Application()) as (host, port):
        with pytest.raises(OSError, match="in use"):
            await serve(Application(), host, port)


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server of TLS needs, and what its clients do."""
    authority = trustme.CA()
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    return ours, theirs


async def wrap_tls(stream: ByteStream, context: ssl.SSLContext) -> TLSStream:
    return await TLSStream.wrap(
        stream, hostname="localhost", ssl_context=context, standard_compatible=False
    )


async def test_tls() -> None:
    ours, theirs = tls_contexts()
    app = Application()
    async with served(app, ssl=ours, handshake_timeout=0.5, close_timeout=0.1) as (host, port):
        async with await anyio.connect_tcp(host, port) as stream:
            await stream.send(b"GET / HTTP/1.1\r\n\r\n")  # no TLS
            await Client(stream).rest()
        async with await anyio.connect_tcp(host, port) as stream:
            assert await Client(stream).rest() == b""  # no TLS in time
        async with await anyio.connect_tcp(host, port):
            pass  # nor any sign of it
        async with await wrap_tls(await anyio.connect_tcp(host, port), theirs) as stream:
            client = Client(stream)
            await client.open()
            await client.say("x" * 500_000)
            assert await client.hear() == "x" * 500_000
            await client.stream.send(frame(0x81, b"\xff"))
            assert (await client.closed())[0] == 1007
    assert app.scopes[0]["scheme"] == "wss"
    assert app.scopes[0]["client"][0] == "127.0.0.1"


async def test_a_peer_of_tls_that_is_lost_while_it_is_sent_to_harms_no_other() -> None:
    ours, theirs = tls_contexts()

    async def flood(_receive: Receive, send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(1_000_000)})

    flooding, echoing = Application(flood), Application()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (flooding if scope.get("path") == "/flood" else echoing)(scope, receive, send)

    async with served(app, ssl=ours) as address:
        other = Client(await wrap_tls(await anyio.connect_tcp(*address), theirs))
        await other.open()
        plain = await anyio.connect_tcp(*address)
        flooded = Client(await wrap_tls(plain, theirs))
        await flooded.open("/flood")
        linger = struct.pack("ii", 1, 0)  # to close is to reset
        plain.extra(SocketAttribute.raw_socket).setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        await plain.aclose()
        await flooding.over.wait()
        await other.say("still here")
        assert await other.hear() == "still here"
        await other.close()
        await other.stream.aclose()


async def test_too_many_connections() -> None:
    async with served(Application(), max_connections=1) as (host, port):
        async with await anyio.connect_tcp(host, port) as stream:
            await Client(stream).open()
            async with await anyio.connect_tcp(host, port) as other:
                client = Client(other)
                await client.request()
                assert (await client.rejected())[0] == 503
        async with await anyio.connect_tcp(host, port) as stream:
            client = Client(stream)
            while True:  # until the server has seen the first one go
                try:
                    await client.open()
                except AssertionError:
                    client = Client(await anyio.connect_tcp(host, port))
                else:
                    break
            await client.close()
            await client.stream.aclose()


@pytest.mark.parametrize(
    ("origins", "header", "status"),
    [
        (["https://good.example"], b"https://good.example\r\nOrigin: https://evil.example", 403),
        (None, b"https://evil.example", 101),
        (["https://good.example"], b"https://good.example", 101),
        (["https://good.example"], b"https://evil.example", 403),
        (["https://good.example"], None, 403),
        ([None], None, 101),
    ],
)
async def test_origins(origins: Any, header: bytes | None, status: int) -> None:
    extra = b"" if header is None else b"\r\nOrigin: " + header
    async with linked("memory", Application(), origins=origins) as client:
        await client.stream.send(REQUEST[:-4] + extra + b"\r\n\r\n")
        assert (await client.stream.receive())[9:12] == b"%d" % status


BAD = {
    "plain HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
    "wrong version": (REQUEST.replace(b": 13", b": 8"), 426),
    "method": (REQUEST.replace(b"GET", b"POST"), 405),
    "no key": (REQUEST.replace(b"Sec-WebSocket-Key", b"X"), 400),
    "short key": (REQUEST.replace(b"dGhlI", b"I"), 400),
    "two hosts": (REQUEST.replace(b"Host: x", b"Host: x\r\nHost: y"), 400),
    "no host": (REQUEST.replace(b"Host: x\r\n", b""), 400),
    "a body": (REQUEST.replace(b"Host: x", b"Host: x\r\nContent-Length: 5"), 400),
    "garbage": (b"\x16\x03\x01\r\n\r\n", 400),
    "a large head": (REQUEST.replace(b"Host: x", b"Host: x\r\nX: " + b"y" * 70_000), 431),
    "many headers": (REQUEST.replace(b"Host: x", b"Host: x" + b"\r\nX: y" * 200), 431),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests(link: str, name: str) -> None:
    request, status = BAD[name]
    app = Application()
    async with linked(link, app) as client:
        answer = await client.exchange(request)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"server: hubbub" in head.lower()
    assert body.count(b"\n") == 1
    assert not app.scopes


async def test_no_server_header() -> None:
    async with linked("memory", Application(), server_header=None) as client:
        assert b"server:" not in (await client.exchange(b"GET / HTTP/1.1\r\n\r\n")).lower()


async def test_cancelling_the_server_closes_with_1012() -> None:
    """Those without a request are closed, those without an answer refused."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        apps = {"/accept": accepting, "/close": leaving}
        await apps.get(scope.get("path", ""), waiting)(scope, receive, send)

    async def leave(_receive: Receive, _send: Send) -> None:
        pass

    leaving = Application(leave)
    accepting, waiting = Application(), Application(until_disconnect, {"type": "none"})
    async with anyio.create_task_group() as clients:
        async with served(app, shutdown_timeout=None) as (host, port):
            closing = Client(await anyio.connect_tcp(host, port))
            await closing.open("/close")
            silent, asking, talking = [
                Client(await anyio.connect_tcp(host, port)) for _ in range(3)
            ]
            await asking.request()
            await talking.open("/accept")
            await eventually(lambda: waiting.events)

            async def end() -> None:
                assert await silent.rest() == b""
                assert (await asking.rejected())[0] == 503
                await asking.stream.aclose()
                assert await closing.answer_close() == (1000, "")
                await closing.stream.aclose()
                assert await talking.answer_close() == (1012, "service restart")
                await talking.stream.aclose()
                await silent.stream.aclose()

            clients.start_soon(end)
            await anyio.wait_all_tasks_blocked()
    assert accepting.last == {
        "type": "websocket.disconnect",
        "code": 1012,
        "reason": "service restart",
    }
    assert waiting.last["code"] == 1012


async def test_an_application_learns_of_a_shutdown_before_its_peer_answers() -> None:
    app = Application()
    async with anyio.create_task_group() as clients:
        async with served(app, shutdown_timeout=None, close_timeout=None) as address:
            client = Client(await anyio.connect_tcp(*address))
            await client.open()

            async def end() -> None:
                await app.over.wait()
                assert await client.answer_close() == (1012, "service restart")
                await client.stream.aclose()

            clients.start_soon(end)
            await anyio.wait_all_tasks_blocked()
    assert app.last["code"] == 1012


async def test_a_shutdown_does_not_wait_for_who_comes_late() -> None:
    """A peer may have been accepted, and be at TLS, when the others are told to go."""
    ours, theirs = tls_contexts()
    async with anyio.create_task_group() as clients:
        async with served(Application(), ssl=ours, shutdown_timeout=None) as address:
            late = await anyio.connect_tcp(*address)
            open_one = Client(await wrap_tls(await anyio.connect_tcp(*address), theirs))
            await open_one.open()

            async def end() -> None:
                event = await open_one.next()
                assert isinstance(event, CloseConnection)
                async with await wrap_tls(late, theirs) as stream:
                    assert await Client(stream).rest() == b""
                await open_one.send(event.response())
                assert await open_one.rest() == b""
                await open_one.stream.aclose()

            clients.start_soon(end)


@pytest.mark.parametrize("mode", ["deaf peer", "deaf application"])
async def test_a_shutdown_has_a_deadline(mode: str) -> None:
    async def sleep(_receive: Receive, _send: Send) -> None:
        await anyio.sleep_forever()

    app = Application(sleep if mode == "deaf application" else None)
    with anyio.fail_after(5):
        async with served(app, shutdown_timeout=0.05) as (host, port):
            client = Client(await anyio.connect_tcp(host, port))
            await client.open()
    assert app.over.is_set()
    await client.stream.aclose()


async def test_a_connection_that_is_cancelled_says_so() -> None:
    sock, other = socket.socketpair()
    app = Application()
    client = Client(SocketStream(socket_transport(other)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve_connection, app, SocketStream(socket_transport(sock)))
        await client.open()
        tasks.cancel_scope.cancel()
    assert isinstance(app.errors[0], anyio.get_cancelled_exc_class())
    await client.stream.aclose()


async def test_a_fault_of_ours_is_no_other_connections(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise LookupError("ours")

    async with served(Application()) as (host, port):
        client = Client(await anyio.connect_tcp(host, port))
        await client.open()
        with monkeypatch.context() as patch:
            patch.setattr("hubbub.ws_bridge.server_connection.ServerConnection.run", fail)
            other = Client(await anyio.connect_tcp(host, port))
            assert await other.rest() == b""
        await client.say("still here")
        assert await client.hear() == "still here"
        await client.close()
        await client.stream.aclose()
        await other.stream.aclose()
    assert "A connection failed" in caplog.text


async def test_an_application_that_is_cancelled_by_itself_harms_no_other_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On asyncio it need only await a task that was cancelled; trio has nothing like it."""

    async def fail_or_echo(receive: Receive, send: Send) -> None:
        while (event := await receive())["type"] == "websocket.receive":
            if event["text"] == "fail":
                raise anyio.get_cancelled_exc_class()
            await send({**event, "type": "websocket.send"})

    async with served(Application(fail_or_echo)) as (host, port):
        async with (
            await anyio.connect_tcp(host, port) as stream,
            await anyio.connect_tcp(host, port) as other,
        ):
            client, failing = Client(stream), Client(other)
            await client.open()
            await failing.open()
            await failing.say("fail")
            assert (await failing.closed())[0] in (1001, 1011)
            await client.say("still here")
            assert await client.hear() == "still here"
        async with await anyio.connect_tcp(host, port) as stream:
            client = Client(stream)
            await client.open()
            await client.say("served, too")
            assert await client.hear() == "served, too"
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


PROGRAM = """
import anyio, logging, sys
from hubbub.ws_bridge import Config, run

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass
        if scope["path"] == "/deaf":
            with anyio.CancelScope(shield=True):
                await anyio.sleep_forever()

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
# Whoever is in no receive is read for by the sweeper, which comes by in a quarter of the shortest.
run(app, port=0, backend=sys.argv[1], config=Config(ping_interval=0.2))
print("ended")
"""


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_a_second_one_at_once(backend: str, number: signal.Signals) -> None:
    for path in ("/", "/deaf"):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, backend], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            while not (line := process.stdout.readline()).startswith("Listening on"):
                assert line
            port = int(line.rpartition(",")[2].strip(" )\n"))
            with connect(f"ws://127.0.0.1:{port}{path}") as client:
                process.send_signal(number)
                with pytest.raises(ConnectionClosed) as raised:
                    client.recv(timeout=5)
                assert raised.value.rcvd is not None
                assert raised.value.rcvd.code == 1012
            if path == "/deaf":
                process.send_signal(number)
            status = process.wait(timeout=5)
            output = process.stdout.read()
        assert status == (-number if path == "/deaf" else 0)
        assert output.endswith("ended\n") is (path != "/deaf")


def test_a_backend_that_is_none() -> None:
    with pytest.raises(ValueError, match="Expected a backend"):
        run(Application(), backend="curio")  # type: ignore[arg-type]


def run_until(number: signal.Signals, backend: Any, **options: Any) -> tuple[Any, Any]:
    """Run a server until its peer sends a signal; give its last event, and its address."""
    app = Application()
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()

    def connect_and_end() -> None:
        with connect(f"ws://{address[0]}:{address[1]}/", open_timeout=30) as client:
            os.kill(os.getpid(), number)
            with suppress(ConnectionClosed):
                client.recv(timeout=30)

    with ThreadPoolExecutor(1) as threads:
        threads.submit(connect_and_end)
        run(app, sockets=[listener], backend=backend, **options)
    return app.last, address


@pytest.mark.parametrize(("threshold", "rises"), [(700, True), (100_000, False)])
def test_the_garbage_collector_leaves_alone_what_stays(threshold: int, rises: bool) -> None:
    seen: list[tuple[int, int]] = []

    def announce(_: list[Any]) -> None:
        seen.append((gc.get_freeze_count(), gc.get_threshold()[0]))
        os.kill(os.getpid(), signal.SIGTERM)

    before = gc.get_threshold()
    gc.set_threshold(threshold)
    try:
        run(Application(), port=0, announce=announce)
        assert (gc.get_freeze_count(), gc.get_threshold()[0]) == (0, threshold)
    finally:
        gc.set_threshold(*before)
    [(frozen, rarely)] = seen
    assert frozen > 0
    assert (rarely > threshold) is rises


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_running_until_a_signal(backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hubbub.ws_bridge")
    handler = signal.getsignal(signal.SIGTERM)
    last, address = run_until(signal.SIGTERM, backend)
    assert last["code"] == 1012
    assert f"Listening on {address}" in caplog.messages
    assert signal.getsignal(signal.SIGTERM) is handler


def test_its_addresses_are_announced() -> None:
    announced: list[Any] = []
    _, address = run_until(signal.SIGTERM, "asyncio", announce=announced.append)
    assert announced == [[address]]


def test_running_until_ctrl_c_where_there_are_no_signal_receivers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError  # as the loops of Windows do

    monkeypatch.setattr(SelectorEventLoop, "add_signal_handler", refuse)
    # A shell has its background jobs ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        last, _ = run_until(signal.SIGINT, "asyncio")
    finally:
        signal.signal(signal.SIGINT, before)
    assert last["code"] == 1012


class Hasty(socket.socket):
    """A listener whose first peer is gone before anybody looks at it."""

    hasty = True

    def accept(self) -> tuple[socket.socket, Any]:
        if self.hasty:
            self.hasty = False
            return socket.socket(), None
        return super().accept()


async def test_a_peer_that_is_gone_at_once() -> None:
    listener = Hasty()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    async with anyio.create_task_group() as tasks:
        [address] = await tasks.start(partial(serve, Application(), sockets=[listener]))
        for _ in range(2):
            async with await anyio.connect_tcp(*address) as stream:
                await Client(stream).open()
        tasks.cancel_scope.cancel()
