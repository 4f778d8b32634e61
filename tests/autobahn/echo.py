"""What the testsuite talks to: it gives every message back."""

from __future__ import annotations

from hubbub import App, WebSocket

__all__ = ("app",)


async def echo(ws: WebSocket) -> None:
    async with ws:
        async for message in ws.iter_messages():
            await ws.send(message)


app = App({"/": echo})
