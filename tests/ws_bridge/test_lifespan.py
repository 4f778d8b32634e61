from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from hubbub.ws_bridge import StartupFailed, serve
from hubbub.ws_bridge.lifespan import Lifespan
from tests.ws_bridge.peers import Client, echo, served

if TYPE_CHECKING:
    from hubbub.types import Receive, Scope, Send


class App:
    """An application with a lifespan, answering with what it was made with."""

    def __init__(self, startup: str = "complete", shutdown: str = "complete") -> None:
        self.answers = {"startup": startup, "shutdown": shutdown}
        self.log: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["db"] = self.log
            for phase, answer in self.answers.items():
                assert await receive() == {"type": f"lifespan.{phase}"}
                self.log.append(phase)
                if answer == "raise":
                    raise LookupError(phase)
                if answer == "cancelled":  # on asyncio, by something that it awaited
                    raise anyio.get_cancelled_exc_class()
                await send({"type": f"lifespan.{phase}.{answer}", "message": "no database"})
        else:
            self.log.append(scope["state"])
            await receive()
            await send({"type": "websocket.accept"})
            await echo(receive, send)
            self.log.append("left")


async def test_connections_are_between_startup_and_shutdown() -> None:
    app = App()
    async with served(app) as (host, port), await anyio.connect_tcp(host, port) as stream:
        client = Client(stream)
        await client.open()
        assert app.log[-1] == {"db": app.log}
        app.log[-1]["mine"] = 1
        async with await anyio.connect_tcp(host, port) as other:
            await Client(other).open()
            assert app.log[-1] == {"db": app.log}
        app.log.clear()
        await client.close()
    assert app.log[-2:] == ["left", "shutdown"]


async def test_a_startup_that_fails_stops_the_server() -> None:
    with pytest.raises(StartupFailed, match="no database"):
        await serve(App("failed"), port=0)


@pytest.mark.parametrize("startup", ["raise", "cancelled"])
async def test_an_application_without_a_lifespan_is_served(
    startup: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hubbub.ws_bridge")
    app = App(startup)
    scope: dict[str, Any] = {}

    async def call(given: Scope, receive: Receive, send: Send) -> None:
        if given["type"] == "lifespan":
            await app(given, receive, send)
        scope.update(given)

    async with served(call) as (host, port), await anyio.connect_tcp(host, port) as stream:
        client = Client(stream)
        await client.request()
        assert (await client.rejected())[0] == 500
    assert scope["type"] == "websocket"
    assert "state" not in scope
    assert "The application has no lifespan: " in caplog.text


@pytest.mark.parametrize("answer", ["failed", "raise", "cancelled"])
async def test_a_shutdown_that_fails_is_logged(
    answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(App(shutdown=answer)):
        pass
    assert "no database" in caplog.text or "The application's lifespan failed" in caplog.text


async def test_a_lifespan_that_hangs_is_cancelled() -> None:
    async def hang(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with served(hang, shutdown_timeout=0.02):
            pass


async def test_a_startup_can_be_cancelled() -> None:
    async def hang(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.05) as scope:
        await serve(hang, port=0)
    assert scope.cancelled_caught


async def test_a_lifespan_that_ends_too_early_does_not_matter() -> None:
    async def leave(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async with served(leave):
        await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    "wrong", ["lifespan.shutdown.complete", "lifespan.startup", "websocket.accept"]
)
async def test_wrong_answers_raise(wrong: str) -> None:
    errors: list[Exception] = []

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": wrong})
        except RuntimeError as error:
            errors.append(error)
        await send({"type": "lifespan.startup.complete"})
        with pytest.raises(RuntimeError, match="Expected one answer"):
            await send({"type": "lifespan.startup.complete"})

    lifespan = Lifespan(answer)
    await lifespan.run()
    await lifespan.start()
    assert wrong in str(errors[0])
