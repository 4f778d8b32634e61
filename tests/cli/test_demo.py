"""``hubbub demo``, in process: what it says, what it refuses, and a demo until Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import sys
from asyncio import SelectorEventLoop
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.cli.command import BACKENDS, PATIENCE, invoke, send_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result


def stay_until_closed(port: int, then: Callable[[], None]) -> int | None:
    """Connect as soon as there is a server, do something, and give the close code."""
    url = f"ws://127.0.0.1:{port}/ws/chat?nick=ann"
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        except ConnectionRefusedError:
            continue
        break
    with connect(url, proxy=None, open_timeout=PATIENCE) as ws:
        assert json.loads(ws.recv(PATIENCE))["type"] == "chat.welcome"
        then()
        with pytest.raises(ConnectionClosed) as end:
            while True:
                ws.recv(PATIENCE)
    return end.value.rcvd.code if end.value.rcvd else None


def run_demo(port: int, number: signal.Signals, *arguments: str) -> tuple[Result, int | None]:
    """Run the demo until a guest sends the signal; gives the guest's close code, too."""
    with ThreadPoolExecutor(1) as threads:
        guest = threads.submit(stay_until_closed, port, lambda: send_signal(number))
        result = invoke("demo", "--port", str(port), *arguments)
        return result, guest.result(PATIENCE)


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
    def test_listening_everywhere_it_names_an_address_to_go_to(self, port: int) -> None:
        result, _ = run_demo(port, signal.SIGINT, "--host", "0.0.0.0")
        assert f" http://localhost:{port} " in result.output

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
