"""The ASGI servers that hubbub behaves the same on: what is known of each, and how it is run.

All of them run at once, one process each, for the whole session; ``server`` is each of them
in turn. A server that is missing is a skip, in CI (``CI=true``) a failure.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import pytest
from websockets.client import ClientProtocol
from websockets.frames import CloseCode
from websockets.protocol import Event, State
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from hubbub.testing import PROFILES, Profile
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True)
class Server:
    """A server: how to run it, and what it is like."""

    name: str
    argv: str
    """Its command line, for ``python -m``."""
    profile: Profile = PROFILES["asgi"]
    """In what it is not as the ASGI specification has it. Tests assert these facts, so that a
    server's change for the better is noticed as well."""
    loop: str = "asyncio"
    """What it runs on, so that ``--loop`` and its like are known to work."""
    requires: tuple[str, ...] = ()
    """Modules that it needs beside its own."""
    survives_crossing_closes: bool = True
    """Both sides may close at the same time."""
    close_waits: bool = False
    """Sending a close takes until the peer has answered it."""


HYPERCORN = "hypercorn --bind 127.0.0.1:{port} --worker-class"
UVICORN = "uvicorn --host 127.0.0.1 --port {port} --log-level warning --ws"
GRANIAN = "granian --interface asgi --workers 1 --loop uvloop --host 127.0.0.1 --port {port}"
SERVERS = [
    Server(
        "hypercorn-trio",
        f"{HYPERCORN} trio tests.servers.probe:application",
        PROFILES["hypercorn-trio"],
        loop="trio",
        requires=("trio",),
        survives_crossing_closes=False,
    ),
    Server(
        "hypercorn-asyncio",
        f"{HYPERCORN} asyncio tests.servers.probe:application",
        PROFILES["hypercorn-asyncio"],
    ),
    Server(
        "hypercorn-uvloop",
        f"{HYPERCORN} uvloop tests.servers.probe:application",
        PROFILES["hypercorn-uvloop"],
        loop="uvloop",
        requires=("uvloop",),
    ),
    Server(
        "uvicorn-sansio",
        f"{UVICORN} websockets-sansio --loop uvloop tests.servers.probe:application",
        PROFILES["uvicorn-sansio"],
        loop="uvloop",
        requires=("uvloop", "websockets"),
    ),
    Server(
        "uvicorn-wsproto",
        f"{UVICORN} wsproto --loop asyncio tests.servers.probe:application",
        PROFILES["uvicorn-wsproto"],
        requires=("wsproto",),
    ),
    Server(
        "uvicorn-legacy",
        f"{UVICORN} websockets --loop asyncio tests.servers.probe:application",
        PROFILES["uvicorn-legacy"],
        requires=("websockets",),
        close_waits=True,
    ),
    Server(
        "granian",
        f"{GRANIAN} tests.servers.probe:application",
        PROFILES["granian"],
        loop="uvloop",
        requires=("uvloop",),
    ),
    Server(
        "daphne",
        "daphne --bind 127.0.0.1 --port {port} --verbosity 0 tests.servers.probe:application",
        PROFILES["daphne"],
    ),
]

# Ours, which the testing kit takes for the specification.
OWN = [
    Server(
        f"hubbub-{loop}",
        f"hubbub serve --port {{port}} --backend {loop} tests.servers.probe:application",
        loop=loop,
        requires=(loop,),
    )
    for loop in ("asyncio", "uvloop", "trio")
]

