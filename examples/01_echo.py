"""Echo: each message is sent back to the peer that sent it.

Run it here with ``hypercorn -k trio 01_echo:app``, or ``-k asyncio``, or another ASGI
server; then ``websockets ws://127.0.0.1:8000/echo``.
"""

from hubbub import App, WebSocket


async def echo(ws: WebSocket) -> None:
    async with ws:  # accepts; closes when the block ends, however it ends
        async for text in ws:  # until the peer leaves
            await ws.send_text(text)


app = App({"/echo": echo})
