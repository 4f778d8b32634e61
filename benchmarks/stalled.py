"""What one client of a hundred that stops reading does to the others: docs/stalled.svg.

``python benchmarks/stalled.py`` runs two servers, one after the other, each a process with
the same server of hubbub's in it: one broadcasts by ``hub.broadcast``, the other by the loop
that everybody writes first, ``for ws in clients: await ws.send_text(text)``. A hundred clients
listen to 25 messages of 32 KiB a second; after five seconds one of them stops reading, and
after twenty it reads on. The graph shows the 99th percentile, over all others and half a second's
messages, of the time from when a message was due to be published to its arrival. The loop
stands still as soon as the buffers between it and that one client are full.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from websockets.asyncio.client import ClientConnection, connect

from hubbub import App, DropOldest, Hub, WebSocket
from hubbub.ws_bridge import run

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 100
RATE = 25  # messages a second
SIZE = 32 * 1024  # bytes
DURATION, STALLS_AT, READS_ON_AT = 30, 5, 20  # seconds
BIN = 0.5  # seconds of messages that share a percentile
PATIENCE = 10  # seconds for the rest to arrive
GRAPH = Path(__file__).parent.parent / "docs" / "stalled.svg"
LABELS = {  # and where they stand
    "naive": ("for ws in clients: await ws.send_text(…)", (11, 14_000)),
    "hub": ("await hub.broadcast(…)", (11, 30)),
}

Latencies: TypeAlias = dict[int, list[float]]
"""Seconds from due to there, by the number of the message: one for each who got it."""


# -- The servers ------------------------------------------------------------------------


def make_hub_app() -> App:
    hub = Hub()

    async def subscribe(ws: WebSocket) -> None:
        async with ws, hub.join("room", ws, policy=DropOldest()):
            async for _ in ws:
                pass

    async def publish(ws: WebSocket) -> None:
        async with ws:
            async for text in ws:
                await hub.broadcast("room", text)

    return App({"/sub": subscribe, "/pub": publish}, lifespan=hub)


def make_naive_app() -> App:
    clients: set[WebSocket] = set()

    async def subscribe(ws: WebSocket) -> None:
        async with ws:
            clients.add(ws)
            try:
                async for _ in ws:
                    pass
            finally:
                clients.discard(ws)

    async def publish(ws: WebSocket) -> None:
        async with ws:
            async for text in ws:
                for client in list(clients):
                    await client.send_text(text)

    return App({"/sub": subscribe, "/pub": publish})


def serve(name: str, backend: Any) -> None:
    app = make_hub_app() if name == "hub" else make_naive_app()
    run(app, port=0, backend=backend, announce=lambda where: print(where[0][1], flush=True))


@contextmanager
def running(name: str, backend: str) -> Iterator[str]:
    command = [sys.executable, __file__, name, backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"ws://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.send_signal(signal.SIGINT)


# -- The clients ------------------------------------------------------------------------


async def measure(url: str) -> Latencies:
    latencies: Latencies = defaultdict(list)
    opened = partial(
        connect, close_timeout=1, compression=None, max_size=None, ping_interval=None, proxy=None
    )
    async with AsyncExitStack() as stack:
        async with anyio.create_task_group() as tasks:
            stalled, *others = [
                await stack.enter_async_context(opened(f"{url}/sub")) for _ in range(CLIENTS)
            ]
            publisher = await stack.enter_async_context(opened(f"{url}/pub"))
            start = anyio.current_time() + 1
            for client in others:
                tasks.start_soon(listen, client, start, latencies)
            tasks.start_soon(listen_with_a_pause, stalled, start)
            await publish(publisher, start)
            with anyio.move_on_after(PATIENCE):
                while len(latencies[DURATION * RATE - 1]) < len(others):  # noqa: ASYNC110
                    await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
    return latencies


async def publish(ws: ClientConnection, start: float) -> None:
    for number in range(DURATION * RATE):
        await anyio.sleep_until(start + number / RATE)
        await ws.send(f"{number} ".ljust(SIZE, "."))


async def listen(ws: ClientConnection, start: float, latencies: Latencies) -> None:
    async for message in ws:
        number = int(message[:8].split()[0])
        latencies[number].append(anyio.current_time() - start - number / RATE)


async def listen_with_a_pause(ws: ClientConnection, start: float) -> None:
    with anyio.CancelScope(deadline=start + STALLS_AT):
        async for _ in ws:
            pass
    await anyio.sleep_until(start + READS_ON_AT)
    async for _ in ws:
        pass


# -- The graph --------------------------------------------------------------------------


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


def p99(latencies: Latencies) -> tuple[list[float], list[float]]:
    """The times and the percentiles, in milliseconds."""
    bins: dict[int, list[float]] = defaultdict(list)
    for number, values in latencies.items():
        missing = [math.inf] * (CLIENTS - 1 - len(values))
        bins[int(number / RATE / BIN)] += values + missing
    return (
        [(which + 0.5) * BIN for which in sorted(bins)],
        [1000 * percentile(bins[which], 0.99) for which in sorted(bins)],
    )


def draw(results: dict[str, Latencies]) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink = "#7d8590"  # readable on white and on black
    colors = {"naive": "#d1572c", "hub": "#12958a"}
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "hubbub", "font.size": 11})
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(STALLS_AT, READS_ON_AT, color=ink, alpha=0.13, linewidth=0)
    axes.text(STALLS_AT + 0.3, 0.62, "one of 100 clients does not read", color=ink)
    for name, latencies in results.items():
        label, place = LABELS[name]
        axes.plot(*p99(latencies), color=colors[name], linewidth=2.2)
        axes.text(*place, label, color=colors[name], family="monospace")
    axes.set(yscale="log", xlim=(0, DURATION), ylim=(0.5, 40_000), xlabel="seconds")
    axes.set_yticks([1, 10, 100, 1000, 10_000], ["1 ms", "10 ms", "100 ms", "1 s", "10 s"])
    axes.set_title("p99 latency of the other 99", color=ink, loc="left", fontsize=12)
    axes.minorticks_off()
    axes.grid(axis="y", color=ink, alpha=0.25)
    axes.tick_params(colors=ink, length=0)
    axes.xaxis.label.set_color(ink)
    axes.spines[:].set_visible(False)
    figure.savefig(GRAPH, transparent=True, metadata={"Date": None})


def main(backend: str) -> None:
    results = {}
    for name in LABELS:
        with running(name, backend) as url:
            results[name] = anyio.run(measure, url)
        print(name, *(f"{value:.1f}" for value in p99(results[name])[1]))
    draw(results)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in LABELS:
        serve(*sys.argv[1:])
    else:
        main(*sys.argv[1:] or ["asyncio"])
