"""What a message costs a server, ours and others': ``python benchmarks/servers.py``, on Linux.

Each server is a process, on a core of its own where there are two. Measured is its CPU time, user
and system, for each message that has come back, or has reached a member of a room:

* ``echo``: 64 clients, each with 1 or 16 messages of 32 bytes on their way at once;
* ``room``: messages of 128 bytes to 1,000 clients, 1 or 8 on their way at once; ours by
  ``hub.broadcast_nowait``, Starlette's by the loop over all clients that everybody writes first,
  that of websockets by its ``broadcast``.

The servers take turns, and the least of all rounds is printed: what else a machine does can only
add to it. Compare within a column of one run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection, broadcast, serve

from hubbub import App, Hub, WebSocket
from hubbub.ws_bridge import run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

CLIENTS = 64
MEMBERS = 1000
SECONDS = 1.0
ROUNDS = 5
CORES = sorted(os.sched_getaffinity(0))
SERVERS = {
    "hubbub, asyncio": ["hubbub", "asyncio"],
    "hubbub, uvloop": ["hubbub", "uvloop"],
    "hubbub, trio": ["hubbub", "trio"],
    "websockets": ["websockets"],
    "uvicorn, asyncio": ["uvicorn", "--loop", "asyncio", "--ws", "websockets-sansio"],
    "uvicorn, uvloop": ["uvicorn", "--loop", "uvloop", "--ws", "websockets-sansio"],
    "Hypercorn, asyncio": ["hypercorn", "-k", "asyncio"],
    "Hypercorn, trio": ["hypercorn", "-k", "trio"],
}


# -- The servers ------------------------------------------------------------------------


def make_hubbub_app() -> App:
    hub = Hub()

    async def echo(ws: WebSocket) -> None:
        async with ws:
            async for message in ws.iter_messages():
                await ws.send(message)

    async def subscribe(ws: WebSocket) -> None:
        async with ws, hub.join("room", ws):
            async for _ in ws:
                pass

    async def publish(ws: WebSocket) -> None:
        async with ws:
            async for text in ws:
                hub.broadcast_nowait("room", text)

    return App({"/echo": echo, "/sub": subscribe, "/pub": publish}, lifespan=hub)


def make_starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    clients: set[WebSocket] = set()

    async def messages(ws: WebSocket) -> AsyncGenerator[str]:
        await ws.accept()
        async for text in ws.iter_text():
            yield text

    async def echo(ws: WebSocket) -> None:
        async for text in messages(ws):
            await ws.send_text(text)

    async def subscribe(ws: WebSocket) -> None:
        clients.add(ws)
        async for _ in messages(ws):
            pass
        clients.discard(ws)

    async def publish(ws: WebSocket) -> None:
        async for text in messages(ws):
            for client in list(clients):
                await client.send_text(text)

    handlers = {"/echo": echo, "/sub": subscribe, "/pub": publish}
    return Starlette(routes=[WebSocketRoute(path, each) for path, each in handlers.items()])


async def serve_websockets(port: int) -> None:
    clients: set[ServerConnection] = set()

    async def handle(ws: ServerConnection) -> None:
        assert ws.request is not None
        if ws.request.path == "/sub":
            clients.add(ws)
        async for message in ws:
            if ws.request.path == "/echo":
                await ws.send(message)
            else:
                broadcast(clients, message)
        clients.discard(ws)

    async with serve(handle, "127.0.0.1", port, compression=None) as server:
        await server.serve_forever()


def command(kind: str, *options: str, port: int) -> list[str]:
    python, here = sys.executable, Path(__file__)
    if kind in {"hubbub", "websockets"}:
        return [python, str(here), kind, str(port), *options]
    app = f"{here.stem}:{make_starlette_app.__name__}"
    if kind == "uvicorn":
        start = [app, "--factory", "--port", str(port), "--ws-per-message-deflate", "false"]
    else:
        start = [f"{app}()", "--bind", f"127.0.0.1:{port}"]
    return [python, "-m", kind, *start, *options, "--log-level", "error"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


@contextmanager
def running(kind: str, *options: str) -> Iterator[tuple[int, int]]:
    """Run a server; give its process id and its port."""
    port = free_port()
    with subprocess.Popen(
        command(kind, *options, port=port),
        cwd=Path(__file__).parent,
        start_new_session=True,
        stderr=subprocess.DEVNULL,  # some log much about clients that vanish
    ) as server:
        try:
            os.sched_setaffinity(server.pid, CORES[:1])
            while True:
                assert server.poll() is None, f"{kind} did not start"
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            yield server.pid, port
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # Hypercorn has a process for the work


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process, which has one busy thread, and of all that it has started."""
    spent = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return spent + sum(cpu_seconds(int(child)) for child in children)


