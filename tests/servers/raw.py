"""Raw ASGI applications that find out what a server is like, with no hubbub in them.

The real servers run them, by way of ``probe``, and so does the testing kit with the profile of
each server: what they report must be the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio

from hubbub.types import Message, Receive, Scope, Send

Report: TypeAlias = dict[str, Any]
Raw: TypeAlias = Callable[[Receive, Send, Report], Awaitable[None]]

AT_ONCE = 1  # seconds, after which a call is said to block
ROUTES: dict[str, Raw] = {}
ACCEPT: Message = {"type": "websocket.accept", "headers": [(b"x-probe", b"yes")]}


class RawError(Exception):
    """What an application fails with, on purpose."""


def raw(path: str) -> Callable[[Raw], Raw]:
    def register(application: Raw) -> Raw:
        ROUTES[path] = application
        return application

    return register


async def serve(scope: Scope, receive: Receive, send: Send, report: Report) -> None:
    """Run the application of a path; its report begins with what the scope says."""
    extensions = scope.get("extensions") or {}
    report["scope"] = {
        "spec_version": scope["asgi"].get("spec_version"),
        "state": "state" in scope,
        "denial": "websocket.http.response" in extensions,
        "x-probe": [value.decode() for name, value in scope["headers"] if name == b"x-probe"],
    }
    await receive()
    await ROUTES[scope["path"]](receive, send, report)


async def outcome(call: Awaitable[Any]) -> str:
    """Say what became of a call: what it gave, or that it blocks, or fails."""
    try:
        with anyio.fail_after(AT_ONCE):
            event = await call
    except TimeoutError:
        return "blocks"
    except Exception:
        return "fails"
    return "done" if event is None else describe(event)


def describe(event: Message) -> str:
    if event["type"] == "websocket.receive":
        return f"message with {' '.join(sorted(event))}"
    return f"{event['type']} {event.get('code')} {event.get('reason') or ''!r}"


@raw("/raw/listen")
async def listen(receive: Receive, send: Send, report: Report) -> None:
    await send(ACCEPT)
    report["heard"] = []
    while (event := await receive())["type"] != "websocket.disconnect":
        report["heard"].append(describe(event))
        await send({"type": "websocket.send", "text": "heard"})
    report["end"] = describe(event)
    report["receive"] = await outcome(receive())
    report["send"] = await outcome(send({"type": "websocket.send", "text": "too late"}))


@raw("/raw/say-empty")
async def say_empty(receive: Receive, send: Send, report: Report) -> None:
    await send(ACCEPT)
    await send({"type": "websocket.send", "text": ""})
    await send({"type": "websocket.send", "bytes": b""})
    await send({"type": "websocket.send", "text": "full"})
    await send({"type": "websocket.close"})


@raw("/raw/close")
async def close(receive: Receive, send: Send, report: Report) -> None:
    await send(ACCEPT)
    await send({"type": "websocket.close", "code": 4009, "reason": "app says"})
    report["close"] = await outcome(send({"type": "websocket.close"}))
    report["send"] = await outcome(send({"type": "websocket.send", "text": "too late"}))
    report["receive"] = await outcome(receive())


@raw("/raw/close-1011")
async def close_1011(receive: Receive, send: Send, report: Report) -> None:
    await send(ACCEPT)
    report["close"] = await outcome(send({"type": "websocket.close", "code": 1011}))
    if report["close"] == "fails":
        await send({"type": "websocket.close", "code": 4011})


@raw("/raw/refuse")
async def refuse(receive: Receive, send: Send, report: Report) -> None:
    await send({"type": "websocket.close"})
    report["receive"] = await outcome(receive())


START: Message = {
    "type": "websocket.http.response.start",
    "status": 401,
    "headers": [(b"content-length", b"2")],
}


@raw("/raw/deny")
async def deny(receive: Receive, send: Send, report: Report) -> None:
    report["start"] = await outcome(send(START))
    if report["start"] == "fails":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.http.response.body", "body": b"no"})


@raw("/raw/deny-in-parts")
async def deny_in_parts(receive: Receive, send: Send, report: Report) -> None:
    if await outcome(send(START)) == "fails":
        await send({"type": "websocket.close"})
        return
    part: Message = {"type": "websocket.http.response.body", "body": b"n", "more_body": True}
    report["part"] = await outcome(send(part))
    if report["part"] == "done":
        await send({"type": "websocket.http.response.body", "body": b"o"})


@raw("/raw/return-early")
async def return_early(receive: Receive, send: Send, report: Report) -> None:
    pass


@raw("/raw/fail-early")
async def fail_early(receive: Receive, send: Send, report: Report) -> None:
    raise RawError


@raw("/raw/return")
async def return_open(receive: Receive, send: Send, report: Report) -> None:
    await send(ACCEPT)


@raw("/raw/fail")
async def fail(receive: Receive, send: Send, report: Report) -> None:
    await send(ACCEPT)
    raise RawError
