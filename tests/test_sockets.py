"""Connections of other libraries as members: the same promises, over the real things."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect as StarletteDisconnect
from wsproto.events import CloseConnection, TextMessage

from hubbub import App, Delivery, Hub, Member, WebSocket, WebSocketDisconnect
from hubbub import running as module
from hubbub.sockets import adapt
from tests.foreign import LIBRARIES, Backend, Library
from tests.peer import Peer, eventually
from tests.ws_bridge.peers import Client, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hubbub.types import Data, Message


WITHOUT_UVLOOP = pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not here")


def loop_of(backend: Backend) -> str:
    return "uvloop" if backend[1].get("use_uvloop") else backend[0]


def on_its_loops(libraries: list[Library]) -> pytest.MarkDecorator:
    """Run a test with each library, on each loop that it runs on."""
    return pytest.mark.parametrize(
        ("anyio_backend", "library"),
        [
            pytest.param(
                backend,
                library,
                id=f"{library.name}-{loop_of(backend)}",
                marks=[WITHOUT_UVLOOP] if loop_of(backend) == "uvloop" else [],
            )
            for library in libraries
            for backend in library.backends
        ],
        indirect=["anyio_backend"],
    )


with_each_library = on_its_loops(list(LIBRARIES))
with_each_client = on_its_loops([library for library in LIBRARIES if library.connect])


class House:
    """A library's server with one room, and what has become of its handlers."""

    def __init__(self, library: Library, **options: Any) -> None:
        self.library = library
        self.hub = Hub()
        self.members: list[Member] = []
        self.heard: list[Data] = []
        self.ends: list[tuple[int, str]] = []
        self._options = options

    async def handle(self, connection: Any) -> None:
        async with self.hub.join("r", connection, **self._options) as member:
            self.members.append(member)
            try:
                while True:
                    self.heard.append(await self.library.receive(connection))
            except self.library.disconnect as end:
                self.ends.append(self.library.end(end))

    @asynccontextmanager
    async def open(self, count: int) -> AsyncGenerator[list[Client]]:
        async with (
            self.hub,
            self.library.serve(self.handle) as address,
            AsyncExitStack() as streams,
        ):
            clients = []
            for _ in range(count):
                stream = await streams.enter_async_context(await anyio.connect_tcp(*address))
                clients.append(Client(stream))
                await clients[-1].open()
                await eventually(lambda: len(self.members) == len(clients))
            yield clients
            for client in clients:
                await client.stream.aclose()
            await eventually(lambda: len(self.ends) == count)


async def hear_all(client: Client) -> tuple[list[Data], tuple[int, str]]:
    """Read messages to the end, which is answered as it should be."""
    heard: list[Data] = []
    parts: list[str] = []
    while not isinstance(event := await client.next(), CloseConnection):
        if isinstance(event, TextMessage):
            parts.append(event.data)
            if event.message_finished:
                heard.append("".join(parts))
                parts.clear()
    await client.send(event.response())
    await hang_up(client)
    return heard, (event.code, event.reason or "")


async def hang_up(client: Client) -> None:
    """End TCP, as a client does: after the server."""
    await client.rest()
    await client.stream.aclose()


