"""Peers of the server under test: wsproto over sockets and over memory, to the byte."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from hubbub.ws_bridge import Config, serve, serve_connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from hubbub.types import ASGIApp, Data, Receive, Scope, Send

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class MemoryStream(ByteStream):
    """One end of a pair of byte streams in memory."""

    def __init__(self, send: Any, receive: Any) -> None:
        self._send = send
        self._receive = receive
        self._rest = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = self._rest or await self._receive.receive()
        self._rest = data[max_bytes:]
        return bytes(data[:max_bytes])

    async def send(self, item: bytes) -> None:
        await self._send.send(item)

    async def send_eof(self) -> None:
        self._send.close()

    async def aclose(self) -> None:
        self._send.close()
        self._receive.close()


def memory_pair(capacity: int = 16) -> tuple[MemoryStream, MemoryStream]:
    ours, theirs = (anyio.create_memory_object_stream[bytes](capacity) for _ in range(2))
    return MemoryStream(ours[0], theirs[1]), MemoryStream(theirs[0], ours[1])


class Client:
    """A peer that does what it is told, and nothing by itself."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.ws = WSConnection(ConnectionType.CLIENT)
        self._events: Iterator[Event] = iter(())

    async def request(self, target: str = "/", **options: Any) -> None:
        await self.stream.send(self.ws.send(Request(host="x", target=target, **options)))

    async def open(self, target: str = "/", **options: Any) -> AcceptConnection:
        await self.request(target, **options)
        event = await self.next()
        assert isinstance(event, AcceptConnection), event
        return event

    async def next(self) -> Event:
        """The next event; ``CloseConnection`` with 1006 for the end of the stream."""
        with anyio.fail_after(5):
            while True:
                for event in self._events:
                    return event
                try:
                    data = await self.stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return CloseConnection(code=1006)
                self.ws.receive_data(data)
                self._events = self.ws.events()

    async def send(self, event: Event) -> None:
        await self.stream.send(self.ws.send(event))

    async def say(self, data: Data) -> None:
        await self.send(TextMessage(data) if isinstance(data, str) else BytesMessage(data))

    async def hear(self) -> Data:
        parts: list[Any] = []
        while True:
            event = await self.next()
            assert isinstance(event, TextMessage | BytesMessage), event
            parts.append(event.data)
            if event.message_finished:
                return (
                    type(parts[0])().join(parts) if isinstance(parts[0], str) else b"".join(parts)
                )

    async def ping(self, payload: bytes = b"") -> None:
        await self.send(Ping(payload=payload))

    async def pong(self) -> bytes:
        event = await self.next()
        assert isinstance(event, Pong), event
        return bytes(event.payload)

    async def close(self, code: int = 1000, reason: str = "") -> tuple[int, str]:
        """Close, and give what the server answers."""
        await self.send(CloseConnection(code=code, reason=reason))
        return await self.closed()

    async def closed(self) -> tuple[int, str]:
        """Wait for the end; give its code and reason."""
        event = await self.next()
        assert isinstance(event, CloseConnection), event
        return event.code, event.reason or ""

    async def answer_close(self) -> tuple[int, str]:
        """Wait for the server's close frame and answer it; then wait for the end of TCP."""
        event = await self.next()
        assert isinstance(event, CloseConnection), event
        await self.send(event.response())
        assert await self.rest() == b""
        return event.code, event.reason or ""

    async def rejected(self) -> tuple[int, dict[str, str], bytes]:
        """Wait for a response that is not 101."""
        event = await self.next()
        assert isinstance(event, RejectConnection), event
        headers = {name.decode(): value.decode() for name, value in event.headers}
        body = b""
        while event.has_body:
            data = await self.next()
            assert isinstance(data, RejectData), data
            body += data.data
            if data.body_finished:
                break
        return event.status_code, headers, body

    async def exchange(self, data: bytes) -> bytes:
        """Send bytes, and give all that comes back until the end."""
        await self.stream.send(data)
        return await self.rest()

    async def rest(self) -> bytes:
        """All bytes up to the end."""
        received = b""
        with anyio.fail_after(5):
            while True:
                try:
                    received += await self.stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return received


@asynccontextmanager
async def served(
    app: ASGIApp, config: Config | None = None, **fields: Any
) -> AsyncGenerator[tuple[str, int]]:
    """Run a server on a port of its own; give its address."""
    config = config or Config(**fields)
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(partial(serve, app, port=0, config=config))
        try:
            yield addresses[0]
        finally:
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def linked(link: str, app: ASGIApp, **fields: Any) -> AsyncGenerator[Client]:
    """Run a server and connect to it, over a socket or in memory."""
    if link == "memory":
        ours, theirs = memory_pair()
        async with anyio.create_task_group() as tasks, ours:
            tasks.start_soon(serve_connection, app, theirs, Config(**fields))
            yield Client(ours)
            await ours.aclose()
    else:
        async with served(app, **fields) as (host, port):
            async with await anyio.connect_tcp(host, port) as stream:
                yield Client(stream)


class Application:
    """A raw ASGI application: it accepts, then does what it was made with, and keeps events."""

    def __init__(self, body: Any = None, accept: dict[str, Any] | None = None) -> None:
        self.body = body
        self.answer = accept or {"type": "websocket.accept"}
        self.scopes: list[Scope] = []
        self.events: list[Any] = []
        self.errors: list[BaseException] = []
        self.over = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise RuntimeError("no lifespan")
        self.scopes.append(scope)

        async def watched() -> Any:
            event = await receive()
            self.events.append(event)
            return event

        try:
            await watched()
            if self.answer["type"] != "none":
                await send(self.answer)
            await (self.body or echo)(watched, send)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.over.set()

    @property
    def last(self) -> Any:
        return self.events[-1]


async def echo(receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


async def until_disconnect(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
