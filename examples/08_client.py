"""Two clients: ``python 08_client.py ws://127.0.0.1:8000/chat``, while ``02_chat.py`` is served.

One asks once; the other follows the room, and comes back whenever the connection is lost.
"""

import sys

import anyio

from hubbub import connect, reconnecting
from hubbub.client import ReconnectEvent, ReconnectState


async def ask(url: str) -> None:
    async with connect(f"{url}?nick=passer-by") as ws:
        joined = await ws.receive_json()
        print("in the room:", ", ".join(joined["payload"]["members"]))
        print(f"there and back: {await ws.ping() * 1000:.1f} ms")


async def follow(url: str) -> None:
    async for ws in reconnecting(f"{url}?nick=listener", on_state=report):
        async with ws:
            async for message in ws.iter_json():
                print(message["type"], message["payload"])


def report(event: ReconnectEvent) -> None:
    if event.state is ReconnectState.WAITING:
        print(f"lost ({event.error}); coming back in {event.delay:.1f} s")


async def main(url: str) -> None:
    await ask(url)
    await follow(url)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
