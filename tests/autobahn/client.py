"""A client of the testsuite: ``python -m tests.autobahn.client URL BACKEND``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio

from hubbub import connect

if TYPE_CHECKING:
    from hubbub.client import ClientWebSocket

__all__ = ()


async def run_all_cases(url: str, agent: str) -> None:
    async with connect(f"{url}/getCaseCount") as ws:
        count = int(await ws.receive_text())
    for case in range(1, count + 1):
        async with connect(f"{url}/runCase?case={case}&agent={agent}") as ws:
            await echo(ws)
    async with connect(f"{url}/updateReports?agent={agent}") as ws:
        await echo(ws)


async def echo(ws: ClientWebSocket) -> None:
    async for message in ws.iter_messages():
        await ws.send(message)


if __name__ == "__main__":
    url, backend = sys.argv[1:]
    anyio.run(
        run_all_cases,
        url,
        backend,
        backend="trio" if backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if backend == "uvloop" else {},
    )