# -- The clients ------------------------------------------------------------------------


def frame(size: int) -> bytes:
    """A text message of a client's, masked with zeros; the server's is four bytes shorter."""
    head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE, 0, size])
    return head + bytes(4) + b"x" * size


class Client(asyncio.Protocol):
    """A connection that tells how many messages of one size have come."""

    def __init__(self, path: str, size: int, on_messages: Callable[[Client, int], None]) -> None:
        self.opened = asyncio.get_running_loop().create_future()
        self.frame = frame(size)
        self._path = path
        self._on_messages = on_messages
        self._received = -1  # bytes of messages; before that, the response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        self.transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._received < 0:
            assert data.startswith(b"HTTP/1.1 101"), data
            assert data.endswith(b"\r\n\r\n"), data
            self._received = 0
            self.opened.set_result(None)
            return
        size = len(self.frame) - 4
        before, self._received = self._received, self._received + len(data)
        self._on_messages(self, self._received // size - before // size)


@asynccontextmanager
async def connections(
    port: int, count: int, path: str, size: int, on_messages: Callable[[Client, int], None]
) -> AsyncGenerator[list[Client]]:
    loop = asyncio.get_running_loop()
    opened: list[Client] = []
    try:
        for _ in range(count):
            _, client = await loop.create_connection(
                lambda: Client(path, size, on_messages), "127.0.0.1", port
            )
            opened.append(client)
            await client.opened
        yield opened
    finally:
        for client in opened:
            client.transport.abort()
        await asyncio.sleep(0)


async def measure_echo(pid: int, port: int, window: int) -> float:
    """Give microseconds for each echo."""
    messages = 0

    def answer(client: Client, count: int) -> None:
        nonlocal messages
        messages += count
        client.transport.write(client.frame * count)

    async with connections(port, CLIENTS, "/echo", 32, answer) as talkers:
        for client in talkers:
            client.transport.write(client.frame * window)
        return await count_for_a_while(pid, lambda: messages)


async def measure_room(pid: int, port: int, window: int) -> float:
    """Give microseconds for each message to each member."""
    messages = 0

    def count(_: Client, number: int) -> None:
        nonlocal messages
        before, messages = messages, messages + number
        publisher.transport.write(
            publisher.frame * (messages // MEMBERS - before // MEMBERS)  # for each that all have
        )

    async with (
        connections(port, 1, "/pub", 128, count) as [publisher],
        connections(port, MEMBERS, "/sub", 128, count),
    ):
        publisher.transport.write(publisher.frame * window)
        return await count_for_a_while(pid, lambda: messages)


async def count_for_a_while(pid: int, messages: Callable[[], int]) -> float:
    await asyncio.sleep(SECONDS / 5)
    before, spent = messages(), cpu_seconds(pid)
    while messages() == before:  # noqa: ASYNC110 (again, on a machine that is very busy)
        await asyncio.sleep(SECONDS)
    return (cpu_seconds(pid) - spent) / (messages() - before) * 1e6


CASES = {
    "echo, 1 on its way": (measure_echo, 1),
    "echo, 16": (measure_echo, 16),
    "room, 1 on its way": (measure_room, 1),
    "room, 8": (measure_room, 8),
}


def main() -> None:
    os.sched_setaffinity(0, CORES[1:] or CORES)
    figures: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for name, server in SERVERS.items():
            for case, (measure, window) in CASES.items():
                with running(*server) as (pid, port):
                    figure = asyncio.run(measure(pid, port, window))
                figures.setdefault((name, case), []).append(figure)
    print("| us of CPU |", " | ".join(CASES), "|")
    print("| --- |", " | ".join(["---:"] * len(CASES)), "|")
    for name in SERVERS:
        print(f"| {name} |", " | ".join(f"{min(figures[name, case]):.2f}" for case in CASES), "|")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["websockets", port]:
            asyncio.run(serve_websockets(int(port)))
        case ["hubbub", port, backend]:
            run(make_hubbub_app(), port=int(port), backend=backend)  # type: ignore[arg-type]
