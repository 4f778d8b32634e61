"""What a message costs between a server and a handler: ``python benchmarks/router.py``.

Five fields are read, decoded, validated, brought to their handler and answered, in memory: the
server is a list of messages, so that nothing is measured but the toolkit. The first row of a loop
is reading alone; in the second the handler sends no reply. The router is measured on
every loop; beside it, where they are installed, Litestar's listener and python-socketio, both on
asyncio.

The best of several rounds, in microseconds a message.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from hubbub import App, Router, WebSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MESSAGES = 10_000
ROUNDS = 5
PAYLOAD = {"a": 1, "b": "two", "c": 3.5, "d": [1, 2, 3], "e": True}


class Order(msgspec.Struct):
    a: int
    b: str
    c: float
    d: list[int]
    e: bool


@dataclass
class DataOrder:
    a: int
    b: str
    c: float
    d: list[int]
    e: bool


class Server:
    """An ASGI server whose peer has said everything already."""

    def __init__(self, first: list[str], text: str, replies: int, extensions: Any) -> None:
        self.scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"EIO=4&transport=websocket",
            "root_path": "",
            "headers": [(b"upgrade", b"websocket"), (b"connection", b"upgrade")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "subprotocols": [],
            "extensions": extensions,
            "state": {},
        }
        texts = [*first, *([text] * MESSAGES)]
        self.events: deque[Any] = deque([{"type": "websocket.connect"}])
        self.events += [{"type": "websocket.receive", "text": text} for text in texts]
        self.expected = replies
        self.sent = 0
        self.done = anyio.Event()

    async def receive(self) -> Any:
        if self.events:
            return self.events.popleft()
        await self.done.wait()
        return {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    async def send(self, event: Any) -> None:
        if event["type"] == "websocket.send":
            self.sent += 1
            if self.sent >= self.expected:
                self.done.set()


async def measure(app: Any, make: Callable[[], Server]) -> float:
    best = 1e9
    for _ in range(ROUNDS):
        server = make()
        if not server.expected:
            server.done.set()
        start = time.perf_counter()
        await app(server.scope, server.receive, server.send)
        best = min(best, time.perf_counter() - start)
        assert server.sent >= server.expected, f"{server.sent} of {server.expected} replies"
    return best / MESSAGES * 1e6


def report(what: str, cost: float, baseline: float) -> None:
    sys.stdout.write(f"{what:<58} {cost:6.2f}   {cost / baseline:5.2f} x json.loads\n")


async def measure_router(loop: str, baseline: float) -> None:
    router = Router()
    seen = 0

    @router.on("order")
    async def order(payload: Order) -> int:
        return payload.a

    @router.on("note")
    async def note(payload: Order) -> None:
        nonlocal seen
        seen += payload.a

    @router.on("now", mode="concurrent")
    async def now(payload: Order) -> int:
        return payload.a

    async def read(ws: WebSocket) -> None:
        async with ws:
            async for _ in ws:
                pass

    direct = {"hubbub.outlet": None}  # as on hubbub's own server: no reader ahead of the handler
    for what, handler, type, replies in (
        ("read", read, "note", 0),
        ("read, decode, validate, dispatch", router, "note", 0),
        ("read, decode, validate, dispatch, reply", router, "order", MESSAGES),
        ("the same, concurrent", router, "now", MESSAGES),
    ):
        text = json.dumps({"type": type, "payload": PAYLOAD, "id": 77})
        if not replies:
            text = json.dumps({"type": type, "payload": PAYLOAD})
        app = App({"/": handler})
        cost = await measure(app, partial(Server, [], text, replies, direct))
        report(f"{loop}: {what}", cost, baseline)
    assert seen == MESSAGES * ROUNDS


async def measure_litestar(baseline: float) -> None:
    from litestar import Litestar, websocket_listener
    from litestar.dto import DataclassDTO

    @websocket_listener("/", dto=DataclassDTO[DataOrder], return_dto=None)
    async def order(data: DataOrder) -> int:
        return data.a

    text = json.dumps(PAYLOAD)
    app = Litestar([order])
    report(
        "asyncio: Litestar's listener",
        await measure(app, partial(Server, [], text, MESSAGES, {})),
        baseline,
    )


async def measure_socketio(baseline: float) -> None:
    import socketio  # type: ignore[import-untyped]

    server: Any = socketio.AsyncServer(async_mode="asgi", async_handlers=False)

    async def order(_sid: str, data: Any) -> int:
        return msgspec.convert(data, Order).a

    server.on("order", order)
    text = "427" + json.dumps(["order", PAYLOAD])  # an event that asks for an acknowledgement
    app = socketio.ASGIApp(server, socketio_path="")
    report(
        "asyncio: python-socketio, validating by msgspec",
        await measure(app, partial(Server, ["40"], text, MESSAGES, {})),
        baseline,
    )


def measure_baseline() -> float:
    text = json.dumps({"type": "order", "payload": PAYLOAD, "id": 77})
    best = 1e9
    for _ in range(ROUNDS * 3):
        start = time.perf_counter()
        for _ in range(MESSAGES):
            json.loads(text)
        best = min(best, time.perf_counter() - start)
    return best / MESSAGES * 1e6


def run(measured: Callable[..., Awaitable[None]], *arguments: Any, loop: str = "asyncio") -> None:
    backend, options = (
        ("trio", {}) if loop == "trio" else ("asyncio", {"use_uvloop": loop == "uvloop"})
    )
    anyio.run(measured, *arguments, backend=backend, backend_options=options)


def main() -> None:
    baseline = measure_baseline()
    report("json.loads of the message, and nothing else", baseline, baseline)
    for loop in ("asyncio", "uvloop", "trio"):
        if loop == "asyncio" or find_spec(loop):
            run(measure_router, loop, baseline, loop=loop)
    for library, measured in (("litestar", measure_litestar), ("socketio", measure_socketio)):
        if find_spec(library):
            run(measured, baseline)


if __name__ == "__main__":
    main()
