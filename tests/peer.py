"""An ASGI server and the peer behind it, in memory and under a test's full control."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from hubbub import WebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from hubbub.types import ASGIApp, Data, Message, Scope


class Peer:
    """What an application sees as its server: ``scope``, ``receive`` and ``send``.

    The peer has connected. ``say`` and ``leave`` put events into what ``receive`` gives;
    what the application sends is in ``sent``. ``stop_reading`` lets sends block, as those
    to a peer with a full TCP window do; ``send_error`` lets them raise.
    """

    def __init__(self, **scope: Any) -> None:
        self.scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "path": "/",
            "headers": [],
            "extensions": {"websocket.http.response": {}},
            **scope,
        }
        self.sent: list[Message] = []
        self.send_error: Exception | None = None
        self.receives = 0
        self._events: deque[Message] = deque([{"type": "websocket.connect"}])
        self._news = anyio.Event()
        self._reads = anyio.Event()
        self._reads.set()

    async def receive(self) -> Message:
        self.receives += 1
        await anyio.lowlevel.checkpoint()
        while not self._events:
            self._news = anyio.Event()
            await self._news.wait()
        return self._events.popleft()

    async def send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        await self._reads.wait()
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)
        if message["type"] == "websocket.close":
            self.leave(message.get("code", 1000), message.get("reason", ""))

    def tell(self, event: Message) -> None:
        self._events.append(event)
        self._news.set()

    def say(self, data: Data) -> None:
        kind = "text" if isinstance(data, str) else "bytes"
        self.tell({"type": "websocket.receive", kind: data})

    def leave(self, code: int | None = 1001, reason: str | None = "") -> None:
        self.tell({"type": "websocket.disconnect", "code": code, "reason": reason})

    def forget_connect(self) -> None:
        self._events.clear()

    def stop_reading(self) -> None:
        if self._reads.is_set():
            self._reads = anyio.Event()

    def read_on(self) -> None:
        self._reads.set()

    @property
    def heard(self) -> list[Data]:
        """The messages that arrived."""
        return [
            message["text"] if "text" in message else message["bytes"]
            for message in self.sent
            if message["type"] == "websocket.send"
        ]

    @property
    def closed_with(self) -> tuple[int, str] | None:
        """Code and reason of the close frame that arrived."""
        for message in self.sent:
            if message["type"] == "websocket.close":
                return message["code"], message["reason"]
        return None

    def websocket(self) -> WebSocket:
        return WebSocket(self.scope, self.receive, self.send)

    async def accepted(self) -> WebSocket:
        ws = self.websocket()
        await ws.accept()
        return ws


@asynccontextmanager
async def running(app: ASGIApp, *peers: Peer) -> AsyncGenerator[None]:
    """Run an application for some peers, until all of its calls have returned."""
    async with anyio.create_task_group() as tasks:
        for peer in peers:
            tasks.start_soon(call, app, peer)
        yield


async def call(app: ASGIApp, peer: Peer) -> None:
    """Call an application as a server does."""
    await app(peer.scope, peer.receive, peer.send)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that no event tells of; for twenty seconds at most."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.lowlevel.checkpoint()