# What runs hub members that are connections of other libraries: see ``joined``.
JOINED = [
    Server(
        "starlette-hypercorn-trio",
        f"{HYPERCORN} trio tests.servers.joined:make_starlette()",
        PROFILES["hypercorn-trio"],
        requires=("trio", "starlette"),
    ),
    Server(
        "starlette-hypercorn-asyncio",
        f"{HYPERCORN} asyncio tests.servers.joined:make_starlette()",
        PROFILES["hypercorn-asyncio"],
        requires=("starlette",),
    ),
    Server(
        "starlette-uvicorn",
        f"{UVICORN} websockets-sansio --loop uvloop --factory tests.servers.joined:make_starlette",
        PROFILES["uvicorn-sansio"],
        requires=("uvloop", "websockets", "starlette"),
    ),
    Server(
        "fastapi-uvicorn",
        f"{UVICORN} wsproto --loop asyncio --factory tests.servers.joined:make_fastapi",
        PROFILES["uvicorn-wsproto"],
        requires=("wsproto", "fastapi"),
    ),
    Server(
        "starlette-granian",
        f"{GRANIAN} --factory tests.servers.joined:make_starlette",
        PROFILES["granian"],
        requires=("uvloop", "starlette"),
    ),
    Server(
        "trio-websocket", "tests.servers.joined trio-websocket {port}", requires=("trio_websocket",)
    ),
    Server(
        "websockets-asyncio",
        "tests.servers.joined websockets-asyncio {port}",
        requires=("websockets",),
    ),
    Server(
        "websockets-uvloop",
        "tests.servers.joined websockets-uvloop {port}",
        requires=("websockets", "uvloop"),
    ),
    Server(
        "websockets-trio",
        "tests.servers.joined websockets-trio {port}",
        requires=("websockets.trio",),
    ),
]

PATIENCE = 10.0  # seconds for anything that has to happen


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again; fail when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


class RunningServer:
    """A server's process, and the ways to it."""

    def __init__(
        self, facts: Server, port: int, process: subprocess.Popen[bytes], log: Path
    ) -> None:
        self.facts = facts
        self.profile = facts.profile
        self.port = port
        self.failures: list[str] = []
        """The paths of the handlers that were made to fail, and so were logged."""
        self._process = process
        self._log = log

    def __repr__(self) -> str:
        return f"<{self.facts.name} at port {self.port}>"

    def log(self) -> str:
        """Read what it has written so far to stdout and stderr."""
        return self._log.read_text(errors="replace")

    def wait_until_it_accepts(self) -> None:
        wait_until(self._accepts, f"{self.facts.name} to accept connections:\n{self.log()}")

    def _accepts(self) -> bool:
        assert self._process.poll() is None, f"{self.facts.name} did not start:\n{self.log()}"
        try:
            self.open_socket().close()
        except ConnectionRefusedError:
            return False
        return True

    def url(self, path: str, **query: str | float) -> str:
        url = f"ws://127.0.0.1:{self.port}{path}"
        return f"{url}?{urlencode(query)}" if query else url

    def open_socket(self, *, receive_buffer: int | None = None) -> socket.socket:
        sock = socket.socket()
        try:
            sock.settimeout(PATIENCE)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        return sock

    def connect(
        self,
        path: str,
        *,
        sock: socket.socket | None = None,
        subprotocols: Sequence[str] = (),
        headers: Sequence[tuple[str, str]] = (),
        compression: str | None = "deflate",
        max_queue: int = 16,
        **query: str | float,
    ) -> AbstractContextManager[ClientConnection]:
        """Connect a well-behaved client, to be used in a ``with``."""
        return connect(
            self.url(path, **query),
            sock=sock if sock is not None else self.open_socket(),
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            additional_headers=list(headers),
            compression=compression,
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            max_size=None,
            max_queue=max_queue,
        )

    def report(self, key: str) -> dict[str, Any]:
        """Wait until the handler that was given the key has ended; what it reports."""
        with self.connect("/report") as client:
            client.send(json.dumps({"key": key}))
            report: dict[str, Any] = json.loads(client.recv(PATIENCE))
            return report

    def let_go(self, key: str) -> None:
        """Let a handler go on that waits for this key."""
        with self.connect("/go") as client:
            client.send(json.dumps({"key": key}))
            assert client.recv(PATIENCE) == "true"


