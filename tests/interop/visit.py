"""The visit that ``visit.js`` makes: the application that it is made to, and what is to come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hubbub import App, WebSocket

SCRIPT = Path(__file__).with_suffix(".js").read_text()
"""A function of the application's URL; it gives what ``expect_visit`` takes."""


def make_app(ends: list[tuple[int | None, str]]) -> App:
    """Make the application; it tells ``ends`` how each echo has ended."""

    async def echo(ws: WebSocket) -> None:
        await ws.accept("chat" if "chat" in ws.subprotocols else None)
        async with ws:
            async for message in ws.iter_messages():
                await ws.send(message)
        ends.append((ws.close_code, ws.close_reason or ""))

    async def bye(ws: WebSocket) -> None:
        async with ws:
            await ws.send("soon")
            await ws.close(4001, "bye")

    async def private(ws: WebSocket) -> None:
        await ws.reject(401, body=b"Who are you?")

    # From about:blank, whose origin is "null".
    return App({"/echo": echo, "/bye": bye, "/private": private}, origins=None)


def expect_visit(told: Any) -> None:
    """Compare what a visitor has told with what it should have met."""
    echo, bye = told["echo"], told["bye"]
    assert echo.pop("extensions").startswith("permessage-deflate")
    assert bye.pop("extensions").startswith("permessage-deflate")
    opened = {"opened": True, "wasClean": True}
    assert echo == {**opened, "protocol": "chat", "heard": True, "code": 4321, "reason": "why"}
    assert bye == {**opened, "protocol": "", "heard": ["soon"], "code": 4001, "reason": "bye"}
    assert not told["denied"]["opened"]
