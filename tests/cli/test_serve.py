"""``hubbub serve``, in process: what it refuses, and an application until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trustme
from anyio import fail_after
from websockets.asyncio.client import connect, unix_connect

from tests.cli.command import BACKENDS, PATIENCE, invoke, send_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

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

def make():
    return app
"""


async def echo_once(connecting: Callable[[], connect]) -> str | bytes:
    """Say "hi" as soon as there is a server.

    Not by the client of websockets that has threads: of those that it opens over TLS, two or
    three in a thousand never get an answer, from any server.
    """
    with fail_after(PATIENCE):
        while True:
            try:
                async with connecting() as ws:
                    await ws.send("hi")
                    return await ws.recv()
            except OSError:  # not listening yet
                continue


def echo_and_stop(connecting: Callable[[], connect]) -> str | bytes:
    try:
        return asyncio.run(echo_once(connecting))
    finally:  # whatever happened here: the server must not be waited for in vain
        send_signal(signal.SIGINT)


def serve_a_guest(connecting: Callable[[], connect], *arguments: str) -> Result:
    """Run the command until a guest has got an answer, and stops it."""
    with ThreadPoolExecutor(1) as threads:
        guest = threads.submit(echo_and_stop, connecting)
        result = invoke("serve", *arguments)
        assert guest.result(PATIENCE) == "hi"
    return result


def connecting_to(
    port: int, context: ssl.SSLContext | None = None, *, host: str = "localhost"
) -> Callable[[], connect]:
    url = f"{'wss' if context else 'ws'}://{host}:{port}/?token=secret"
    return partial(connect, url, proxy=None, ssl=context, open_timeout=None)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An application in a module of its own, in the current directory."""
    name = f"served_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(ECHO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_the_page_names_options_that_there_are() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "serving.md").read_text()
    text = invoke("serve", "--help").output
    named = set(re.findall(r"--[a-z][a-z-]+", page))
    assert named
    assert named <= {*re.findall(r"--[a-z][a-z-]+", text)}


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
        arguments = [f"{module}:app", "--port", str(port), "--backend", backend, *options]
        assert serve_a_guest(connecting_to(port, context), *arguments).exit_code == 0

    @pytest.mark.usefixtures("handlers")
    def test_a_unix_socket(self, module: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        connecting = partial(unix_connect, "sock", open_timeout=None)
        result = serve_a_guest(connecting, f"{module}:app", "--uds", "sock")
        assert result.exit_code == 0
        assert f"Serving {module}:app at unix:sock (asyncio; Ctrl-C stops it)" in caplog.messages
        assert not Path("sock").exists()

    @pytest.mark.usefixtures("handlers")
    def test_a_file_descriptor(self, module: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
        port = sock.getsockname()[1]
        connecting = connecting_to(port, host="[::1]")
        result = serve_a_guest(connecting, f"{module}:app", "--fd", str(sock.detach()))
        assert result.exit_code == 0
        assert f"Serving {module}:app at ws://[::1]:{port} (asyncio; " in caplog.text

    @pytest.mark.usefixtures("handlers")
    def test_several_processes(
        self, module: str, port: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [f"{module}:make", "--factory", "--port", str(port), "--workers", "2"]
        assert serve_a_guest(connecting_to(port), *arguments).exit_code == 0
        assert re.search(r'INFO: \[\d+\] 127\.0\.0\.1:\d+ - "GET / HTTP', capfd.readouterr().err)

    def test_several_processes_that_cannot_start(
        self, module: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        result = invoke("serve", f"{module}:broken", "--port", "0", "--workers", "2")
        assert result.exit_code == 1
        assert capfd.readouterr().err == f"{module}:broken cannot start: no database\n"

    @pytest.mark.usefixtures("handlers")
    @pytest.mark.parametrize("wanted", [True, False])
    def test_the_access_log(
        self,
        module: str,
        port: int,
        wanted: bool,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level(logging.INFO)
        monkeypatch.setattr(logging.getLogger("hubbub.access"), "disabled", False)
        option = [] if wanted else ["--no-access-log"]
        serve_a_guest(connecting_to(port), f"{module}:app", "--port", str(port), *option)
        assert caplog.text.count('"GET / HTTP/1.1" 101 ') == wanted
        assert "secret" not in caplog.text

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("app", "Expected MODULE:APP, got 'app'"),
            ("{}:number", "Expected {}:number to be an ASGI application, got int"),
            ("{}:broken", "{}:broken cannot start: no database"),
        ],
    )
    def test_what_cannot_be_served_is_explained(
        self, module: str, target: str, message: str
    ) -> None:
        result = invoke("serve", target.format(module), "--port", "0")
        assert result.exit_code == 1
        assert result.stderr == message.format(module) + "\n"

    def test_a_port_that_is_taken_is_named(self, module: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
            result = invoke("serve", f"{module}:app", "--port", str(port))
        assert result.exit_code == 1
        assert f"Cannot listen on 127.0.0.1:{port}: the port is taken." in result.stderr

    @pytest.mark.parametrize(
        ("option", "place", "reason"),
        [
            ("--uds", "no/such/sock", "No such file or directory"),
            ("--uds", "taken", "Address already in use"),
            ("--fd", "file descriptor 999", "Bad file descriptor"),
        ],
    )
    def test_what_is_no_place_to_listen_is_named(
        self, module: str, option: str, place: str, reason: str
    ) -> None:
        Path("taken").touch()
        result = invoke("serve", f"{module}:app", option, place.removeprefix("file descriptor "))
        assert result.exit_code == 1
        assert result.stderr == f"Cannot listen on {place}: {reason}\n"

    def test_a_certificate_that_is_none_is_named(self, module: str, tmp_path: Path) -> None:
        certificate = tmp_path / "cert.pem"
        result = invoke("serve", f"{module}:app", "--port", "0", "--ssl-certfile", str(certificate))
        assert result.exit_code == 1
        assert f"Cannot use the certificate {certificate}" in result.stderr

    def test_a_key_without_a_certificate_is_refused(self, module: str) -> None:
        result = invoke("serve", f"{module}:app", "--ssl-keyfile", "key.pem")
        assert result.exit_code == 1
        assert result.stderr == "--ssl-keyfile needs --ssl-certfile\n"

    @pytest.mark.parametrize(("backend", "extra"), [("trio", "trio"), ("uvloop", "fast")])
    def test_what_is_not_installed_is_named(
        self, backend: str, extra: str, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, backend, None)
        result = invoke("serve", f"{module}:app", "--backend", backend)
        assert result.stderr == f'This needs {backend}: pip install "hubbub[{extra}]"\n'

    def test_a_watcher_that_is_not_installed_is_named(
        self, module: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "watchfiles", None)
        result = invoke("serve", f"{module}:app", "--reload")
        assert result.stderr == 'This needs watchfiles: pip install "hubbub[cli]"\n'

    @pytest.mark.parametrize("option", [["--reload"], ["--workers", "2"]])
    def test_what_is_for_posix_alone_says_so(
        self, module: str, option: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hubbub.cli.serve.os", SimpleNamespace(name="nt"))
        result = invoke("serve", f"{module}:app", *option)
        assert result.exit_code == 1
        assert result.stderr == "--workers and --reload need a POSIX system\n"

    def test_the_directory_of_a_module(
        self, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir("/")
        result = invoke("serve", f"{module}:number", "--app-dir", str(tmp_path), "--port", "0")
        assert "to be an ASGI application, got int" in result.stderr
