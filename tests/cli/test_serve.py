"""``hubbub serve``, in process: what it refuses, and an application until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
import websockets
from anyio import fail_after

from tests.cli.command import BACKENDS, PATIENCE, invoke, send_signal

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
    with fail_after(PATIENCE):
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
            assert guest.result(PATIENCE) == "hi"
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