class RawPeer:
    """A peer whose socket does nothing by itself: it reads when told to, and can vanish."""

    def __init__(
        self,
        server: RunningServer,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        **query: str | float,
    ) -> None:
        self.socket = server.open_socket(receive_buffer=4096)
        self.events: list[Event] = []
        """What has come: the response, then frames."""
        self.over = False
        """Whether nothing more comes."""
        self._protocol = ClientProtocol(parse_uri(server.url(path, **query)))
        request = self._protocol.connect()
        for name, value in headers:
            request.headers[name] = value  # beside what it has of that name
        self._protocol.send_request(request)
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def finish_handshake(self) -> None:
        while self._protocol.state is State.CONNECTING:
            self.read_some()
        if self._protocol.state is not State.OPEN:
            raise ConnectionAbortedError("the server did not accept")

    def read_some(self) -> None:
        """Read, and answer a close frame."""
        try:
            data = self.socket.recv(64 * 1024)
        except ConnectionResetError:
            data = b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
            self.over = True
        self.events += self._protocol.events_received()
        self._flush()

    def send(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        self._flush()

    def send_close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        self._protocol.send_close(code, reason)
        self._flush()

    def close(self) -> None:
        """Close, unless the server was faster, and read all that is still on its way."""
        if self._protocol.state is State.OPEN:
            self.send_close()
        while self._protocol.state is State.CLOSING:
            self.read_some()

    def abort(self) -> None:
        """Reset the connection (RST), without a word."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:  # the empty one stands for the end of the stream
                self.socket.sendall(data)


@contextmanager
def run_server(facts: Server, directory: Path) -> Iterator[RunningServer]:
    port = free_port()
    log = directory / f"{facts.name}.log"
    argv = [sys.executable, "-m", *facts.argv.format(port=port).split()]
    search_path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search_path))}
    with log.open("wb") as output:
        # A session of its own: some servers have worker processes, which end with it.
        process = subprocess.Popen(
            argv, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield RunningServer(facts, port, process, log)
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            pass  # Hypercorn may wait for ever, for a connection that does not read
        finally:
            with suppress(ProcessLookupError):  # nothing of it is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def running_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningServer]]:
    """Run all servers that there are; they start side by side."""
    with ExitStack() as stack:
        yield _run_servers([*SERVERS, *OWN], stack, tmp_path_factory.mktemp("servers"))


@pytest.fixture(scope="session")
def running_joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningServer]]:
    """Run all servers with connections of other libraries."""
    with ExitStack() as stack:
        yield _run_servers(JOINED, stack, tmp_path_factory.mktemp("joined"))


@pytest.fixture(scope="session")
def running_raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningServer]]:
    """Run all servers once more, for applications that leave ugly logs."""
    with ExitStack() as stack:
        yield _run_servers([*SERVERS, *OWN], stack, tmp_path_factory.mktemp("raw"))


def _run_servers(
    servers: Sequence[Server], stack: ExitStack, directory: Path
) -> dict[str, RunningServer]:
    return {
        facts.name: stack.enter_context(run_server(facts, directory))
        for facts in servers
        if not _missing_modules(facts)
    }


def _missing_modules(facts: Server) -> list[str]:
    names = (facts.argv.split()[0], *facts.requires)
    return [name for name in names if not _is_here(name)]


def _is_here(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False


@pytest.fixture(params=SERVERS, ids=lambda facts: facts.name)
def server(request: pytest.FixtureRequest) -> RunningServer:
    """Each server in turn."""
    facts = _require_installed(request.param)
    fixture = "running_joined" if facts in JOINED else "running_servers"
    running: dict[str, RunningServer] = request.getfixturevalue(fixture)
    running[facts.name].wait_until_it_accepts()
    return running[facts.name]


@pytest.fixture(params=[*SERVERS, *OWN], ids=lambda facts: facts.name)
def raw_server(
    request: pytest.FixtureRequest, running_raw: dict[str, RunningServer]
) -> RunningServer:
    """Each server in turn, for applications that leave ugly logs."""
    running = running_raw[_require_installed(request.param).name]
    running.wait_until_it_accepts()
    return running


@pytest.fixture(params=SERVERS, ids=lambda facts: facts.name)
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningServer]:
    """Each server in turn, in a process for one test, for what might end it."""
    with run_server(_require_installed(request.param), tmp_path) as running:
        running.wait_until_it_accepts()
        yield running


def _require_installed(facts: Server) -> Server:
    if missing := _missing_modules(facts):
        complaint = f"{facts.name} needs {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(complaint)
        pytest.skip(complaint)
    return facts


@pytest.fixture
def key() -> str:
    """What this test's handler puts up its report under."""
    return secrets.token_hex(8)
