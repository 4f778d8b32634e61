"""Servers for the client under test: our own, and one that does to the byte what it is told."""

from __future__ import annotations

import base64
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from hubbub.client import connect
from hubbub.ws_bridge import Config, serve_connection
from tests.wire.frame import frame, xor
from tests.ws_bridge.peers import memory_pair, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anyio.abc import ByteStream

    from hubbub.types import ASGIApp

    Script = Callable[["Server"], Awaitable[None]]

TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A


class Server:
    """One connection of a server that does what it is told, and nothing by itself."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.target = ""
        self.headers: dict[str, str] = {}
        self._received = b""

    async def read_request(self) -> None:
        head, self._received = await self._until(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.target = first.split()[1]
        self.headers = dict(line.split(": ", 1) for line in lines)

    def accept_key(self) -> str:
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        return base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()

    async def open(self, then: bytes = b"", /, **headers: str) -> None:
        """Read the request and answer 101, with what comes after it in the same segment."""
        await self.read_request()
        await self.answer(
            "101 Switching Protocols",
            then,
            **{
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Accept": self.accept_key(),
                **headers,
            },
        )

    async def answer(self, status: str, then: bytes = b"", /, **headers: str) -> None:
        fields = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
        await self.stream.send(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + then)

    async def say(self, first: int, payload: bytes = b"") -> None:
        await self.stream.send(frame(first, payload, key=None))

    async def hear(self) -> tuple[int, bytes]:
        """The next frame, unmasked; that it is masked is checked."""
        first, second = await self._take(2)
        assert second & 0x80
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await self._take(2 if length == 126 else 8), "big")
        key = await self._take(4)
        return first, xor(await self._take(length), key)

    async def rest(self) -> bytes:
        """All that comes until the client is gone."""
        try:
            while True:
                self._received += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return self._received

    async def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            self._received += await self.stream.receive()
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    async def _until(self, end: bytes) -> tuple[bytes, bytes]:
        while end not in self._received:
            self._received += await self.stream.receive()
        head, _, rest = self._received.partition(end)
        return head, rest


@asynccontextmanager
async def scripted(link: str, script: Script) -> AsyncGenerator[Callable[..., connect]]:
    """Run a script as the server; give what connects to it. The script has to end."""
    async with anyio.create_task_group() as tasks:

        async def run(stream: ByteStream) -> None:
            async with stream:
                await script(Server(stream))

        if link == "memory":
            ours, theirs = memory_pair()
            tasks.start_soon(run, theirs)
            async with ours:
                yield lambda path="/", **options: connect(
                    f"ws://test{path}", stream=ours, **options
                )
            return
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        accepting = anyio.CancelScope()

        async def accept() -> None:
            with accepting:
                async with listener:
                    await listener.serve(run, tasks)

        tasks.start_soon(accept)
        yield lambda path="/", **options: connect(f"ws://127.0.0.1:{port}{path}", **options)
        accepting.cancel()


@asynccontextmanager
async def hosted(link: str, app: ASGIApp, **fields: Any) -> AsyncGenerator[Callable[..., connect]]:
    """Run our own server; give what connects to it."""
    if link == "memory":
        ours, theirs = memory_pair()
        async with anyio.create_task_group() as tasks, ours:
            tasks.start_soon(serve_connection, app, theirs, Config(**fields))
            yield lambda path="/", **options: connect(f"ws://test{path}", stream=ours, **options)
    else:
        async with served(app, **fields) as (host, port):
            yield lambda path="/", **options: connect(f"ws://{host}:{port}{path}", **options)
