"""``hubbub connect``: in a pipe, and on a terminal."""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.plain_text import PlainTextOutput
from sniffio import current_async_library

from hubbub import App, WebSocket
from hubbub.cli.conversation import Conversation, Prompt
from tests.cli.command import PATIENCE, invoke
from tests.client.servers import hosted
from tests.peer import eventually
from tests.ws_bridge.peers import served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from typer.testing import Result

    from hubbub.client import ClientWebSocket


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for message in ws.iter_messages():
            await ws.send(message)


async def look(ws: WebSocket) -> None:
    await ws.accept(subprotocol=ws.subprotocols[-1])
    async with ws:
        await ws.send_text(f"{ws.headers['x-a']} {ws.headers['x-b']} {ws.headers['origin']}")


async def show(ws: WebSocket) -> None:
    async with ws:
        for message in ("plain", '{"a": [1]}', b"\x00\xff"):
            await ws.send(message)


async def fail(ws: WebSocket) -> None:
    await ws.accept()
    await ws.close(4000, "bye")


async def refuse(ws: WebSocket) -> None:
    await ws.reject(403, body=b"not you\n")


APP = App(
    {"/": echo, "/look": look, "/show": show, "/fail": fail, "/refuse": refuse},
    origins=["http://o"],
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(served(APP)) as (host, port),
    ):
        yield f"ws://{host}:{port}"


@contextmanager
def piped(data: bytes, *, ends: bool = True) -> Iterator[None]:
    """Let the standard input be a pipe with some bytes in it."""
    source, sink = os.pipe()
    before = os.dup(0)
    os.dup2(source, 0)
    os.close(source)
    os.write(sink, data)
    if ends:
        os.close(sink)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        if not ends:
            os.close(sink)


def connect(*arguments: str, data: bytes = b"", ends: bool = True) -> Result:
    with piped(data, ends=ends):
        return invoke("connect", *arguments)


# -- In a pipe ------------------------------------------------------------------------


def test_lines_are_messages_and_messages_are_lines(url: str) -> None:
    lines = ["one\r", "", "two é", "x" * 50_000, "last"]
    result = connect(url, "--wait", "2", data="\n".join(lines).encode())
    assert result.exit_code == 0
    assert result.stdout.split("\n") == ["one", *lines[1:], ""]
    assert result.stderr == f"Connected to {url}\n"


def test_the_server_ends_it_though_the_input_goes_on(url: str) -> None:
    result = connect(f"{url}/show", "--wait", "1000", ends=False)
    assert result.exit_code == 0
    assert result.stdout == 'plain\n{"a": [1]}\n<2 bytes> 00ff\n'
    assert result.stderr.endswith("Closed by the server: 1000\n")


def test_json_over_several_lines(url: str) -> None:
    result = connect(f"{url}/show", "--json", ends=False)
    assert result.stdout == 'plain\n{\n  "a": [\n    1\n  ]\n}\n<2 bytes> 00ff\n'


def test_a_close_that_is_an_error(url: str) -> None:
    result = connect(f"{url}/fail", ends=False)
    assert result.exit_code == 1
    assert result.stderr.endswith("Closed by the server: 4000 bye\n")


def test_options(url: str) -> None:
    result = connect(
        f"{url}/look",
        *("--subprotocol", "one", "--subprotocol", "two"),
        *("-H", "X-A: 1", "--header", "X-B:2:3", "--origin", "http://o"),
        ends=False,
    )
    assert result.stdout == "1 2:3 http://o\n"


def test_pings_are_shown(url: str) -> None:
    result = connect(url, "--ping", "0.1", "--wait", "2")
    assert "Pong after " in result.stderr
    assert result.stderr.endswith(" ms\n")


def test_what_cannot_be_connected(url: str, port: int) -> None:
    result = connect(f"{url}/refuse")
    assert result.exit_code == 1
    assert result.stderr == f"{url}/refuse: Expected status 101, got 403\nnot you\n"
    result = connect(f"ws://127.0.0.1:{port}/")
    assert result.exit_code == 1
    assert "Connection refused" in result.stderr
    for arguments in (["http://a/"], [url, "-H", "no colon"]):
        result = connect(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("Expected ")


# -- On a terminal --------------------------------------------------------------------


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the history is kept."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


class Terminal:
    """A terminal that a test types on."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys
        self.shown = io.StringIO()

    async def type(self, line: str, expected: str) -> None:
        """Type a line, and wait for something to be shown that was not before."""
        before = self.shown.getvalue().count(expected)
        self.keys.send_text(f"{line}\r")
        await eventually(lambda: self.shown.getvalue().count(expected) > before)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with create_pipe_input() as keys:
        terminal = Terminal(keys)
        with create_app_session(input=keys, output=PlainTextOutput(terminal.shown)):
            yield terminal


@asynccontextmanager
async def talking(path: str = "/", **options: Any) -> AsyncGenerator[ClientWebSocket]:
    """Run a conversation on the terminal; it has to end."""
    if current_async_library() != "asyncio":
        pytest.skip("prompt_toolkit knows asyncio")
    options = {"pretty": False, "ping": None, "wait": 0.0, **options}
    async with hosted("socket", APP) as to, anyio.create_task_group() as tasks:
        ws = await to(path).open(expendable=True)

        async def run() -> None:
            async with ws:
                await Conversation(Prompt(), **options).run(ws)

        tasks.start_soon(run)
        with anyio.fail_after(PATIENCE):
            yield ws


async def test_on_a_terminal(terminal: Terminal, config: Path) -> None:
    async with talking() as ws:
        await terminal.type("hello", "< hello\n")
        await terminal.type("//slash", "< /slash\n")
        await terminal.type("/ping", "Pong after ")
        await terminal.type("/what", "Expected /ping, /close")
        await terminal.type("/", "Expected /ping, /close")
        await terminal.type("/close 99", "Expected a close code")
        await terminal.type("/close x", "Expected")
        await terminal.type("again", "< again\n")
        terminal.keys.send_text("/close 3000 so long\r")
    assert (ws.close_code, ws.close_reason) == (3000, "so long")
    history = (config / "hubbub" / "history").read_text()
    assert "+hello\n" in history
    assert "+/close 3000 so long\n" in history


@pytest.mark.parametrize("key", ["\x04", "\x03"])
async def test_a_key_ends_it(terminal: Terminal, key: str) -> None:
    async with talking() as ws:
        await terminal.type("hello", "< hello\n")
        terminal.keys.send_text(key)
    assert ws.close_code == 1000


async def test_the_server_ends_it_while_somebody_types(terminal: Terminal) -> None:
    async with talking("/fail") as ws:
        terminal.keys.send_text("half a li")
    assert ws.close_code == 4000


def test_everything_together(url: str) -> None:
    """The command in a process of its own, on a real pseudo-terminal."""
    if sys.platform == "win32":
        pytest.skip("there are no pseudo-terminals")
    controller, terminal = os.openpty()
    shown = b""

    def read_until(expected: bytes) -> None:
        nonlocal shown
        while expected not in shown:
            assert select.select([controller], [], [], PATIENCE)[0], shown
            shown += os.read(controller, 4096)

    process = subprocess.Popen(
        [sys.executable, "-m", "hubbub", "connect", url],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    )
    try:
        read_until(b"Connected to")
        os.write(controller, b"hello\r")
        read_until(b"< hello")
        # The key is lost if it is pressed before the prompt is back.
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            os.write(controller, b"\x04")
            if select.select([controller], [], [], 0.2)[0]:
                os.read(controller, 4096)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(controller)
