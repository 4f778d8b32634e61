"""The supervisor and its workers, as the processes that they are."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from hubbub.cli.supervisor import Supervisor, WorkerFailed
from hubbub.ws_bridge import Config
from tests.cli.command import make_service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection

pytestmark = [pytest.mark.usefixtures("handlers"), pytest.mark.timeout(240)]

_DEADLINE = 200  # seconds, for starting up to four processes on a machine that has no time

APP = """
import os, time
from hubbub import App

async def echo(ws):
    async with ws:
        async for text in ws:
            if text == "die":
                os._exit(9)
            await ws.send(f"{os.getpid()} {WORD}")

async def block(ws):
    async with ws:
        time.sleep(1000)

app = App({"/": echo, "/block": block})
WORD = "one"
"""
BROKEN = "import no_such_module"


@pytest.fixture
def anyio_backend() -> str:
    """The loop of the supervisor, whatever its workers have."""
    return "asyncio"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "hubbub.cli")
    return caplog


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The module that is served."""
    path = tmp_path / "served.py"
    edit(path, APP)
    return path


def edit(source: Path, text: str) -> None:
    """Change it as editors do, at once."""
    draft = source.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(source)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    while not condition():  # noqa: ASYNC110 - no event comes from there
        await anyio.sleep(0.02)


class Running:
    """A supervisor at work, and how its workers are reached."""

    def __init__(self, sock: socket.socket) -> None:
        host, port = sock.getsockname()
        self._url = f"ws://{host}:{port}"
        self._announced = 0

    def announce(self) -> None:
        self._announced += 1

    async def announced(self, times: int = 1) -> None:
        await until(lambda: self._announced >= times)

    def connect(self, path: str = "/") -> connect:
        return connect(self._url + path, proxy=None, open_timeout=None, ping_interval=None)

    async def ask(self) -> tuple[int, str]:
        async with self.connect() as client:
            return await ask(client)


async def ask(client: ClientConnection) -> tuple[int, str]:
    """The process that serves a client, and the word of its module."""
    await client.send("who")
    pid, word = str(await client.recv()).split()
    return int(pid), word


async def close_code(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as end:
        await client.recv()
    return end.value.rcvd.code if end.value.rcvd else None


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def supervised(source: Path, count: int = 1, **options: Any) -> AsyncGenerator[Running]:
    """Run a supervisor in this process, until the block ends."""
    config = Config(shutdown_timeout=options.pop("shutdown_timeout", 60.0))
    with socket.create_server(("127.0.0.1", 0)) as sock, anyio.fail_after(_DEADLINE):
        running = Running(sock)
        service = make_service("served:app", source.parent, config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Supervisor(service, [sock], count, **options).run, running.announce)
            yield running
            tasks.cancel_scope.cancel()


async def test_workers_serve_one_socket(source: Path) -> None:
    async with supervised(source, 2) as running:
        await running.announced()
        async with running.connect() as client:
            first, _ = await ask(client)
            os.kill(first, signal.SIGSTOP)  # so that it is the other one that accepts
            second, _ = await running.ask()
            os.kill(first, signal.SIGCONT)
            assert first != second
            assert (await ask(client))[0] == first
    assert not is_alive(first)
    assert not is_alive(second)


async def test_modules_beside_the_application_are_not_taken_for_the_library(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    edit(source.with_name("typer.py"), "raise LookupError")
    async with supervised(source) as running:
        await running.announced()
        assert (await running.ask())[1] == "one"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_them_gracefully(source: Path, number: signal.Signals) -> None:
    async with supervised(source) as running:
        await running.announced()
        async with running.connect() as client:
            pid, _ = await ask(client)
            os.kill(os.getpid(), number)
            assert await close_code(client) == 1012
        await until(lambda: not is_alive(pid))
        assert signal.getsignal(number) is signal.SIG_DFL


async def test_one_that_dies_is_replaced(source: Path, log: pytest.LogCaptureFixture) -> None:
    async with supervised(source) as running:
        await running.announced()
        async with running.connect() as client:
            pid, _ = await ask(client)
            await client.send("die")
            assert await close_code(client) is None
        assert (await running.ask())[0] != pid
    assert f"Worker {pid} ended (exit status 9): another one in 0.5 s" in log.messages


async def test_one_that_dies_at_its_start_is_given_more_and_more_time(
    source: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.cli.supervisor._FIRST_DELAY", 0.1)
    monkeypatch.setattr("hubbub.cli.supervisor._MAX_DELAY", 0.3)
    dying = f"""
import os
with open({str(source.with_name("starts"))!r}, "a+") as starts:
    starts.write("x")
    if starts.tell() < 4:
        starts.close()
        os.kill(os.getpid(), 9)
"""
    edit(source, dying + APP)
    async with supervised(source) as running:
        await running.announced()
        assert (await running.ask())[1] == "one"
    delays = [line.partition("(signal 9): ")[2] for line in log.messages if "signal 9" in line]
    assert delays == [f"another one in {delay} s" for delay in (0.1, 0.2, 0.3)]


async def test_one_that_cannot_start_ends_it_all(
    source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(source, BROKEN)
    with pytest.raises(ExceptionGroup) as raised:
        async with supervised(source, 3):
            await anyio.sleep_forever()
    assert isinstance(raised.value.exceptions[0], WorkerFailed)
    assert capfd.readouterr().err.count("No module named 'no_such_module'") == 1


async def test_one_that_cannot_be_told_what_to_do_ends_it_all(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(ExceptionGroup) as raised:
        async with supervised(source):
            await anyio.sleep_forever()
    assert isinstance(raised.value.exceptions[0], WorkerFailed)


async def test_a_hangup_replaces_them_one_by_one(source: Path) -> None:
    async with supervised(source, 2) as running:
        await running.announced()
        async with running.connect() as client:
            pid, word = await ask(client)
            assert word == "one"
            edit(source, APP + "WORD = 'two'")
            os.kill(os.getpid(), signal.SIGHUP)
            assert await close_code(client) == 1012
        await running.announced(2)
        assert not is_alive(pid)
        assert (await running.ask())[1] == "two"


async def test_a_hangup_does_not_replace_what_serves_by_what_does_not(
    source: Path, log: pytest.LogCaptureFixture
) -> None:
    async with supervised(source, 2) as running:
        await running.announced()
        edit(source, BROKEN)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "The new worker does not serve" in log.text)
        assert (await running.ask())[1] == "one"


async def test_a_change_replaces_them(source: Path, log: pytest.LogCaptureFixture) -> None:
    edit(source, BROKEN)
    async with supervised(source, watch=source.parent) as running:
        await until(lambda: "Waiting for a change" in log.messages)
        edit(source, APP)
        await running.announced()
        async with running.connect() as client:
            assert (await ask(client))[1] == "one"
            log.clear()
            edit(source, BROKEN)
            assert await close_code(client) == 1012
        await until(lambda: "Waiting for a change" in log.messages)
        edit(source, APP + "WORD = 'two'")
        await running.announced(2)
        assert (await running.ask())[1] == "two"
    assert f"Changed: {source}" in log.messages


async def test_one_that_does_not_end_is_killed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.cli.service._LAST_CALL", 0.1)
    async with supervised(source, shutdown_timeout=0.1) as running:
        await running.announced()
        pid, _ = await running.ask()
        blocking = await running.connect("/block")
    assert not is_alive(pid)
    with pytest.raises(ConnectionClosed):
        await blocking.recv()
