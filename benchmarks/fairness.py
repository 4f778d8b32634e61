"""For how long a broadcast to 5,000 members holds the loop: ``python benchmarks/fairness.py``.

The members' connections are in memory, and of two kinds: with an outlet, as on hubbub's own
server, and with a ``send`` that costs ten microseconds and never yields, as on many others.
Some read, some do not. A task that does nothing but give way measures between two of its turns
how much time the others took: in CPU time, so that other processes do not count.
"""

from __future__ import annotations

import gc
import sys
from functools import partial
from time import thread_time
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from hubbub import Coalesce, Disconnect, DropNewest, DropOldest, Hub, WebSocket
from hubbub.prepared import OUTLET, Batch

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from hubbub.outbox import Policy
    from hubbub.types import Message

MEMBERS = 5000
ROUNDS = 10
CASES: list[tuple[str, Policy, int]] = [  # kind of connection, policy, broadcasts at once
    ("outlet", Disconnect(), 1),
    ("outlet", Disconnect(), 8),
    ("outlet", DropOldest(), 200),
    ("send", Disconnect(), 1),
    ("send", Disconnect(), 8),
    ("send", DropOldest(), 200),
    ("stuck", Disconnect(), 1),
    ("stuck", DropOldest(), 8),
    ("stuck", DropNewest(), 8),
    ("stuck", Coalesce(lambda data: data), 8),
]
BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


class Peer:
    """A server's end of a connection, and its outlet."""

    closed = False

    def __init__(self, kind: str) -> None:
        self.reads = True
        outlet = {OUTLET: self} if kind != "send" else {}
        scope = {"type": "websocket", "path": "/", "headers": [], "extensions": outlet}
        self.ws = WebSocket(scope, self.receive, self.send)
        self._connect: list[Message] = [{"type": "websocket.connect"}]

    async def receive(self) -> Message:
        if not self._connect:
            await anyio.sleep_forever()
        return self._connect.pop()

    async def send(self, message: Message) -> None:
        del message
        sum(range(1000))

    def try_send(self, batch: Batch) -> bool:
        del batch
        return self.reads

    async def writable(self) -> None:
        await anyio.sleep_forever()


async def serve(
    hub: Hub, peer: Peer, policy: Policy, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    await peer.ws.accept()
    async with hub.join("room", peer.ws, policy=policy):
        task_status.started()
        await anyio.sleep_forever()


async def measure(kind: str, policy: Policy, at_once: int) -> float:
    """The longest time that the loop was held, in seconds of CPU time."""
    turns: list[float] = []
    async with Hub() as hub, anyio.create_task_group() as tasks:
        peers = [Peer(kind) for _ in range(MEMBERS)]
        for peer in peers:
            await tasks.start(serve, hub, peer, policy)
        if kind == "stuck":
            for peer in peers:
                peer.reads = False
            for _ in range(257):
                await hub.broadcast("room", "fills the outbox")
        gc.collect()
        gc.freeze()  # a collection of all this is not what is measured
        tasks.start_soon(watch, turns)
        for _ in range(ROUNDS):
            for number in range(at_once - 1):
                hub.broadcast_nowait("room", str(number))
            await hub.broadcast("room", "x" * 100)
        await anyio.sleep(0.5)
        tasks.cancel_scope.cancel()
    return max(turns)


async def watch(turns: list[float]) -> None:
    before = thread_time()
    while True:
        await checkpoint()
        now = thread_time()
        turns.append(now - before)
        before = now


def main(*names: str) -> None:
    for name in names or BACKENDS:
        backend, options = BACKENDS[name]
        for case in CASES:
            run = partial(measure, *case)
            held = anyio.run(run, backend=backend, backend_options=options)
            kind, policy, at_once = case
            what = f"{kind:7} {type(policy).__name__:11} {at_once:4} at once"
            print(f"{name:8} {what}: {1000 * held:5.2f} ms", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
