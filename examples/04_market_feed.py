"""A market feed: a slow peer misses prices, but never the last one of a symbol.

``hubbub serve 04_market_feed:app``; connect to ``/feed``. A snapshot comes first, then every
change, as fast as the peer reads; from then on ``Coalesce`` keeps the newest of each symbol.
"""

import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from hubbub import App, Coalesce, Hub, WebSocket

hub = Hub()
prices = {"ACME": 100.0, "INIT": 20.0, "OCP": 250.0, "HOOLI": 75.0}


def symbol(message: str | bytes) -> object:  # called only while somebody is slow
    return json.loads(message).get("symbol")


async def feed(ws: WebSocket) -> None:
    async with ws, hub.join("market", ws, policy=Coalesce(symbol), capacity=16) as me:
        me.send_nowait(json.dumps({"prices": prices}))  # at exactly this point among the changes
        async for _ in ws:  # until the peer leaves; what it says is ignored
            pass


async def trade() -> None:
    while True:
        name = random.choice(list(prices))
        prices[name] = round(prices[name] * random.uniform(0.99, 1.01), 2)
        hub.broadcast_nowait("market", json.dumps({"symbol": name, "price": prices[name]}))
        await anyio.sleep(0.01)


@asynccontextmanager
async def market() -> AsyncGenerator[None]:
    async with hub, anyio.create_task_group() as tasks:
        tasks.start_soon(trade)
        yield
        tasks.cancel_scope.cancel()


app = App({"/feed": feed}, lifespan=market)
