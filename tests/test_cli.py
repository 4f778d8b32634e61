"""The command line, in process: what it says, what it refuses, and a demo until Ctrl-C."""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
from asyncio import SelectorEventLoop
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import hubbub
from hubbub.__main__ import main
from hubbub.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typer.testing import Result

BACKENDS = ["asyncio", "uvloop", "trio"]
_PATIENCE = 20.0  # seconds


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        free: int = sock.getsockname()[1]
    return free


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the signal handlers back: the demo leaves them so that a second Ctrl-C kills."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def stay_until_closed(port: int, then: Callable[[], None]) -> int | None:
    """Connect as soon as there is a server, do something, and give the close code."""
    url = f"ws://127.0.0.1:{port}/ws/chat?nick=ann"
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), _PATIENCE).close()
        except ConnectionRefusedError:
            continue
        break
    with connect(url, proxy=None, open_timeout=_PATIENCE) as ws:
        assert json.loads(ws.recv(_PATIENCE))["type"] == "chat.welcome"
        then()
        with pytest.raises(ConnectionClosed) as end:
            while True:
                ws.recv(_PATIENCE)
    return end.value.rcvd.code if end.value.rcvd else None


def send_signal(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def run_demo(port: int, number: signal.Signals, *arguments: str) -> tuple[Result, int | None]:
    """Run the demo until a guest sends the signal; gives the guest's close code, too."""
    with ThreadPoolExecutor(1) as threads:
        guest = threads.submit(stay_until_closed, port, lambda: send_signal(number))
        result = invoke("demo", "--port", str(port), *arguments)
        return result, guest.result(_PATIENCE)


class TestDemo:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.usefixtures("handlers")
    def test_it_serves_until_a_signal(
        self, backend: str, number: signal.Signals, port: int
    ) -> None:
        result, close_code = run_demo(port, number, "--backend", backend)
        assert result.exit_code == 0
        assert close_code == 1012
        assert result.output == (
            f"hubbub demo: open http://127.0.0.1:{port} in your browser "
            f"({backend}; Ctrl-C stops it)\n"
        )
        assert signal.getsignal(number) is signal.SIG_DFL

    @pytest.mark.usefixtures("handlers")
    def test_trio_is_the_default(self, port: int) -> None:
        result, _ = run_demo(port, signal.SIGINT)
        assert "(trio; " in result.output

    @pytest.mark.usefixtures("handlers")
    def test_without_signal_handlers_ctrl_c_ends_it_all_the_same(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: Any) -> None:
            raise NotImplementedError  # as the loops of Windows do

        monkeypatch.setattr(SelectorEventLoop, "add_signal_handler", refuse)
        result, _ = run_demo(port, signal.SIGINT, "--backend", "asyncio")
        assert result.exit_code == 0
        assert len(result.output.splitlines()) == 1

    @pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
    def test_a_port_that_is_taken_is_named(self, host: str, shown: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as sock:
            port = sock.getsockname()[1]
            result = invoke("demo", "--host", host, "--port", str(port))
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith(f"Cannot listen on {shown}:{port}: the port is taken.")
        assert "--port" in result.stderr

    @pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
    def test_a_host_that_is_not_ours_is_named(self, host: str) -> None:
        result = invoke("demo", "--host", host, "--port", "0")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Cannot listen on {host}:0: ")
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        ("module", "backend"),
        [("hypercorn", "trio"), ("starlette", "asyncio"), ("trio", "trio"), ("uvloop", "uvloop")],
    )
    def test_what_is_not_installed_is_named(
        self, module: str, backend: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        result = invoke("demo", "--backend", backend)
        assert result.exit_code == 1
        assert result.stderr == f'This needs {module}: pip install "hubbub[demo]"\n'

    @pytest.mark.parametrize(
        "arguments", [("--backend", "curio"), ("--port", "65536"), ("--port", "x"), ("now",)]
    )
    def test_misuse_is_exit_code_2(self, arguments: tuple[str, ...]) -> None:
        assert invoke("demo", *arguments).exit_code == 2


class TestMain:
    def test_the_version(self) -> None:
        result = invoke("--version")
        assert (result.exit_code, result.output) == (0, f"hubbub {hubbub.__version__}\n")

    def test_help_names_the_commands(self) -> None:
        result = invoke("--help")
        assert result.exit_code == 0
        assert "demo" in result.output
        assert "demo" in invoke().output

    def test_as_a_module_it_is_the_same(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["hubbub", "--version"])
        monkeypatch.delitem(sys.modules, "hubbub.__main__")
        with pytest.raises(SystemExit) as end:
            runpy.run_module("hubbub", run_name="__main__")
        assert end.value.code == 0
        assert capsys.readouterr().out == f"hubbub {hubbub.__version__}\n"

    @pytest.mark.parametrize("module", ["typer", "rich"])
    def test_without_its_extra_it_says_which(
        self, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 'The command line needs an extra: pip install "hubbub[cli]"'
