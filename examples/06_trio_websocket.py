"""A chat on trio-websocket, without ASGI: ``python 06_trio_websocket.py``.

Connect to ``ws://127.0.0.1:8000``. With websockets it is the same: the hub is entered around
its ``serve``, and a handler joins the connection that it is given.
"""

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, WebSocketServer, serve_websocket

from hubbub import DropOldest, Hub

hub = Hub()


async def chat(request: WebSocketRequest) -> None:
    ws = await request.accept()
    async with hub.join("lobby", ws, policy=DropOldest(), capacity=64) as me:
        try:
            while True:
                await hub.broadcast("lobby", await ws.get_message(), exclude=me)
        except ConnectionClosed:  # the peer left, or the hub closed
            pass


async def main(
    port: int = 8000,
    task_status: trio.TaskStatus[WebSocketServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with hub:
        await serve_websocket(chat, "127.0.0.1", port, None, task_status=task_status)


if __name__ == "__main__":
    trio.run(main)
