"""Rooms on hubbub's own server, where broadcasts take the short way to the sockets."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from wsproto.extensions import PerMessageDeflate

from hubbub import App, Delivery, Hub, Member, WebSocket
from hubbub.prepared import Burst, Prepared
from hubbub.wire.deflate import deflate
from hubbub.wire.protocol import Protocol
from tests.peer import eventually
from tests.ws_bridge.peers import Client, served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hubbub.prepared import Batch
    from hubbub.types import Data


class House:
    """A server with one room, and its members in the order in which they came."""

    def __init__(self, **options: Any) -> None:
        self.hub = Hub()
        self.members: list[Member] = []
        self.expected = 0
        self.ended: list[int | None] = []
        self._options = options

    async def handle(self, ws: WebSocket) -> None:
        async with ws, self.hub.join("r", ws, **self._options) as member:
            self.members.append(member)
            async for text in ws:
                await ws.send(text)
        self.ended.append(ws.close_code)

    @asynccontextmanager
    async def open(self, count: int, **options: Any) -> AsyncGenerator[list[Client]]:
        """Run the server, and let the first members in."""
        app = App({"/": self.handle}, lifespan=self.hub)
        async with served(app, close_timeout=0.1) as self._address:
            async with self.visit(count, **options) as clients:
                yield clients

    @asynccontextmanager
    async def visit(self, count: int, **options: Any) -> AsyncGenerator[list[Client]]:
        """Let members in, who ask for the same in their handshakes."""
        async with AsyncExitStack() as streams:
            clients = []
            for _ in range(count):
                stream = await streams.enter_async_context(await anyio.connect_tcp(*self._address))
                clients.append(Client(stream))
                self.expected += 1
                await clients[-1].open(**options)
                await eventually(lambda: len(self.members) == self.expected)
            yield clients


async def hear(client: Client, count: int) -> list[str | bytes]:
    return [await client.hear() for _ in range(count)]


@pytest.mark.parametrize("options", [{}, {"extensions": [PerMessageDeflate()]}])
async def test_all_hear_all_in_one_order(options: dict[str, Any]) -> None:
    house = House()
    async with house.open(3, **options) as clients:
        expected: list[str | bytes] = []
        for number in range(30):
            house.hub.broadcast_nowait("r", f"{number}a" * 100)
            house.hub.broadcast_nowait("r", b"%db" % number)
            delivery = await house.hub.broadcast("r", f"{number}c")
            assert delivery == Delivery(members=3, sent=3)
            await house.members[0].send(f"{number}d")
            expected += [f"{number}a" * 100, b"%db" % number, f"{number}c"]
        first = await hear(clients[0], 120)
        assert [data for data in first if not str(data).endswith("d")] == expected
        assert [data for data in first if str(data).endswith("d")] == [
            f"{number}d" for number in range(30)
        ]
        for client in clients[1:]:
            assert await hear(client, 90) == expected
        assert house.hub.rooms["r"].statistics().sent == 270


async def test_a_broadcast_is_compressed_once_for_all_who_agreed_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compressed: list[tuple[bytes, int]] = []

    def count(payload: bytes, window_bits: int) -> bytes:
        compressed.append((payload, window_bits))
        return deflate(payload, window_bits)

    monkeypatch.setattr("hubbub.wire.protocol.deflate", count)
    house = House()
    narrow = PerMessageDeflate(server_max_window_bits=10)
    async with (
        house.open(5, extensions=[PerMessageDeflate()]) as wide_ones,
        house.visit(2, extensions=[narrow]) as narrow_ones,
        house.visit(3) as plain_ones,
    ):
        text = "the same again " * 100
        for expected in ([15, 10], [15, 10]):
            compressed.clear()
            assert (await house.hub.broadcast("r", text)).sent == 10
            for client in (*wide_ones, *narrow_ones, *plain_ones):
                assert await client.hear() == text
            assert compressed == [(text.encode(), bits) for bits in expected]
        for member in house.members[5:7]:
            member.leave("r")
        compressed.clear()
        await house.hub.broadcast("r", text)
        for client in (*wide_ones, *plain_ones):
            assert await client.hear() == text
        assert compressed == [(text.encode(), 15)]


async def test_of_a_burst_what_the_next_turn_brings_is_sent_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches: list[int] = []
    try_send = Member.try_send

    def look(self: Member, batch: Batch) -> bool:
        batches.append(batch.count)
        return try_send(self, batch)

    monkeypatch.setattr(Member, "try_send", look)
    house = House()
    async with house.open(1) as clients:
        house.hub.broadcast_nowait("r", "alone")
        assert await clients[0].hear() == "alone"
        for text in ("two", "at once"):
            house.hub.broadcast_nowait("r", text)
        await checkpoint()
        house.hub.broadcast_nowait("r", "and one more")
        assert await hear(clients[0], 3) == ["two", "at once", "and one more"]
    assert batches == [1, 3]


async def test_exclude_and_leave() -> None:
    house = House()
    async with house.open(3) as clients:
        await house.hub.broadcast("r", "a", exclude=house.members[0])
        house.members[1].leave("r")
        assert await house.hub.broadcast("r", "b") == Delivery(2, 2)
        assert await clients[0].hear() == "b"
        assert await clients[1].hear() == "a"
        assert await hear(clients[2], 2) == ["a", "b"]


async def test_one_that_does_not_read_costs_the_others_nothing() -> None:
    house = House(capacity=8)
    async with house.open(3) as [stuck, *others]:
        del stuck
        news = "x" * 100_000
        heard: list[int] = [0, 0]

        async def listen(index: int) -> None:
            while await others[index].hear() != "end":
                heard[index] += 1

        async with anyio.create_task_group() as tasks:
            for index in range(2):
                tasks.start_soon(listen, index)
            for _ in range(200):
                sent = (await house.hub.broadcast("r", news)).sent
                assert sent >= 2
                await eventually(
                    lambda: heard[0] == heard[1] == house.hub.rooms["r"].statistics().broadcasts
                )
            await house.hub.broadcast("r", "end")
        now = house.hub.statistics()
        assert (now.connections, now.disconnected) == (2, 1)
        await eventually(lambda: house.ended == [1013])


async def test_one_that_reads_again_gets_all_that_was_promised() -> None:
    house = House(capacity=1000, max_bytes=2**26)
    async with house.open(1) as [client]:
        expected = [f"{number}:" + "x" * 50_000 for number in range(200)]
        for text in expected:
            assert (await house.hub.broadcast("r", text)).sent == 1
        assert house.members[0].statistics().waiting > 0
        await client.say("mine")
        heard = await hear(client, 201)
        assert [text for text in heard if text != "mine"] == expected
        await eventually(lambda: house.hub.statistics().sent == 200)


async def test_a_message_is_framed_once_also_for_those_who_are_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    framed: Counter[Data] = Counter()
    frame = Protocol.send_message

    def count(self: Protocol, data: Data) -> bytes:
        framed[data] += 1
        return frame(self, data)

    house = House(max_bytes=2**30)
    async with house.open(3) as clients:
        monkeypatch.setattr(Protocol, "send_message", count)
        expected: list[Data] = []
        while any(member.statistics().waiting < 4 for member in house.members):
            expected.append(f"{len(expected)}:" + "x" * 500_000)
            await house.hub.broadcast("r", expected[-1])
        for client in clients:
            assert await hear(client, len(expected)) == expected
        assert framed == dict.fromkeys(expected, 1)


@pytest.mark.parametrize("bound", ["capacity", "max_bytes"])
async def test_a_burst_is_bounded_as_the_outbox_is(bound: str) -> None:
    house = House(**{bound: 4})
    async with house.open(1) as [client]:
        for _ in range(4):
            house.hub.broadcast_nowait("r", "x")
        assert await hear(client, 4) == ["x"] * 4
        for _ in range(5):
            house.hub.broadcast_nowait("r", "x")
        await eventually(lambda: not house.hub.connections)


async def test_nothing_overtakes_what_waits_in_the_outbox() -> None:
    house = House()
    async with house.open(1) as [client]:
        [member] = house.members
        member.send_nowait("first")
        assert not member.try_send(Prepared("second"))
        await house.hub.broadcast("r", "second")
        assert await hear(client, 2) == ["first", "second"]


async def test_each_hears_what_it_is_not_excluded_from() -> None:
    house = House()
    async with house.open(3) as clients:
        ann, bob, _ = house.members
        house.hub.broadcast_nowait("r", "1")
        house.hub.broadcast_nowait("r", "2", exclude=ann)
        delivery = await house.hub.broadcast("r", "3", exclude=[ann, bob])
        assert delivery == Delivery(members=1, sent=1)
        await house.hub.broadcast("r", "4")
        assert await hear(clients[0], 2) == ["1", "4"]
        assert await hear(clients[1], 3) == ["1", "2", "4"]
        assert await hear(clients[2], 4) == ["1", "2", "3", "4"]
        assert house.hub.rooms["r"].statistics().sent == 9


async def test_one_that_has_gone_is_forgotten() -> None:
    house = House()
    async with house.open(2) as clients:
        await clients[0].stream.aclose()
        await eventually(lambda: len(house.hub.connections) == 1)
        assert await house.hub.broadcast("r", "hi") == Delivery(1, 1)
        assert await clients[1].hear() == "hi"


async def test_one_that_is_found_gone_by_a_sender_is_forgotten() -> None:
    house = House()
    async with house.open(1) as [client]:
        [member] = house.members
        assert member.try_send(Burst([Prepared("past the outbox")]))
        assert await client.hear() == "past the outbox"
        await member.socket.disconnect(4000)
        assert not member.try_send(Burst([Prepared("x")]))
        await house.hub.broadcast("r", "x")
        await eventually(lambda: not house.hub.connections)
