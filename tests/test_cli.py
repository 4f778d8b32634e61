"""The command line, in process: what it says, what it refuses, and a demo until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import socket
import ssl
import sys
from asyncio import SelectorEventLoop
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import websockets
from anyio import fail_after
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


ECHO = """
from hubbub import App

async def echo(ws):
    async with ws:
        async for text in ws:
            await ws.send(text)

async def broken(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

app = App({"/": echo})
number = 1
"""


async def echo_once(port: int, context: ssl.SSLContext | None) -> str | bytes:
    """Say "hi" as soon as there is a server.

    Not by the client of websockets that has threads: of those that it opens over TLS, two or
    three in a thousand never get an answer, from any server.
    """
    url = f"{'wss' if context else 'ws'}://localhost:{port}/"
    with fail_after(_PATIENCE):
        while True:
            try:
                async with websockets.connect(url, proxy=None, ssl=context) as ws:
                    await ws.send("hi")
                    return await ws.recv()
            except OSError:  # not listening yet
                continue


def echo_and_stop(port: int, context: ssl.SSLContext | None) -> str | bytes:
    try:
        return asyncio.run(echo_once(port, context))
    finally:  # whatever happened here: the server must not be waited for in vain
        send_signal(signal.SIGINT)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An application in a module of its own, in the current directory."""
    name = f"served_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(ECHO)
    (tmp_path / f"{name}_needy.py").write_text("import no_such_module")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


class TestServe:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("secure", [False, True])
    @pytest.mark.usefixtures("handlers")
    def test_it_serves_until_a_signal(
        self, module: str, port: int, backend: str, secure: bool, tmp_path: Path
    ) -> None:
        options, context = [], None
        if secure:
            authority = trustme.CA()
            certificate = tmp_path / "cert.pem"
            authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
                certificate
            )
            context = ssl.create_default_context()
            authority.configure_trust(context)
            options = ["--ssl-certfile", str(certificate)]
        with ThreadPoolExecutor(1) as threads:
            guest = threads.submit(echo_and_stop, port, context)
            result = invoke(
                "serve", f"{module}:app", "--port", str(port), "--backend", backend, *options
            )
            assert guest.result(_PATIENCE) == "hi"
        assert result.exit_code == 0

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("app", "Expected MODULE:APP, got 'app'"),
            (":app", "Expected MODULE:APP, got ':app'"),
            ("no_such_module:app", "There is no module 'no_such_module' here, nor installed"),
            ("{}:other", "Module '{}' has no application 'other'"),
            ("{}:number", "Module '{}' has no application 'number'"),
            ("{}:broken", "{}:broken cannot start: "),
        ],
    )
    def test_what_cannot_be_served_is_explained(
        self, module: str, target: str, message: str
    ) -> None:
        result = invoke("serve", target.format(module), "--port", "0")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith(message.format(module))

    def test_what_the_module_itself_lacks_is_its_own_error(self, module: str) -> None:
        result = invoke("serve", f"{module}_needy:app")
        assert isinstance(result.exception, ModuleNotFoundError)
        assert result.exception.name == "no_such_module"

    def test_a_port_that_is_taken_is_named(self, module: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
            result = invoke("serve", f"{module}:app", "--port", str(port))
        assert result.exit_code == 1
        assert f"Cannot listen on 127.0.0.1:{port}: the port is taken." in result.stderr

    def test_a_certificate_that_is_none_is_named(self, module: str, tmp_path: Path) -> None:
        certificate = tmp_path / "cert.pem"
        result = invoke("serve", f"{module}:app", "--ssl-certfile", str(certificate))
        assert result.exit_code == 1
        assert f"Cannot use the certificate {certificate}" in result.stderr

    @pytest.mark.parametrize(("backend", "extra"), [("trio", "trio"), ("uvloop", "fast")])
    def test_what_is_not_installed_is_named(
        self, backend: str, extra: str, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, backend, None)
        result = invoke("serve", f"{module}:app", "--backend", backend)
        assert result.stderr == f'This needs {backend}: pip install "hubbub[{extra}]"\n'


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
