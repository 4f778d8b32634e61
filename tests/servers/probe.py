"""The application that every server of this directory runs: one small handler a question.

What a handler finds out goes into its report, which is put up under the ``key`` of its query
when it ends. ``/report?key=…`` waits for it, so that no test ever sleeps. The servers import
this module by its name; the tests do not.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from hubbub import App, Disconnect, DropOldest, Hub, WebSocket, WebSocketDisconnect, running
from tests.servers import raw

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Mapping

    from hubbub.app import Handler
    from hubbub.outbox import Policy
    from hubbub.sockets import AnyConnection
    from hubbub.types import Receive, Scope, Send

Report: TypeAlias = dict[str, Any]
Probe: TypeAlias = Callable[[WebSocket, Report], Awaitable[None]]

AT_ONCE = 2  # seconds: more than anything here may take that must not block
PATIENCE = 8  # seconds that a report may take to appear
KIB = 1024

running._CLOSE_TIMEOUT = 1.0  # what a test waits for whose peers never read
HUB = Hub()
handlers = 0  # that take part in rooms, or are still held up at their end
POLICIES: dict[str, Policy] = {"disconnect": Disconnect(), "drop-oldest": DropOldest()}


class ProbeError(Exception):
    """What a handler of ours fails with, on purpose."""


# -- Reports ----------------------------------------------------------------------------


class NoticeBoard:
    """Reports by key; whoever comes too early waits."""

    def __init__(self) -> None:
        self._reports: dict[str, Report] = {}
        self._awaited: dict[str, anyio.Event] = {}

    def put(self, key: str, report: Report) -> None:
        self._reports[key] = report
        if key in self._awaited:
            self._awaited.pop(key).set()

    async def wait(self, key: str) -> Report:
        with anyio.fail_after(PATIENCE):
            while key not in self._reports:
                await self._awaited.setdefault(key, anyio.Event()).wait()
        return self._reports[key]


BOARD = NoticeBoard()
ROUTES: dict[str, Handler] = {}


def probe(path: str) -> Callable[[Probe], Probe]:
    """Serve a path with a handler that is given a report to fill in."""

    def register(handler: Probe) -> Probe:
        async def serve(ws: WebSocket) -> None:
            report: Report = {}
            try:
                await handler(ws, report)
            except Exception as error:
                report["raised"] = describe_error(error)
                raise
            finally:
                BOARD.put(ws.query_params.get("key", ""), report | describe_end(ws))

        ROUTES[path] = serve
        return handler

    return register


def describe_error(error: Exception) -> Report:
    if isinstance(error, WebSocketDisconnect):
        return {"raised": "WebSocketDisconnect", "code": error.code, "reason": error.reason}
    return {"raised": type(error).__name__, "text": str(error)}


def describe_end(ws: WebSocket) -> Report:
    return {
        "state": ws.connection_state.name,
        "close_code": ws.close_code,
        "close_reason": ws.close_reason,
    }


async def outcome(call: Callable[[], Awaitable[object]]) -> Report:
    """Say what became of a call that must not block."""
    try:
        with anyio.fail_after(AT_ONCE):
            returned = await call()
    except Exception as error:
        return describe_error(error)
    return {"returned": returned}


async def try_everything(ws: WebSocket, report: Report) -> None:
    """Use a connection whose peer has left."""
    report["receives"] = [await outcome(ws.receive_text) for _ in range(2)]
    report["send"] = await outcome(lambda: ws.send_text("too late"))
    with anyio.fail_after(AT_ONCE):
        report["iterated"] = [text async for text in ws]


# The tests' own means leave it to the peer to close: see Server.survives_crossing_closes.


@probe("/report")
async def show_reports(ws: WebSocket, report: Report) -> None:
    async with ws:
        async for request in ws.iter_json():
            await ws.send_json(await BOARD.wait(request["key"]))


@probe("/go")
async def let_go(ws: WebSocket, report: Report) -> None:
    """Put up what a handler waits for."""
    async with ws:
        async for request in ws.iter_json():
            BOARD.put(request["key"], {})
            await ws.send_json(True)


# -- Messages ---------------------------------------------------------------------------


@probe("/echo")
async def echo(ws: WebSocket, report: Report) -> None:
    async with ws:
        async for message in ws.iter_messages():
            await ws.send(message)


@probe("/echo-bare")
async def echo_without_block(ws: WebSocket, report: Report) -> None:
    await ws.accept()
    async for message in ws.iter_messages():
        await ws.send(message)


@probe("/echo-json")
async def echo_json(ws: WebSocket, report: Report) -> None:
    async with ws:
        async for value in ws.iter_json():
            await ws.send_json(value)


@probe("/strict")
async def receive_by_kind(ws: WebSocket, report: Report) -> None:
    async with ws:
        report["text"] = await outcome(ws.receive_text)
        report["bytes"] = len(await ws.receive_bytes())
        report["text as bytes"] = await outcome(ws.receive_bytes)
        report["bytes as text"] = await outcome(ws.receive_text)


async def show_event_keys(scope: Scope, receive: Receive, send: Send) -> None:
    """No hubbub in it: what the server itself puts into an event, and where it runs."""
    await receive()
    await send({"type": "websocket.accept"})
    keys = " ".join(sorted(await receive()))
    await send({"type": "websocket.send", "text": f"{running_loop()}: {keys}"})
    await receive()  # the peer closes


def running_loop() -> str:
    try:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]
    except RuntimeError:
        return "trio"


# -- The peer leaves --------------------------------------------------------------------


@probe("/listen")
async def listen(ws: WebSocket, report: Report) -> None:
    async with ws:
        report["heard"] = [text async for text in ws]
        await try_everything(ws, report)


@probe("/listen-bare")
async def listen_without_block(ws: WebSocket, report: Report) -> None:
    await ws.accept()
    report["heard"] = [await ws.receive_text()]
    try:
        await ws.receive_text()
    except WebSocketDisconnect as end:
        report["left"] = describe_error(end)
    await try_everything(ws, report)


@probe("/push")
async def push(ws: WebSocket, report: Report) -> None:
    pause = float(ws.query_params["pause"])
    async with ws:
        try:
            while True:
                await ws.send_text("news")
                if pause:
                    await anyio.sleep(pause)
        except WebSocketDisconnect:
            report["noticed_at"] = time.monotonic()  # the one clock of all processes
            raise


@probe("/push-bare")
async def send_to_who_has_left(ws: WebSocket, report: Report) -> None:
    """Send without a block, and so without a reader, when the peer has left."""
    await ws.accept()
    await BOARD.wait(f"{ws.query_params['key']} go")
    report["sends"] = [await outcome(lambda: ws.send_text("too late")) for _ in range(2)]
    report["receive"] = await outcome(ws.receive_text)


@probe("/flood")
async def flood(ws: WebSocket, report: Report) -> None:
    """Send 16 MiB, for a second at most, to a peer that reads nothing of it."""
    chunk = bytes(64 * KIB)
    flooding = True

    async def look_when_it_should_be_over() -> None:
        await anyio.sleep(1.5)
        BOARD.put(f"{ws.query_params['key']} overdue", {"flooding": flooding})

    async with ws:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look_when_it_should_be_over)
            with anyio.move_on_after(1) as scope:
                for _ in range(256):
                    await ws.send_bytes(chunk)
            flooding = False
            report["cancelled"] = scope.cancelled_caught
            report["state after"] = ws.connection_state.name
            if scope.cancelled_caught:
                report["send"] = await outcome(lambda: ws.send_text("too late"))
        while ws.query_params.get("then") == "push":
            await ws.send_text("news")
            await anyio.sleep(0.01)


@probe("/late")
async def answer_late(ws: WebSocket, report: Report) -> None:
    """Answer the handshake of a peer that has left meanwhile."""
    key = ws.query_params["key"]
    BOARD.put(f"{key} arrived", {})
    await BOARD.wait(f"{key} go")
    reject = ws.query_params["answer"] == "reject"
    report["answer"] = await outcome(ws.reject if reject else ws.accept)
    report["receive"] = await outcome(ws.receive)


# -- The application ends it ------------------------------------------------------------


@probe("/close")
async def close(ws: WebSocket, report: Report) -> None:
    await ws.accept()
    await ws.close(4009, "app says")
    report["second close"] = await outcome(lambda: ws.close(4010, "never sent"))
    report["receive"] = await outcome(ws.receive_text)
    report["send"] = await outcome(lambda: ws.send_text("too late"))
    report["iterated"] = [text async for text in ws]


@probe("/kick")
async def disconnect_a_listener(ws: WebSocket, report: Report) -> None:
    """End a connection from another task than the one that receives, as hubs do."""

    async def disconnect() -> None:
        await BOARD.wait(f"{ws.query_params['key']} go")
        await ws.disconnect(4400, "kicked")

    async with ws, anyio.create_task_group() as tasks:
        tasks.start_soon(disconnect)
        report["heard"] = []
        async for text in ws:
            report["heard"].append(text)
            await ws.send_text(text)
        await try_everything(ws, report)


@probe("/fail")
async def fail(ws: WebSocket, report: Report) -> None:
    async with ws:
        raise ProbeError(ws.query_params["key"])


@probe("/fail-bare")
async def fail_without_block(ws: WebSocket, report: Report) -> None:
    await ws.accept()
    raise ProbeError(ws.query_params["key"])


@probe("/fail-early")
async def fail_before_accept(ws: WebSocket, report: Report) -> None:
    raise ProbeError(ws.query_params["key"])


@probe("/return")
async def return_without_close(ws: WebSocket, report: Report) -> None:
    await ws.accept()


@probe("/return-block")
async def return_from_block(ws: WebSocket, report: Report) -> None:
    async with ws:
        pass


@probe("/answer-once")
async def answer_once(ws: WebSocket, report: Report) -> None:
    async with ws:
        await ws.send_text(await ws.receive_text())


@probe("/return-early")
async def return_before_accept(ws: WebSocket, report: Report) -> None:
    pass


# -- The handshake ----------------------------------------------------------------------


@probe("/reject")
async def reject(ws: WebSocket, report: Report) -> None:
    await ws.reject(401, {"WWW-Authenticate": 'Basic realm="probe"'}, b"Who are you?")
    report["accept"] = await outcome(ws.accept)


@probe("/reject-repeating")
async def reject_with_repeated_header(ws: WebSocket, report: Report) -> None:
    await ws.reject(401, [("WWW-Authenticate", "Basic"), ("WWW-Authenticate", "Bearer")])


@probe("/negotiate")
async def negotiate(ws: WebSocket, report: Report) -> None:
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Probe", "yes")]
    await ws.accept(ws.query_params.get("choose"), headers)
    report["accepted"] = ws.accepted_subprotocol
    async for _ in ws:
        pass


@probe("/describe")
@probe("/describe/grüße 100% ☃")
async def describe(ws: WebSocket, report: Report) -> None:
    async with ws:
        await ws.send_json(
            {
                "path": ws.path,
                "scheme": ws.scheme,
                "url": str(ws.url),
                "query": list(ws.query_params.items()),
                "host": ws.headers["HOST"],
                "x-probe": ws.headers.getall("X-Probe", []),
                "client": list(ws.client or ()),
                "subprotocols": ws.subprotocols,
                "state": dict(ws.state),
            }
        )
        async for _ in ws:
            pass


# -- Rooms ------------------------------------------------------------------------------


@probe("/room")
async def join_room(ws: WebSocket, report: Report) -> None:
    async with ws:
        await take_part(ws, ws, ws.query_params)


async def take_part(
    connection: AnyConnection, texts: AsyncIterable[str], query: Mapping[str, str]
) -> None:
    """Be a member of a room, whose peer is heard by all the others."""
    room = query["room"]
    policy = POLICIES[query.get("policy", "disconnect")]
    capacity = int(query.get("capacity", 256))
    global handlers
    handlers += 1
    try:
        async with HUB.join(room, connection, policy=policy, capacity=capacity) as member:
            await member.send("joined")
            async for text in texts:
                await HUB.broadcast(room, text, exclude=member)
    finally:
        handlers -= 1


@probe("/control")
async def control(ws: WebSocket, report: Report) -> None:
    async with ws:
        await obey(ws, ws.send_text)


async def obey(texts: AsyncIterable[str], send: Callable[[str], Awaitable[None]]) -> None:
    """Publish, and look at the hub and its process, on command."""
    commands: dict[str, Callable[..., Awaitable[Any]]] = {
        "publish": publish,
        "statistics": look_at_hub,
        "dropped": count_dropped,
        "memory": measure_memory,
    }
    async for text in texts:
        command = json.loads(text)
        await send(json.dumps(await commands[command.pop("do")](**command)))


async def publish(room: str, first: int, count: int, size: int) -> Report:
    """Broadcast messages that begin with their number."""
    total = {"sent": 0, "dropped": 0, "disconnected": 0}
    for number in range(first, first + count):
        delivery = await HUB.broadcast(room, f"{number} ".ljust(size, "."))
        for what in total:
            total[what] += getattr(delivery, what)
    return total


async def look_at_hub() -> Report:
    return asdict(HUB.statistics()) | {"handlers": handlers}


async def count_dropped(room: str) -> list[int]:
    return [member.statistics().dropped for member in HUB.rooms[room].members]


async def measure_memory() -> int:
    """Say how many bytes of this process are resident."""
    pages = Path("/proc/self/statm").read_text().split()[1]  # noqa: ASYNC240  # no disk
    return int(pages) * resource.getpagesize()


# -- The application --------------------------------------------------------------------


@asynccontextmanager
async def lifespan() -> AsyncGenerator[dict[str, Any]]:
    async with HUB:
        yield {"from_lifespan": "hello"}


APP = App(ROUTES, lifespan=lifespan)


class Holder:
    """Keeps the hub running where there is no lifespan.

    It does so in a task of the application's own, from the first connection to the end of
    the process: the hub's block cannot be a connection's, which ends before others do.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._entered = asyncio.Event()

    async def wait_entered(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._hold())
        await self._entered.wait()

    async def _hold(self) -> None:
        async with HUB:
            self._entered.set()
            await anyio.sleep_forever()


HOLDER = Holder()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve all by hubbub's App, but for the paths that show the server as it is."""
    if scope["type"] == "websocket" and "state" not in scope:  # a server without a lifespan
        await HOLDER.wait_entered()
    path = scope.get("path", "")
    if scope["type"] == "websocket" and path == "/raw":
        await show_event_keys(scope, receive, send)
    elif scope["type"] == "websocket" and path in raw.ROUTES:
        report: Report = {}
        key = scope["query_string"].decode().removeprefix("key=")
        BOARD.put(f"{key} so far", report)
        try:
            await raw.serve(scope, receive, send, report)
        finally:
            BOARD.put(key, report)
    else:
        await APP(scope, receive, send)
