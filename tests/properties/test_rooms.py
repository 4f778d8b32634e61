"""Rooms against a model: who hears what, in which order, whatever members do."""

from __future__ import annotations

from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Hub, Member
from tests.peer import Peer, eventually

PEERS = st.integers(0, 2)
ROOMS = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), PEERS, ROOMS),
        st.tuples(st.just("leave"), PEERS, ROOMS),
        st.tuples(st.just("broadcast_nowait"), ROOMS, st.none() | PEERS),
        st.tuples(st.just("broadcast"), ROOMS, st.none() | PEERS),
        st.tuples(st.just("send"), PEERS),
        st.tuples(st.just("send_nowait"), PEERS),
        st.tuples(st.just("stop_reading"), PEERS),
        st.tuples(st.just("read_on"), PEERS),
        st.tuples(st.just("end"), PEERS),
    ),
    max_size=40,
)


class Model:
    """What must be heard: broadcasts gather in their rooms, until anybody waits."""

    def __init__(self) -> None:
        self.alive = {0, 1, 2}
        self.rooms: defaultdict[str, set[int]] = defaultdict(set)
        self.heard: dict[int, list[str]] = {0: [], 1: [], 2: []}
        self.gathered: dict[str, list[tuple[str, set[int]]]] = {}

    def publish(self, room: str, text: str, exclude: int | None) -> int:
        audience = self.rooms[room] - {exclude}
        if self.rooms[room]:
            self.gathered.setdefault(room, []).append((text, set(audience)))
        return len(audience)

    def leave(self, peer: int, room: str) -> None:
        self.rooms[room].discard(peer)
        for _, audience in self.gathered.get(room, ()):
            audience.discard(peer)

    def flush_to(self, peer: int) -> None:
        for broadcasts in self.gathered.values():
            for text, audience in broadcasts:
                if peer in audience:
                    audience.discard(peer)
                    self.heard[peer].append(text)

    def flush(self) -> None:
        for broadcasts in self.gathered.values():
            for text, audience in broadcasts:
                for peer in audience:
                    self.heard[peer].append(text)
        self.gathered.clear()


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
async def test_rooms_do_what_the_model_does(steps: list[tuple[Any, ...]]) -> None:
    hub, model = Hub(), Model()
    peers = [Peer() for _ in range(3)]
    members: list[Member] = []
    async with hub, AsyncExitStack() as stack:
        blocks = []  # one a peer, left when it ends; the rest at the end
        for number in range(3):
            ws = await stack.enter_async_context(peers[number].websocket())
            blocks.append(await stack.enter_async_context(AsyncExitStack()))
            members.append(await blocks[number].enter_async_context(hub.join(f"own {number}", ws)))

        for step, (action, *arguments) in enumerate(steps):
            match action, *arguments:
                case "join", int(peer), str(room) if peer in model.alive:
                    members[peer].join(room)
                    model.rooms[room].add(peer)
                case "leave", int(peer), str(room):
                    members[peer].leave(room)
                    model.leave(peer, room)
                case "broadcast_nowait", str(room), exclude:
                    others = () if exclude is None else members[exclude]
                    hub.broadcast_nowait(room, str(step), exclude=others)
                    model.publish(room, str(step), exclude)
                case "broadcast", str(room), exclude:
                    others = () if exclude is None else members[exclude]
                    audience = model.publish(room, str(step), exclude)
                    model.flush()
                    delivery = await hub.broadcast(room, str(step), exclude=others)
                    assert delivery.members == delivery.sent == audience
                    assert delivery.dropped == delivery.disconnected == 0
                    await settled()
                case "send", int(peer) if peer in model.alive:
                    model.flush()
                    await members[peer].send(str(step))
                    model.heard[peer].append(str(step))
                    await settled()
                case "send_nowait", int(peer) if peer in model.alive:
                    model.flush_to(peer)
                    members[peer].send_nowait(str(step))
                    model.heard[peer].append(str(step))
                case "stop_reading", int(peer):
                    peers[peer].stop_reading()
                case "read_on", int(peer):
                    peers[peer].read_on()
                case "end", int(peer) if peer in model.alive:
                    peers[peer].read_on()
                    model.flush()
                    await settled()
                    await blocks[peer].aclose()
                    model.alive.discard(peer)
                    for room in "abc":
                        model.leave(peer, room)

            present = {room: people for room, people in model.rooms.items() if people}
            assert {name for name in hub.rooms if name in "abc"} == set(present)
            for room, people in present.items():
                assert set(hub.rooms[room].members) == {members[peer] for peer in people}
            assert len(hub.connections) == len(model.alive)

        model.flush()
        for each in peers:
            each.read_on()
        await eventually(
            lambda: [each.heard for each in peers] == [model.heard[number] for number in range(3)]
        )
        await stack.aclose()
        assert not hub.connections


async def settled() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