@pytest.fixture
def frequent_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our server look at its connections often: that is who reads while a handler does not."""
    monkeypatch.setattr("hubbub.ws_bridge.caretaker._MAX_PERIOD", 0.05)


@with_each_library
class TestEachLibrary:
    async def test_text_binary_and_the_order(self, library: Library) -> None:
        house = House(library)
        async with house.open(2) as [one, other]:
            expected: list[Data] = []
            for number in range(20):
                assert await house.hub.broadcast("r", f"text {number} ☃") == Delivery(2, 2)
                await house.members[0].send(f"to one {number}")
                house.hub.broadcast_nowait("r", b"%d" % number)
                expected += [f"text {number} ☃", f"to one {number}", b"%d" % number]
            assert [await one.hear() for _ in expected] == expected
            own = [data for data in expected if "to one" not in str(data)]
            assert [await other.hear() for _ in own] == own
            await one.say("thanks")
            await eventually(lambda: house.heard == ["thanks"])

    async def test_a_peer_leaves(self, library: Library) -> None:
        house = House(library)
        async with house.open(2) as [leaver, other]:
            await leaver.send(CloseConnection(code=4321, reason="why"))
            await hang_up(leaver)
            await eventually(lambda: len(house.hub.connections) == 1)
            assert house.ends == [(4321, "why")]
            assert await house.hub.broadcast("r", "hi") == Delivery(1, 1)
            assert await other.hear() == "hi"
            assert house.hub.statistics().disconnected == 0

    @pytest.mark.usefixtures("frequent_sweeps")
    @pytest.mark.parametrize("leave", ["closes", "vanishes"])
    async def test_a_send_finds_that_the_peer_has_gone(self, library: Library, leave: str) -> None:
        sends: list[WebSocketDisconnect] = []
        left = anyio.Event()

        async def handle(connection: Any) -> None:
            socket = adapt(connection)
            opened.set()
            await left.wait()
            with pytest.raises(WebSocketDisconnect) as raised:
                while True:
                    await socket.deliver("news")
                    await anyio.lowlevel.checkpoint()
            sends.append(raised.value)

        opened = anyio.Event()
        async with library.serve(handle) as address:
            async with await anyio.connect_tcp(*address) as stream:
                client = Client(stream)
                await client.open()
                await opened.wait()
                if leave == "closes":
                    await client.send(CloseConnection(code=4321, reason="why"))
                    await hang_up(client)
                else:
                    await stream.aclose()
                left.set()
            await eventually(lambda: sends)
        end = (sends[0].code, sends[0].reason)
        assert end == ((4321, "why") if leave == "closes" else (1006, ""))

    async def test_one_that_is_slow_is_disconnected_and_told(self, library: Library) -> None:
        house = House(library, capacity=4, max_bytes=2**30)
        news = "x" * 1_000_000
        async with house.open(2) as [slow, other]:
            sent = 0
            while len(house.hub.connections) == 2:
                sent += 1
                await house.hub.broadcast("r", news)
                assert await other.hear() == news
            assert sent > 4
            heard, end = await hear_all(slow)
            assert heard == [news] * len(heard)
            assert 0 < len(heard) < sent
            assert end == (1013, "slow consumer")
            await eventually(lambda: house.ends)
            assert set(house.ends) <= library.may_tell(*end)
            await house.hub.broadcast("r", "still here")
            assert await other.hear() == "still here"
            now = house.hub.statistics()
            assert (now.connections, now.disconnected, now.abandoned) == (1, 1, 0)

    async def test_one_that_does_not_read_at_all_is_given_up(
        self,
        library: Library,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 0.05)
        house = House(library, capacity=4, max_bytes=2**30)
        news = "x" * 1_000_000
        async with house.open(2) as [_, other]:
            while len(house.hub.connections) == 2:
                await house.hub.broadcast("r", news)
                assert await other.hear() == news
            # Its handler is told, and nobody is held up by it any more.
            await eventually(lambda: house.ends)
            abandoned = 0 if library.takes_every_close else 1
            await eventually(lambda: house.hub.statistics().abandoned == abandoned)
            now = house.hub.statistics()
            assert (now.connections, now.disconnected) == (1, 1)
            await house.hub.broadcast("r", "still here")
            assert await other.hear() == "still here"
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    async def test_the_hub_closes(self, library: Library) -> None:
        house = House(library)
        async with house.open(2) as clients:
            house.hub.broadcast_nowait("r", "the last")
            ends: list[Any] = []

            async def listen(client: Client) -> None:
                ends.append(await hear_all(client))

            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(listen, client)
                await house.hub.aclose(1012)
            assert ends == [(["the last"], (1012, ""))] * 2
            await eventually(lambda: len(house.ends) == 2)
            assert set(house.ends) <= library.may_tell(1012, "")

    async def test_who_comes_while_the_hub_closes_is_closed(self, library: Library) -> None:
        house = House(library)
        refused: list[int] = []

        async def handle(connection: Any) -> None:
            try:
                await house.handle(connection)
            except WebSocketDisconnect as end:
                refused.append(end.code)

        async with house.hub, library.serve(handle) as address:
            await house.hub.aclose()
            async with await anyio.connect_tcp(*address) as stream:
                client = Client(stream)
                await client.open()
                assert await hear_all(client) == ([], (1001, ""))
                await eventually(lambda: refused == [1001])

    async def test_joining_twice(self, library: Library) -> None:
        house = House(library)
        again = "not yet"

        async def handle(connection: Any) -> None:
            nonlocal again
            async with house.hub.join("r", connection):
                with pytest.raises(RuntimeError, match="is a member already"):
                    async with house.hub.join("s", connection):
                        pass
            async with house.hub.join("s", connection) as member:
                await member.send("hi")
                again = "yes"
                with suppress(library.disconnect):
                    await library.receive(connection)
            await left.wait()

        left = anyio.Event()
        async with house.hub, library.serve(handle) as address:
            async with await anyio.connect_tcp(*address) as stream:
                client = Client(stream)
                await client.open()
                assert await client.hear() == "hi"
                assert again == "yes"
            await eventually(lambda: not house.hub.connections)
            left.set()

    @pytest.mark.usefixtures("frequent_sweeps")
    async def test_a_handler_closes_by_itself(self, library: Library) -> None:
        async def handle(connection: Any) -> None:
            async with hub.join("r", connection) as member:
                await member.send("bye")
                await eventually(lambda: member.statistics().waiting == 0)
                await library.close(connection, 4000, "enough")
                closed.set()
                await eventually(lambda: hub.connections == ())

        hub, closed = Hub(), anyio.Event()
        async with hub, library.serve(handle) as address:
            async with await anyio.connect_tcp(*address) as stream:
                client = Client(stream)
                await client.open()
                assert await hear_all(client) == (["bye"], (4000, "enough"))
                await closed.wait()
                await hub.broadcast("r", "too late")
                await eventually(lambda: not hub.connections)


@with_each_client
async def test_a_clients_connection(library: Library) -> None:
    heard: list[Data] = []
    codes: list[int | None] = []

    async def listen(ws: WebSocket) -> None:
        async with ws:
            async for data in ws.iter_messages():
                heard.append(data)  # noqa: PERF401  # what has come is looked at meanwhile
        codes.append(ws.close_code)

    assert library.connect is not None
    hub = Hub()
    async with hub, served(App({"/": listen})) as (host, port):
        async with library.connect(f"ws://{host}:{port}/") as connection:
            async with hub.join("r", connection) as member:
                await hub.broadcast("r", "hi")
                await member.send(b"ho")
                await eventually(lambda: heard == ["hi", b"ho"])
                await hub.aclose(4001)
                with pytest.raises(library.disconnect):
                    await library.receive(connection)
        await eventually(lambda: codes)
    assert codes == [4001]


@with_each_client
async def test_what_is_no_message_is_the_callers_mistake(library: Library) -> None:
    async def handle(connection: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            await adapt(connection).deliver(5)  # type: ignore[arg-type]  # what is tested
        await library.send(connection, "goes on")
        with suppress(library.disconnect):
            await library.receive(connection)

    async with library.serve(handle) as address:
        async with await anyio.connect_tcp(*address) as stream:
            client = Client(stream)
            await client.open()
            assert await client.hear() == "goes on"


# -- Starlette, over a server under control ---------------------------------------------


async def accepted(peer: Peer) -> StarletteWebSocket:
    ws = StarletteWebSocket(peer.scope, peer.receive, peer.send)
    await ws.accept()
    return ws


class TestStarlette:
    async def test_a_handlers_own_send_and_the_hubs_never_meet_at_the_server(self) -> None:
        peer, sending = Peer(), 0

        async def send(message: Message) -> None:
            nonlocal sending
            sending += 1
            assert sending == 1, "two sends at once"
            await peer.send(message)
            sending -= 1

        ws = StarletteWebSocket(peer.scope, peer.receive, send)
        await ws.accept()
        hub = Hub()
        async with hub, hub.join("r", ws):
            for number in range(50):
                hub.broadcast_nowait("r", f"hub {number}")
                await ws.send_text(f"own {number}")
            await eventually(lambda: len(peer.heard) == 100)

    async def test_the_handler_is_told_after_the_close_frame(self, peer: Peer) -> None:
        ws, order = await accepted(peer), []
        socket = adapt(ws)

        async def receive() -> None:
            with pytest.raises(StarletteDisconnect) as end:
                await ws.receive_text()
            order.append((end.value.code, end.value.reason, peer.closed_with))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            peer.stop_reading()
            tasks.start_soon(socket.disconnect, 1013, "slow")
            await anyio.wait_all_tasks_blocked()
            assert order == []
            peer.read_on()
        assert order == [(1013, "slow", (1013, "slow"))]

    async def test_after_the_end_all_it_does_tells_of_it(self, peer: Peer) -> None:
        ws = await accepted(peer)
        await adapt(ws).disconnect(1013, "slow")
        with pytest.raises(StarletteDisconnect) as sent:
            await ws.send_text("too late")
        assert sent.value.code == 1006  # Starlette's word for a send that failed
        ws = await accepted(Peer())
        await adapt(ws).disconnect(1013, "slow")
        with pytest.raises(StarletteDisconnect) as received:
            await ws.receive_text()
        assert (received.value.code, received.value.reason) == (1013, "slow")
        await ws.close()  # as a handler's `finally` may do

    async def test_a_send_that_is_cancelled_ends_it_for_all(self, peer: Peer) -> None:
        ws, hub = await accepted(peer), Hub()
        async with hub, hub.join("r", ws), anyio.create_task_group() as tasks:
            ends: list[int] = []

            async def receive() -> None:
                with pytest.raises(StarletteDisconnect) as end:
                    await ws.receive_text()
                ends.append(end.value.code)

            tasks.start_soon(receive)
            peer.stop_reading()
            with anyio.move_on_after(0.01):
                await ws.send_text("half a message")
            await eventually(lambda: ends == [1006])
            await hub.broadcast("r", "x")
            await eventually(lambda: not hub.connections)

    async def test_what_the_peer_says_and_how_it_leaves(self, peer: Peer) -> None:
        ws = await accepted(peer)
        adapt(ws)
        peer.say("text")
        peer.say(b"bytes")
        peer.leave(4321, "why")
        assert await ws.receive_text() == "text"
        assert await ws.receive_bytes() == b"bytes"
        with pytest.raises(StarletteDisconnect) as end:
            await ws.receive_text()
        assert (end.value.code, end.value.reason) == (4321, "why")

    async def test_it_must_be_accepted_and_open(self, peer: Peer) -> None:
        hub = Hub()
        ws = StarletteWebSocket(peer.scope, peer.receive, peer.send)
        async with hub:
            with pytest.raises(RuntimeError, match="Expected an accepted connection"):
                async with hub.join("r", ws):
                    pass
            await ws.accept()
            await ws.close()
            with pytest.raises(RuntimeError, match="Expected an accepted connection"):
                async with hub.join("r", ws):
                    pass

    async def test_a_subclass(self, peer: Peer) -> None:
        class Custom(StarletteWebSocket):
            pass

        ws, hub = Custom(peer.scope, peer.receive, peer.send), Hub()
        await ws.accept()
        async with hub, hub.join("r", ws):
            await hub.broadcast("r", "hi")
            await eventually(lambda: peer.heard == ["hi"])


@pytest.mark.parametrize("thing", [None, "ws", object(), Peer()], ids=lambda it: type(it).__name__)
async def test_what_is_no_connection(thing: Any) -> None:
    hub = Hub()
    async with hub:
        with pytest.raises(
            TypeError, match=f"Expected a connection: .*; got {type(thing).__name__}"
        ):
            async with hub.join("r", thing):
                pass
        assert not hub.connections


async def test_a_websocket_of_ours_is_its_own_socket(peer: Peer) -> None:
    ws = await peer.accepted()
    assert adapt(ws) is ws


async def test_one_of_ours_that_is_not_accepted_yet(peer: Peer) -> None:
    hub, ws = Hub(), peer.websocket()
    async with hub:
        with pytest.raises(RuntimeError, match="Expected an accepted connection: `async with ws,"):
            async with hub.join("r", ws):
                pass
        assert not hub.connections


def test_no_library_is_imported_to_recognise_its_connections() -> None:
    look = "import hubbub, sys; print({'starlette', 'trio', 'trio_websocket'} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert seen.stdout == "set()\n"
