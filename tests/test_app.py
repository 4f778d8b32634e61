from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.routing import Mount

from hubbub import App, Hub, WebSocket, WebSocketDisconnect
from hubbub import app as module
from tests.peer import Peer, call, eventually, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hubbub.types import Message


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for text in ws:
            await ws.send(text)


class Server:
    """The lifespan half of an ASGI server."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.sent: list[Message] = []
        self.shut_down = anyio.Event()
        self._started = False

    async def receive(self) -> Message:
        if not self._started:
            self._started = True
            return {"type": "lifespan.startup"}
        await self.shut_down.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self) -> None:
        await self.app({"type": "lifespan", "asgi": {}}, self.receive, self.send)

    @asynccontextmanager
    async def started(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.run)
            await eventually(lambda: self.sent)
            yield
            self.shut_down.set()


class TestRouting:
    @pytest.mark.parametrize("path", ["/", "/echo"])
    async def test_a_path_has_its_handler(self, path: str) -> None:
        peer = Peer(path=path)
        peer.say("hi")
        async with running(App({"/": echo, "/echo": echo}), peer):
            await eventually(lambda: peer.heard == ["hi"])
            peer.leave()

    @pytest.mark.parametrize("path", ["/other", "/echo/", "/ECHO", "/echo/x"])
    async def test_another_path_is_rejected_with_404(self, path: str) -> None:
        peer = Peer(path=path)
        await call(App({"/echo": echo}), peer)
        assert peer.sent[0]["status"] == 404
        assert peer.sent[1]["body"] == b"Not Found"

    async def test_mounted_in_starlette(self) -> None:
        app = Starlette(routes=[Mount("/ws", App({"/echo": echo, "/": echo}))])
        for path, status in (("/ws/echo", None), ("/ws/", None), ("/ws/other", 404)):
            peer = Peer(path=path, root_path="")
            peer.leave()
            await call(app, peer)
            assert peer.sent[0].get("status") == status

    def test_a_path_begins_with_a_slash(self) -> None:
        with pytest.raises(ValueError, match="Expected a path that begins with '/', got 'echo'"):
            App({"echo": echo})

    def test_a_path_has_no_parameters(self) -> None:
        with pytest.raises(ValueError, match=r"Expected an exact path, got '/rooms/\{name\}'"):
            App({"/rooms/{name}": echo})

    def test_routes_are_a_mapping_of_functions(self) -> None:
        no_mapping: Any = echo
        with pytest.raises(TypeError, match=r"Expected routes as {path: handler}, got <function"):
            App(no_mapping)
        no_function: Any = None
        with pytest.raises(TypeError, match="Expected a function as the handler of /, got None"):
            App({"/": no_function})

    @pytest.mark.parametrize(
        ("path", "status", "upgrade", "body"),
        [("/echo", 426, "websocket", "Expected a WebSocket"), ("/other", 404, None, "Not Found")],
    )
    async def test_plain_http(self, path: str, status: int, upgrade: str | None, body: str) -> None:
        transport = ASGITransport(App({"/echo": echo}))
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.get(path)
        assert response.status_code == status
        assert response.headers.get("upgrade") == upgrade
        assert response.headers["content-length"] == str(len(body))
        assert response.text == body

    async def test_another_scope_is_an_error(self, peer: Peer) -> None:
        peer.scope["type"] = "smtp"
        with pytest.raises(RuntimeError, match=r"'websocket', 'http' or 'lifespan', got 'smtp'"):
            await call(App({}), peer)


class TestHowAHandlerEnds:
    """Each end gives the peer an end, and the log what it needs."""

    async def ended(self, handler: module.Handler) -> Peer:
        peer = Peer()
        await call(App({"/": handler}), peer)
        return peer

    async def test_it_returns(self, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(ws: WebSocket) -> None:
            await ws.accept()

        assert (await self.ended(handler)).closed_with == (1000, "")
        assert not caplog.records

    async def test_it_returns_before_it_accepts(self) -> None:
        async def handler(ws: WebSocket) -> None:
            pass

        assert (await self.ended(handler)).sent[0]["status"] == 403

    @pytest.mark.parametrize("in_block", [True, False])
    async def test_it_raises(self, caplog: pytest.LogCaptureFixture, in_block: bool) -> None:
        async def handler(ws: WebSocket) -> None:
            if in_block:
                async with ws:
                    raise KeyError("mine")
            await ws.accept()
            raise KeyError("mine")

        assert (await self.ended(handler)).closed_with == (1011, "")
        [record] = caplog.records
        assert record.getMessage() == "The handler of / failed"
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], KeyError)

    async def test_it_raises_to_a_server_that_asks_for_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(ws: WebSocket) -> None:
            await ws.accept()
            raise KeyError("mine")

        peer = Peer(extensions={module.RAISE_ERRORS: {}})
        with pytest.raises(KeyError, match="mine"):
            await call(App({"/": handler}), peer)
        assert peer.closed_with == (1011, "")
        assert not caplog.records

    async def test_it_raises_before_it_accepts(self, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(ws: WebSocket) -> None:
            raise KeyError("mine")

        assert (await self.ended(handler)).sent[0]["status"] == 500
        assert len(caplog.records) == 1

    async def test_it_has_closed_or_rejected_itself(self) -> None:
        async def close(ws: WebSocket) -> None:
            await ws.accept()
            await ws.close(4000, "enough")

        async def reject(ws: WebSocket) -> None:
            await ws.reject(401)

        peer = await self.ended(close)
        assert peer.closed_with == (4000, "enough")
        assert len(peer.sent) == 2
        peer = await self.ended(reject)
        assert [message.get("status") for message in peer.sent] == [401, None]

    @pytest.mark.parametrize("grouped", [True, False])
    async def test_the_peer_left(self, caplog: pytest.LogCaptureFixture, grouped: bool) -> None:
        async def receive(ws: WebSocket) -> None:
            await ws.receive()

        async def handler(ws: WebSocket) -> None:
            await ws.accept()
            if grouped:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(receive, ws)
            await receive(ws)

        peer = Peer()
        peer.leave()
        await call(App({"/": handler}), peer)
        assert peer.closed_with is None
        assert not caplog.records

    @pytest.mark.parametrize("in_block", [True, False])
    async def test_another_peer_left(
        self, caplog: pytest.LogCaptureFixture, in_block: bool
    ) -> None:
        gone = await Peer().accepted()
        await gone.disconnect(1001)

        async def handler(ws: WebSocket) -> None:
            if in_block:
                async with ws:
                    await gone.send("hi")
            await ws.accept()
            await gone.send("hi")

        assert (await self.ended(handler)).closed_with == (1011, "")
        [record] = caplog.records
        assert record.getMessage() == "The handler of / failed"

    async def test_the_hub_disconnects_who_is_sending(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        hub = Hub()

        async def handler(ws: WebSocket) -> None:
            async with ws, hub.join("r", ws) as me:
                await hub.aclose(1012)
                await me.send("hi")

        async with hub:
            assert (await self.ended(handler)).closed_with == (1012, "")
        assert not caplog.records

    async def test_the_peer_left_and_something_else_failed(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(ws: WebSocket) -> None:
            raise ExceptionGroup("both", [WebSocketDisconnect(), KeyError("mine")])

        await self.ended(handler)
        assert len(caplog.records) == 1

    async def test_the_peer_left_before_it_was_answered(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        peer = Peer(path="/other")
        peer.send_error = ConnectionResetError()
        await call(App({}), peer)
        peer = Peer()
        peer.send_error = ConnectionResetError()
        await call(App({"/": echo}), peer)
        peer = Peer()
        peer.forget_connect()
        peer.leave()
        await call(App({"/": echo}), peer)

        async def refuse(ws: WebSocket) -> None:
            peer.send_error = ConnectionResetError()

        peer = Peer()
        await call(App({"/": refuse}), peer)
        assert not caplog.records

    @pytest.mark.parametrize("accepted", [True, False])
    async def test_it_is_cancelled(self, accepted: bool) -> None:
        async def handler(ws: WebSocket) -> None:
            if accepted:
                await ws.accept()
            await anyio.sleep_forever()

        peer = Peer()
        with anyio.CancelScope() as scope:
            async with running(App({"/": handler}), peer):
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        if accepted:
            assert peer.closed_with == (1001, "")
        else:
            assert peer.sent[0]["status"] == 503

    async def test_a_cancellation_goes_on_to_whoever_cancelled(self) -> None:
        async def handler(ws: WebSocket) -> None:
            await anyio.sleep_forever()

        with anyio.move_on_after(0.01) as scope:
            await call(App({"/": handler}), Peer())
            pytest.fail("it was swallowed")
        assert scope.cancelled_caught

    async def test_a_peer_that_does_not_read_does_not_hold_it_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 0.01)
        peer = Peer()

        async def handler(ws: WebSocket) -> None:
            await ws.accept()
            peer.stop_reading()

        with anyio.fail_after(5):
            await call(App({"/": handler}), peer)
        assert peer.closed_with is None


class TestLifespan:
    async def test_a_hub(self) -> None:
        hub = Hub()

        async def handler(ws: WebSocket) -> None:
            async with ws, hub.join("r", ws) as member:
                await hub.broadcast("r", "hi")
                await member.wait_drained()

        app = App({"/": handler}, lifespan=hub)
        for _ in range(2):
            server, peer = Server(app), Peer()
            async with server.started():
                await call(app, peer)
            assert peer.heard == ["hi"]
            assert server.sent == [
                {"type": "lifespan.startup.complete"},
                {"type": "lifespan.shutdown.complete"},
            ]

    async def test_none(self) -> None:
        server = Server(App({}))
        async with server.started():
            pass
        assert len(server.sent) == 2

    async def test_what_it_gives_is_every_connections_state(self) -> None:
        seen: list[dict[str, Any]] = []

        async def handler(ws: WebSocket) -> None:
            seen.append(dict(ws.state))
            ws.state.mine = True

        @asynccontextmanager
        async def lifespan() -> AsyncGenerator[dict[str, Any]]:
            yield {"db": "the database", "tenant": "default"}

        app = App({"/": handler}, lifespan=lifespan)
        server = Server(app)
        async with server.started():
            await call(app, Peer())
            await call(app, Peer(state={"tenant": "the server's"}))
        assert seen == [
            {"db": "the database", "tenant": "default"},
            {"db": "the database", "tenant": "the server's"},
        ]

    async def test_a_failure_at_startup_names_the_reason(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        @asynccontextmanager
        async def lifespan() -> AsyncGenerator[None]:
            raise OSError("no database")
            yield

        server = Server(App({}, lifespan=lifespan))
        await server.run()
        assert server.sent == [
            {"type": "lifespan.startup.failed", "message": "OSError: no database"}
        ]
        assert len(caplog.records) == 1

    async def test_a_failure_at_shutdown_names_the_reason(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        @asynccontextmanager
        async def lifespan() -> AsyncGenerator[None]:
            yield
            raise OSError("the database is gone")

        server = Server(App({}, lifespan=lifespan))
        async with server.started():
            pass
        assert server.sent[1:] == [
            {"type": "lifespan.shutdown.failed", "message": "OSError: the database is gone"}
        ]
        assert len(caplog.records) == 1

    async def test_a_cancellation_of_its_own_is_a_failure(self) -> None:
        """On asyncio it need only await a task that was cancelled; trio has nothing like it."""

        @asynccontextmanager
        async def lifespan() -> AsyncGenerator[None]:
            raise anyio.get_cancelled_exc_class()
            yield

        server = Server(App({}, lifespan=lifespan))
        with suppress(anyio.get_cancelled_exc_class()):
            await server.run()
        assert [message["type"] for message in server.sent] == ["lifespan.startup.failed"]
