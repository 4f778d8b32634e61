"""The hub, its rooms and its members: what is promised, each with a fault in it."""

from __future__ import annotations

import gc
import re
import tracemalloc
import weakref
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import astuple
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import pytest

from hubbub import (
    Block,
    Coalesce,
    Delivery,
    Disconnect,
    DropNewest,
    DropOldest,
    Hub,
    Member,
    MessageTooBig,
    WebSocketDisconnect,
)
from hubbub import running as module
from hubbub.outbox import Outbox, Verdict
from hubbub.prepared import Prepared
from tests.peer import Peer, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from hubbub import WebSocket
    from hubbub.outbox import Policy
    from hubbub.types import Message

T = TypeVar("T")

POLICIES = [Disconnect(), DropOldest(), DropNewest(), Coalesce(lambda data: data), Block()]


async def idle() -> None:
    """Let every message move that can move; where one is stuck, nothing tells the end."""
    for _ in range(1000):
        await anyio.lowlevel.checkpoint()


class Unstoppable(Peer):
    """A peer of a server that shields what it sends, as Hypercorn's trio worker does."""

    async def send(self, message: Message) -> None:
        with anyio.CancelScope(shield=True):
            await super().send(message)


class Busy(Peer):
    """A peer to whom, while it takes one message, two are broadcast."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send" and len(self.heard) < 20:
            for number in range(2):
                await self._hub.broadcast("r", f"{len(self.heard)}.{number}")
        await super().send(message)


class SelfCancelling(Peer):
    """A peer of a server that awaits what was cancelled; trio has nothing like it."""

    def __init__(self, fails_at: str) -> None:
        super().__init__()
        self._fails_at = fails_at

    async def send(self, message: Message) -> None:
        if message["type"] == self._fails_at:
            raise anyio.get_cancelled_exc_class()
        await super().send(message)


class Text(str):
    """A message that can be seen to be forgotten."""


@asynccontextmanager
async def joined(
    hub: Hub, *peers: Peer, room: str = "r", **options: Any
) -> AsyncGenerator[list[Member]]:
    """Run a handler for each peer that joins a room and reads until the end."""
    members: dict[Peer, Member] = {}

    async def handle(peer: Peer, ready: anyio.Event) -> None:
        ws = peer.websocket()
        async with ws, hub.join(room, ws, data=peer, **options) as member:
            members[peer] = member
            ready.set()
            async for _ in ws:
                pass

    async with anyio.create_task_group() as tasks:
        for peer in peers:
            ready = anyio.Event()
            tasks.start_soon(handle, peer, ready)
            await ready.wait()
        yield [members[peer] for peer in peers]
        for peer in peers:
            peer.read_on()
            peer.leave()


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def peers() -> list[Peer]:
    return [Peer() for _ in range(4)]


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr("hubbub.websocket._CLOSE_TIMEOUT", 0.05)


class TestBroadcast:
    async def test_it_reaches_the_room_and_nobody_else(self, hub: Hub, peers: list[Peer]) -> None:
        inside, outside = peers[:3], peers[3]
        async with hub, joined(hub, *inside), joined(hub, outside, room="other"):
            assert await hub.broadcast("r", "hi") == Delivery(members=3, sent=3)
            await idle()
            assert [peer.heard for peer in inside] == [["hi"]] * 3
            assert outside.heard == []

    async def test_text_binary_and_json(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer):
            await hub.broadcast("r", "")
            await hub.broadcast("r", b"\0")
            await hub.broadcast_json("r", {"type": "x", "payload": {}})
            await idle()
            assert peer.heard == ["", b"\0", '{"type":"x","payload":{}}']
            with pytest.raises(TypeError):
                await hub.broadcast("r", 1)  # type: ignore[arg-type]

    async def test_all_members_hear_the_same_order(self, hub: Hub, peers: list[Peer]) -> None:
        async def publish(name: str) -> None:
            for number in range(20):
                await hub.broadcast("r", f"{name}{number}")

        async with hub, joined(hub, *peers):
            async with anyio.create_task_group() as tasks:
                for name in "abc":
                    tasks.start_soon(publish, name)
                for number in range(20):
                    hub.broadcast_nowait("r", f"d{number}")
                    await anyio.lowlevel.checkpoint()
            await idle()
            assert len(peers[0].heard) == 80
            assert all(peer.heard == peers[0].heard for peer in peers)
            for name in "abcd":
                own = [text for text in peers[0].heard if str(text).startswith(name)]
                assert own == [f"{name}{number}" for number in range(20)]

    async def test_over_several_rooms_a_peer_hears_the_order_of_publishing(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, *peers) as members:
            for member in members:
                member.join("s")
            expected = []
            for number in range(30):
                room = "rs"[number % 2]
                await hub.broadcast(room, f"{room}{number}")
                expected.append(f"{room}{number}")
            await idle()
            assert [peer.heard for peer in peers] == [expected] * 4

    async def test_exclude(self, hub: Hub, peers: list[Peer]) -> None:
        async with hub, joined(hub, *peers) as members:
            assert (await hub.broadcast("r", "a", exclude=members[0])).members == 3
            assert (await hub.broadcast("r", "b", exclude=members[1:3])).members == 2
            assert (await hub.broadcast("r", "c", exclude=members)).members == 0
            await idle()
            assert [peer.heard for peer in peers] == [["b"], ["a"], ["a"], ["a", "b"]]

    async def test_who_is_excluded_from_one_of_several_hears_the_others(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, *peers) as members:
            hub.broadcast_nowait("r", "a")
            hub.broadcast_nowait("r", "b", exclude=members[0])
            await idle()
            assert [peer.heard for peer in peers] == [["a"]] + [["a", "b"]] * 3

    async def test_all_are_counted_also_when_one_has_had_a_part_of_it_before(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, *peers) as members:
            hub.broadcast_nowait("r", "a")
            members[1].send_nowait("behind a")
            assert await hub.broadcast("r", "b") == Delivery(members=4, sent=4)
            assert hub.rooms["r"].statistics().sent == 8

    @pytest.mark.parametrize("nobody", [Peer(), "ann", ["ann"]], ids=["a peer", "a name", "names"])
    async def test_only_a_member_can_be_excluded(self, hub: Hub, nobody: Any) -> None:
        async with hub:
            with pytest.raises(TypeError, match="Expected exclude to be a member, as "):
                await hub.broadcast("r", "x", exclude=nobody)

    async def test_a_room_without_members(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer):
            assert await hub.broadcast("nobody", "x") == Delivery()
            hub.broadcast_nowait("nobody", "x")
            assert "nobody" not in hub.rooms

    async def test_to_all(self, hub: Hub, peers: list[Peer]) -> None:
        async with hub, joined(hub, *peers[:2]) as members, joined(hub, *peers[2:], room="s"):
            for member in members:
                member.leave("r")
            assert await hub.broadcast_all("hi", exclude=members[0]) == Delivery(3, 3)
            await idle()
            assert [peer.heard for peer in peers] == [[], ["hi"], ["hi"], ["hi"]]
            assert list(hub.rooms) == ["s"]

    async def test_who_joins_later_does_not_hear_it(self, hub: Hub, peers: list[Peer]) -> None:
        async with hub, joined(hub, *peers[:2]) as [first, second]:
            hub.broadcast_nowait("s", "before anybody")
            first.join("s")
            hub.broadcast_nowait("s", "before the second")
            second.join("s")
            second.leave("s")
            second.join("s")
            await hub.broadcast("s", "to both")
            await idle()
            assert peers[0].heard == ["before the second", "to both"]
            assert peers[1].heard == ["to both"]

    async def test_it_is_cancelled_and_sent_all_the_same(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await hub.broadcast("r", "hi")
            await idle()
            assert peer.heard == ["hi"]

    async def test_without_waiting_it_is_taken_to_the_outboxes_within_the_turn(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, *peers) as members:
            for peer in peers:
                peer.stop_reading()
            await hub.broadcast("r", "in the senders' hands")
            await eventually(lambda: all(each.statistics().taken for each in members))
            hub.broadcast_nowait("r", "x")
            assert not any(each.statistics().waiting for each in members)
            for _ in range(2):  # trio shuffles the tasks of a turn
                await anyio.lowlevel.checkpoint()
            assert [each.statistics().waiting for each in members] == [1] * 4

    async def test_one_alone_waits_for_no_other(
        self, hub: Hub, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turns = 0

        async def wait() -> None:
            nonlocal turns
            turns += 1
            await anyio.lowlevel.checkpoint()

        monkeypatch.setattr("hubbub.room.checkpoint", wait)
        async with hub, joined(hub, peer):
            await hub.broadcast("r", "alone")
            assert turns == 0
            hub.broadcast_nowait("r", "one")
            await hub.broadcast("r", "of two")
            assert turns == 1

    async def test_one_message_exists_however_many_it_waits_for(self, hub: Hub) -> None:
        peers = [Peer() for _ in range(50)]
        size, count = 20_000, 40
        async with hub, joined(hub, *peers) as members:
            for peer in peers:
                peer.stop_reading()
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            for number in range(count):
                await hub.broadcast("r", str(number).ljust(size))
            after, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert all(each.statistics().waiting >= count - 1 for each in members)
            assert after - before < 2 * count * size  # not 50 times as much

    async def test_membership_may_change_meanwhile(self, hub: Hub) -> None:
        peers = [Peer() for _ in range(200)]
        async with hub, joined(hub, *peers) as members:

            async def leave() -> None:
                for member in members[100:]:
                    member.leave("r")

            # A flush pauses after every 64 members; the last hundred leave in a pause.
            async with anyio.create_task_group() as tasks:
                hub.broadcast_nowait("r", "hi")
                tasks.start_soon(leave)
            delivery = await hub.broadcast("r", "again")
            await idle()
            assert delivery == Delivery(members=100, sent=100)
            assert all("hi" in peer.heard for peer in peers[:100])
            assert all(peer.heard in (["hi"], []) for peer in peers[100:])


class TestFairness:
    """Steps of a watching task, one each turn of the loop, see how much a turn has done.

    Between two of its steps another task has up to two: trio shuffles the tasks of a turn.
    """

    @pytest.mark.parametrize(("burst", "at_once"), [(1, 64), (128, 4), (2000, 1)])
    async def test_a_flush_lets_others_run_after_so_many_members(
        self, hub: Hub, burst: int, at_once: int
    ) -> None:
        peers = [Peer() for _ in range(400)]
        async with hub, joined(hub, *peers, capacity=burst) as members:
            for peer in peers:
                peer.stop_reading()
            await hub.broadcast("r", "in the senders' hands")
            await eventually(lambda: all(each.statistics().taken for each in members))
            async with watching(lambda: sum(each.statistics().waiting for each in members)) as seen:
                for _ in range(burst):
                    hub.broadcast_nowait("r", "x")
                await eventually(lambda: all(each.statistics().waiting for each in members))
            assert max_step(seen) <= 2 * at_once * burst

    async def test_many_rooms_let_others_run_after_each(self, hub: Hub, peers: list[Peer]) -> None:
        async with hub, joined(hub, *peers[:1], capacity=100) as [member]:
            peers[0].stop_reading()
            for number in range(100):
                member.join(str(number))
            async with watching(lambda: member.statistics().waiting) as seen:
                for number in range(100):
                    hub.broadcast_nowait(str(number), "x")
                await eventually(lambda: member.statistics().waiting >= 99)
            assert max_step(seen) <= 2

    async def test_a_flush_that_disconnects_lets_others_run_sooner(self, hub: Hub) -> None:
        peers = [Peer() for _ in range(200)]
        async with hub, joined(hub, *peers, capacity=1) as members:
            for peer in peers:
                peer.stop_reading()
            for _ in range(2):
                await hub.broadcast("r", "fills the outbox")
                await eventually(lambda: all(each.statistics().taken for each in members))
            async with watching(lambda: hub.statistics().disconnected) as seen:
                await hub.broadcast("r", "too many")
            assert max_step([*seen, hub.statistics().disconnected]) <= 2 * 16
            assert not hub.connections

    async def test_the_first_hear_it_while_it_is_still_on_its_way_to_the_last(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hubbub.room._MESSAGES_PER_CHECKPOINT", 1)
        peers = [Peer() for _ in range(100)]
        async with hub, joined(hub, *peers) as members:
            hub.broadcast_nowait("r", "x")
            await eventually(lambda: peers[0].heard)
            last = members[-1].statistics()
            assert (last.waiting, last.taken) == (0, 0)
            await has_heard(peers[-1], 1)

    async def test_what_is_published_meanwhile_goes_along_with_a_flush(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hubbub.room._MESSAGES_PER_CHECKPOINT", 1)
        peers = [Peer() for _ in range(50)]

        def taken() -> tuple[int, int]:
            early, late = members[9].statistics(), members[-1].statistics()
            return early.waiting + early.taken, late.waiting + late.taken

        async with hub, joined(hub, *peers) as members:
            async with watching(taken) as seen:
                hub.broadcast_nowait("r", "a")
                await eventually(lambda: peers[9].heard)
                await hub.broadcast("r", "b")
            assert (1, 2) in seen
            await eventually(lambda: all(peer.heard == ["a", "b"] for peer in peers))
            assert hub.rooms["r"].statistics().sent == 100

    async def test_a_server_whose_send_never_yields_holds_nobody_up(self, hub: Hub) -> None:
        sent = 0

        async def send(message: Message) -> None:
            nonlocal sent
            sent += message["type"] == "websocket.send"

        async with hub, AsyncExitStack() as stack:
            for peer in [Peer() for _ in range(100)]:
                ws = type(peer.websocket())(peer.scope, peer.receive, send)
                await stack.enter_async_context(ws)
                await stack.enter_async_context(hub.join("r", ws))
            async with watching(lambda: sent) as seen:
                for _ in range(100):
                    hub.broadcast_nowait("r", "x")
                await eventually(lambda: sent == 100 * 100)
            senders = hub.statistics().senders
            # Each stops after 32 messages, and up to 16 at once to the last member among them.
            assert max_step(seen) <= 2 * (32 + 16) * senders
            assert senders <= 4

    async def test_a_busy_room_starves_neither_another_room_nor_those_who_receive(
        self, hub: Hub, peer: Peer
    ) -> None:
        crowd = [Peer() for _ in range(100)]
        quiet = Peer()
        turns = 0

        async def keep_busy() -> None:
            nonlocal turns
            while True:
                hub.broadcast_nowait("busy", "x")
                turns += 1
                await anyio.lowlevel.checkpoint()

        async def echo() -> None:
            async with peer.websocket() as ws:
                async for text in ws:
                    await ws.send_text(text)

        async with (
            hub,
            joined(hub, *crowd, room="busy", policy=DropOldest()),
            joined(hub, quiet, room="quiet"),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(keep_busy)
            tasks.start_soon(echo)
            await idle()
            await eventually(lambda: hub.statistics().dropped > 1000)
            for _ in range(3):
                before, heard = turns, len(quiet.heard)
                await hub.broadcast("quiet", "x")
                assert turns - before <= 20  # the rest of a flush of the busy room
                await has_heard(quiet, heard + 1)
                # Before it are a hundred who take 16 messages each, from four senders, in two
                # turns a message; not all of the 256 that wait for each of them.
                assert turns - before <= 2 * (100 // 4 * 16 * 2)
                before, heard = turns, len(peer.heard)
                peer.say("x")
                await has_heard(peer, heard + 1)
                assert turns - before <= 20
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def watching(value: Callable[[], T]) -> AsyncGenerator[list[T]]:
    """Look at a value at each turn of the loop."""
    seen: list[T] = []

    async def look() -> None:
        while True:
            seen.append(value())
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        yield seen
        tasks.cancel_scope.cancel()


async def has_heard(peer: Peer, count: int) -> None:
    await eventually(lambda: len(peer.heard) == count)


def max_step(seen: list[int]) -> int:
    assert seen[0] < seen[-1]
    return max(after - before for before, after in pairwise(seen))


class TestPeersThatGo:
    async def test_one_that_left_harms_nobody_and_is_forgotten(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, *peers):
            peers[0].send_error = ConnectionResetError()
            await hub.broadcast("r", "a")
            await idle()
            assert len(hub.connections) == 3
            assert await hub.broadcast("r", "b") == Delivery(members=3, sent=3)
            await idle()
            assert [peer.heard for peer in peers] == [[]] + [["a", "b"]] * 3
            assert hub.statistics().disconnected == 0
            peers[1].leave()
            await eventually(lambda: len(hub.connections) == 2)
            assert hub.statistics().sent == 6  # its two are not forgotten

    async def test_one_whose_handler_does_not_look_is_forgotten_too(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub, peer.websocket() as ws, hub.join("r", ws) as member:
            peer.send_error = ConnectionResetError()
            await hub.broadcast("r", "a")
            await idle()
            assert not hub.connections
            with pytest.raises(WebSocketDisconnect) as caught:
                member.join("s")
            assert (caught.value.code, caught.value.reason) == (1006, "")

    async def test_a_server_that_raises_nonsense_costs_that_connection_only(
        self, hub: Hub, peers: list[Peer], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with hub, joined(hub, *peers) as members:
            peers[0].send_error = ValueError("the server has a bad day")
            await hub.broadcast("r", "a")
            await idle()
            assert [peer.heard for peer in peers[1:]] == [["a"]] * 3
            assert len(hub.connections) == 3
            with pytest.raises(WebSocketDisconnect) as caught:
                members[0].join("s")
            assert (caught.value.code, caught.value.reason) == (1011, "")
        assert "bad day" in caplog.text
        assert len(caplog.records) == 2  # the message, and the close frame

    async def test_one_whose_handler_has_closed_is_forgotten_without_a_word(
        self, hub: Hub, peer: Peer, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with hub, peer.websocket() as ws, hub.join("r", ws):
            await ws.close(4000, "bye")
            await hub.broadcast("r", "x")
            await eventually(lambda: not hub.connections)
        assert peer.closed_with == (4000, "bye")
        assert hub.statistics().disconnected == 0
        assert not caplog.records

    async def test_one_whose_handler_closes_while_a_message_waits_for_its_turn(
        self, hub: Hub, peer: Peer, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def say(ws: WebSocket) -> None:
            await ws.send("own")

        async with hub, peer.websocket() as ws, hub.join("r", ws):
            peer.stop_reading()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say, ws)
                await idle()
                await hub.broadcast("r", "x")
                tasks.start_soon(ws.close, 4000)
                await idle()
                peer.read_on()
            await eventually(lambda: not hub.connections)
        assert peer.heard == ["own"]
        assert peer.closed_with == (4000, "")
        assert not caplog.records

    @pytest.mark.parametrize("fails_at", ["websocket.send", "websocket.close"])
    async def test_a_server_that_is_cancelled_by_itself_costs_that_connection_only(
        self, hub: Hub, peers: list[Peer], fails_at: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        async with hub, joined(hub, *peers), joined(hub, SelfCancelling(fails_at), max_bytes=9):
            for text in ("a", "much too large", "b"):
                await hub.broadcast("r", text)
                await idle()
            assert [peer.heard for peer in peers] == [["a", "much too large", "b"]] * 4
            assert len(hub.connections) == 4
        [record] = caplog.records
        assert re.search(r"(failed|was cancelled)$", record.getMessage())

    async def test_one_that_is_disconnected_already_is_so_once(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, capacity=1):
            peer.stop_reading()
            for _ in range(3):
                await hub.broadcast("r", "x")
                await idle()
            peer.send_error = ValueError("the server has a bad day")
            peer.read_on()
            await idle()
            assert hub.statistics().disconnected == 1

    async def test_a_policy_that_raises_costs_its_member_only(
        self, hub: Hub, peers: list[Peer], caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            def overflow(self, outbox: Outbox, message: Prepared) -> Verdict:
                raise KeyError(message.data)

        async with (
            hub,
            joined(hub, *peers[1:]),
            joined(hub, peers[0], max_bytes=1, policy=Broken()),
        ):
            delivery = await hub.broadcast("r", "xx")
            await idle()
            assert delivery == Delivery(members=4, sent=3, disconnected=1)
            assert [peer.heard for peer in peers] == [[]] + [["xx"]] * 3
            assert peers[0].closed_with == (1011, "")
        assert len(caplog.records) == 1

    async def test_of_several_messages_the_first_that_is_too_much_is_the_last(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub, joined(hub, peer, capacity=1):
            for _ in range(4):
                hub.broadcast_nowait("r", "x")
            assert await hub.broadcast("r", "x") == Delivery()
            assert hub.statistics().disconnected == 1

    async def test_one_that_cannot_keep_up_has_to_go_although_the_publisher_was_cancelled(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub, joined(hub, peer, max_bytes=1):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await hub.broadcast("r", "too big")
            await idle()
            assert not hub.connections
            assert hub.statistics().disconnected == 1
            assert hub.statistics().dropped == 0

    async def test_its_member_knows(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer) as [member]:
            peer.send_error = ConnectionResetError()
            await hub.broadcast("r", "a")
            await idle()
            assert member.rooms == frozenset()
            assert hub.rooms == {}
            with pytest.raises(WebSocketDisconnect):
                await member.send("x")
            with pytest.raises(WebSocketDisconnect):
                member.join("s")
            member.leave("r")


class TestSlowPeers:
    async def test_the_others_get_everything(self, hub: Hub, peers: list[Peer]) -> None:
        stuck, others = peers[0], peers[1:]
        async with hub, joined(hub, *peers, capacity=200):
            stuck.stop_reading()
            expected = [str(number) for number in range(100)]
            for text in expected:
                assert (await hub.broadcast("r", text)).sent == 4
            with anyio.fail_after(5):
                while any(peer.heard != expected for peer in others):
                    await anyio.lowlevel.checkpoint()
            assert stuck.heard == []
            stuck.read_on()
            await idle()
            assert stuck.heard == expected

    async def test_disconnect_tells_one_that_is_merely_slow(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        slow, others = peers[0], peers[1:]
        async with hub, joined(hub, *peers, capacity=4):
            slow.stop_reading()
            deliveries = []
            for number in range(10):
                deliveries.append(await hub.broadcast("r", str(number)))
                await idle()
            # One is in a sender's hands, four wait, the sixth is too many.
            assert [delivery.disconnected for delivery in deliveries] == [0] * 5 + [1] + [0] * 4
            assert deliveries[5] == Delivery(members=4, sent=3, disconnected=1)
            assert deliveries[6] == Delivery(members=3, sent=3)
            slow.read_on()
            await idle()
            assert slow.heard == ["0"]
            assert slow.closed_with == (1013, "slow consumer")
            assert [len(peer.heard) for peer in others] == [10, 10, 10]
            assert hub.statistics().disconnected == 1
            assert hub.statistics().abandoned == 0

    @pytest.mark.usefixtures("virtual_clock")
    async def test_disconnect_abandons_one_that_does_not_read_at_all(
        self, hub: Hub, peer: Peer
    ) -> None:
        codes: list[int | None] = []

        async def handle() -> None:
            ws = peer.websocket()
            async with ws, hub.join("r", ws, capacity=1, policy=Disconnect(4013, "go")):
                ready.set()
                async for _ in ws:
                    pass
            codes.append(ws.close_code)

        ready = anyio.Event()
        async with hub:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(handle)
                await ready.wait()
                peer.stop_reading()
                for _ in range(3):
                    await hub.broadcast("r", "x")
                    await idle()
            # The handler has ended, although nothing could be sent.
            assert codes == [4013]
            await anyio.sleep(10)
            now = hub.statistics()
            assert (now.connections, now.rooms, now.senders) == (0, 0, 0)
            assert (now.disconnected, now.abandoned) == (1, 1)

    @pytest.mark.usefixtures("short_timeouts")
    async def test_one_whose_server_cannot_be_stopped_is_gone_all_the_same(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        stuck, others = Unstoppable(), peers
        async with hub, joined(hub, *others), joined(hub, stuck, capacity=1) as [member]:
            stuck.stop_reading()
            await hub.broadcast("r", "in the server's hands")
            await eventually(lambda: member.statistics().taken)
            waits = Text("waits")
            message = weakref.ref(waits)
            await hub.broadcast("r", waits)
            del waits
            await hub.broadcast("r", "too many")
            # At once, not when the server or a timeout says so: nothing of it is left in rooms.
            assert member not in hub.connections
            assert member not in hub.rooms["r"].members
            assert not member.rooms
            await eventually(lambda: all("too many" in peer.heard for peer in others))
            for peer in others:
                peer.sent.clear()
            gc.collect()
            assert message() is None
            await eventually(lambda: hub.statistics().abandoned == 1)
            assert hub.statistics().senders > 0  # one is still in the server's hands
            assert (await hub.broadcast("r", "on we go")).sent == len(others)
            stuck.read_on()
            await eventually(lambda: stuck.heard)
            assert stuck.heard == ["in the server's hands"]

    async def test_drop_oldest(self, hub: Hub, peers: list[Peer]) -> None:
        slow = peers[0]
        async with hub, joined(hub, *peers, capacity=3, policy=DropOldest()) as members:
            slow.stop_reading()
            dropped = 0
            for number in range(10):
                dropped += (await hub.broadcast("r", str(number))).dropped
                await idle()
            assert members[0].statistics().dropped == dropped == 6
            assert members[0].statistics().waiting == 3
            slow.read_on()
            await idle()
            assert slow.heard == ["0", "7", "8", "9"]
            assert slow.closed_with is None
            assert [len(peer.heard) for peer in peers[1:]] == [10] * 3

    async def test_drop_newest(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, capacity=3, policy=DropNewest()):
            peer.stop_reading()
            for number in range(10):
                await hub.broadcast("r", str(number))
                await idle()
            peer.read_on()
            await idle()
            assert peer.heard == ["0", "1", "2", "3"]

    async def test_coalesce(self, hub: Hub, peer: Peer) -> None:
        asked: list[str | bytes] = []

        def symbol(message: str | bytes) -> str | None:
            asked.append(message)
            assert isinstance(message, str)
            return message[0] if message[0].isupper() else None

        async with hub, joined(hub, peer, capacity=4, policy=Coalesce(symbol)) as [member]:
            peer.stop_reading()
            for text in ("first", "A1", "B1", "note", "A2", "C1", "A3", "B2"):
                await hub.broadcast("r", text)
                await idle()
            peer.read_on()
            await idle()
            assert peer.heard == ["first", "A3", "B2", "note", "C1"]
            assert member.statistics().dropped == 3
            assert sorted(map(str, asked)) == sorted({"A1", "B1", "note", "A2", "C1", "A3", "B2"})

    async def test_a_gap_stands_where_messages_are_missing(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        oldest, newest, untold = peers[:3]
        async with (
            hub,
            joined(hub, oldest, capacity=2, gap=True, policy=DropOldest()),
            joined(hub, newest, capacity=2, gap=True, policy=DropNewest()),
            joined(hub, untold, capacity=2, policy=DropNewest()),
        ):
            for peer in peers[:3]:
                peer.stop_reading()
            await hub.broadcast("r", "0")
            await eventually(lambda: all(each.statistics().taken for each in hub.connections))
            for number in range(1, 6):
                await hub.broadcast("r", str(number))
            for peer in peers[:3]:
                peer.read_on()
            await idle()
            await hub.broadcast("r", "6")
            await idle()
        gap = '{"type":"gap","payload":{"missed":3}}'
        assert oldest.heard == ["0", gap, "4", "5", "6"]
        assert newest.heard == ["0", "1", "2", gap, "6"]
        assert untold.heard == ["0", "1", "2", "6"]

    async def test_a_gap_is_told_when_nothing_else_is_to_be_sent(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub, joined(hub, peer, max_bytes=1, gap=True, policy=DropOldest()):
            assert await hub.broadcast("r", "xx") == Delivery(1, 0, dropped=1)
            await idle()
            assert peer.heard == ['{"type":"gap","payload":{"missed":1}}']

    async def test_what_is_dropped_while_a_gap_is_told_is_told_next(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub, joined(hub, peer, max_bytes=1, gap=True, policy=DropOldest()):
            peer.stop_reading()
            for text in ("xx", "xx", "xx", "1"):
                await hub.broadcast("r", text)
                await idle()
            peer.read_on()
            await idle()
            gaps = [f'{{"type":"gap","payload":{{"missed":{missed}}}}}' for missed in (1, 2)]
            assert peer.heard == [*gaps, "1"]

    async def test_gaps_keep_no_message_from_its_turn(self, hub: Hub) -> None:
        busy = Busy(hub)
        async with hub, joined(hub, busy, capacity=1, gap=True, policy=DropOldest()):
            await hub.broadcast("r", "the first")
            await eventually(lambda: len(busy.heard) >= 20)
            are_gaps = ["gap" in str(text) for text in busy.heard]
            assert any(are_gaps)
            assert not any(gap and next_too for gap, next_too in pairwise(are_gaps))

    async def test_drops_are_reported(
        self, peers: list[Peer], caplog: pytest.LogCaptureFixture
    ) -> None:
        reported: list[tuple[object, int]] = []

        def on_drop(member: Member, count: int) -> None:
            reported.append((member.data, count))
            raise KeyError("mine")

        hub = Hub(on_drop=on_drop)
        async with hub, joined(hub, *peers[:2], max_bytes=2, policy=DropOldest()):
            peers[0].stop_reading()
            for text in ("a", "b", "c", "dd"):
                await hub.broadcast("r", text)
                await idle()
            assert reported == [(peers[0], 2)]
            assert hub.statistics().dropped == 2
            peers[0].read_on()
            await idle()
            room = hub.rooms["r"].statistics()
            assert (room.members, room.broadcasts, room.sent, room.dropped) == (2, 4, 8, 2)
            assert hub.statistics().sent == 6
        assert [record.getMessage() for record in caplog.records] == ["on_drop failed"]

    async def test_who_is_told_of_a_drop_may_send_to_anybody(self, peers: list[Peer]) -> None:
        members: list[Member] = []

        def on_drop(member: Member, count: int) -> None:
            for each in members:
                with suppress(anyio.WouldBlock):  # the one that has no room for more
                    each.send_nowait(f"{members.index(member)} missed {count}")

        hub = Hub(on_drop=on_drop)
        async with hub, joined(hub, *peers, capacity=8, policy=DropNewest()) as joiners:
            peers[1].stop_reading()
            while joiners[1].statistics().waiting < 8:
                await hub.broadcast("r", "fills the outbox")
                await idle()
            for peer in peers:
                peer.sent.clear()
            members += joiners
            assert await hub.broadcast("r", "x") == Delivery(members=4, sent=3, dropped=1)
            await idle()
            told = ["x", "1 missed 1"]
            assert [peer.heard for peer in peers] == [told, [], told, told]

    async def test_who_is_told_of_a_drop_may_publish_to_another_room(
        self, peers: list[Peer]
    ) -> None:
        def on_drop(_: Member, count: int) -> None:
            telling.broadcast_nowait("news", f"dropped {count}")

        telling = Hub(on_drop=on_drop)
        async with (
            telling,
            joined(telling, peers[0], room="news"),
            joined(telling, peers[1], max_bytes=3, policy=DropNewest()) as [member],
        ):
            telling.broadcast_nowait("r", "large")
            member.send_nowait("own")
            await idle()
            assert peers[0].heard == ["dropped 1"]
            assert peers[1].heard == ["own"]

    async def test_what_is_sent_because_of_a_drop_comes_behind_what_was_broadcast_before(
        self, peer: Peer
    ) -> None:
        reported: list[int] = []

        def on_drop(member: Member, count: int) -> None:
            reported.append(count)
            member.send_nowait("told")

        hub = Hub(on_drop=on_drop)
        async with hub, joined(hub, peer, max_bytes=9, policy=DropNewest()):
            for text in ("1", "too large 2", "3", "too large 4", "5"):
                hub.broadcast_nowait("r", text)
            await idle()
            assert peer.heard == ["1", "3", "5", "told"]
            assert reported == [2]

    async def test_who_leaves_because_of_a_drop_still_gets_what_waits(self, peer: Peer) -> None:
        hub = Hub(on_drop=lambda member, count: member.leave("r"))
        async with hub, joined(hub, peer, max_bytes=9, policy=DropNewest()):
            for text in ("1", "too large 2", "3"):
                hub.broadcast_nowait("r", text)
            await idle()
            assert peer.heard == ["1", "3"]

    async def test_bytes_are_bounded_too(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, max_bytes=100, policy=DropOldest()) as [member]:
            peer.stop_reading()
            for _ in range(10):
                await hub.broadcast("r", "x" * 40)
                await idle()
            assert member.statistics().waiting_bytes == 80
            assert await hub.broadcast("r", "x" * 101) == Delivery(1, 0, dropped=1)

    @pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
    @pytest.mark.usefixtures("virtual_clock")
    async def test_a_stall_disconnects_under_any_policy(
        self, hub: Hub, peer: Peer, policy: Policy
    ) -> None:
        async with hub, joined(hub, peer, policy=policy):
            peer.stop_reading()
            await hub.broadcast("r", "x")
            await anyio.sleep(29)
            assert hub.connections
            await anyio.sleep(2)
            assert not hub.connections
            peer.read_on()
            await idle()
            assert peer.heard == ["x"]
            assert peer.closed_with == (1013, "no progress for 30 s")

    @pytest.mark.parametrize(
        ("stall_timeout", "end"), [(0.01, (1013, "no progress for 0.01 s")), (None, (1012, ""))]
    )
    async def test_who_is_sending_does_not_forestall_the_hubs_code(
        self, hub: Hub, stall_timeout: float | None, end: tuple[int, str]
    ) -> None:
        async def send(peer: Peer) -> None:
            with suppress(WebSocketDisconnect):
                async with peer.websocket() as ws:
                    peer.stop_reading()
                    try:
                        async with hub.join("r", ws, capacity=1, stall_timeout=stall_timeout) as me:
                            while True:
                                await me.send("x")
                    finally:
                        peer.read_on()

        peers = [Peer() for _ in range(10)]  # trio runs in any order what can run
        async with hub, anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(send, peer)
            if stall_timeout is None:
                await eventually(lambda: len(hub.connections) == 10)
                await idle()
                await hub.aclose(1012, drain=0.01)
        assert [peer.closed_with for peer in peers] == [end] * 10

    @pytest.mark.usefixtures("virtual_clock")
    async def test_none_switches_the_stall_timeout_off(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, stall_timeout=None):
            peer.stop_reading()
            await hub.broadcast("r", "x")
            await anyio.sleep(100)
            assert len(hub.connections) == 1


class TestBlock:
    async def test_a_publisher_waits_for_room_and_nothing_is_lost(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        slow, fast = peers[:2]
        deliveries: list[Delivery] = []

        async def publish(name: str) -> None:
            deliveries.extend([await hub.broadcast("r", f"{name}{number}") for number in range(20)])

        async with (
            hub,
            joined(hub, slow, capacity=2, policy=Block(None)),
            joined(hub, fast, capacity=1000),
        ):
            slow.stop_reading()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish, "a")
                tasks.start_soon(publish, "b")
                await idle()
                assert deliveries == []
                slow.read_on()
            await idle()
            assert slow.heard == fast.heard
            assert len(slow.heard) == 40
            assert deliveries == [Delivery(members=2, sent=2)] * 40
            assert hub.rooms["r"].statistics().sent == 80

    async def test_what_fits_of_several_goes_out_so_that_there_is_room_for_the_rest(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub, joined(hub, peer, capacity=1, policy=Block(None)):
            hub.broadcast_nowait("r", "a")
            with anyio.fail_after(5):
                assert await hub.broadcast("r", "b") == Delivery(members=1, sent=1)
            await eventually(lambda: peer.heard == ["a", "b"])

    @pytest.mark.usefixtures("virtual_clock")
    async def test_its_patience_ends(self, hub: Hub, peers: list[Peer]) -> None:
        slow, fast = peers[:2]
        async with (
            hub,
            joined(hub, slow, capacity=1, policy=Block(timeout=7)),
            joined(hub, fast),
        ):
            slow.stop_reading()
            for text in ("in hand", "waits"):
                assert (await hub.broadcast("r", text)).sent == 2
                await idle()
            began = anyio.current_time()
            assert await hub.broadcast("r", "x") == Delivery(members=2, sent=1, disconnected=1)
            assert anyio.current_time() - began == pytest.approx(7)
            slow.read_on()
            await idle()
            assert slow.heard == ["in hand"]
            assert slow.closed_with == (1013, "slow consumer")
            assert fast.heard == ["in hand", "waits", "x"]

    @pytest.mark.usefixtures("virtual_clock")
    async def test_its_patience_ends_whoever_else_is_waited_for(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        patient, impatient = peers[:2]
        async with (
            hub,
            joined(hub, patient, capacity=1, stall_timeout=None, policy=Block(None)) as [member],
            joined(hub, impatient, capacity=1, policy=Block(timeout=7)),
            anyio.create_task_group() as tasks,
        ):
            patient.stop_reading()
            impatient.stop_reading()
            for text in ("in hand", "waits"):
                await hub.broadcast("r", text)
                await idle()
            tasks.start_soon(hub.broadcast, "r", "x")
            await anyio.sleep(8)
            assert hub.connections == (member,)
            patient.read_on()

    async def test_who_cannot_wait_disconnects(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, capacity=1, policy=Block()):
            peer.stop_reading()
            for _ in range(3):
                hub.broadcast_nowait("r", "x")
                await idle()
            assert not hub.connections

    async def test_what_can_never_fit_disconnects_at_once(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, max_bytes=1, policy=Block(None)):
            assert await hub.broadcast("r", "xx") == Delivery(1, 0, disconnected=1)

    async def test_a_member_that_leaves_lets_the_publisher_go(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, capacity=1, policy=Block(None)):
            peer.stop_reading()
            for _ in range(2):
                await hub.broadcast("r", "x")
                await idle()
            deliveries: list[Delivery] = []

            async def publish() -> None:
                deliveries.append(await hub.broadcast("r", "y"))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish)
                await idle()
                peer.send_error = ConnectionResetError()
                peer.read_on()
            assert not hub.connections
            assert deliveries == [Delivery(members=1)]
            assert hub.statistics().disconnected == 0

    async def test_a_cancelled_publisher_leaves_nothing_in_line(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, max_bytes=2, policy=Block(None)) as [member]:
            peer.stop_reading()
            await hub.broadcast("r", "a")
            await idle()
            await hub.broadcast("r", "b")
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope:
                    tasks.start_soon(cancel_when_idle, scope)
                    await hub.broadcast("r", "cc")
                tasks.start_soon(hub.broadcast, "r", "d")
            assert member.statistics().waiting == 2
            assert hub.statistics().dropped == 1
            assert hub.rooms["r"].statistics().dropped == 1
            peer.read_on()
            await idle()
            assert peer.heard == ["a", "b", "d"]

    async def test_a_publisher_that_is_cancelled_before_the_flush_costs_nobody_the_connection(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub, joined(hub, peer, capacity=1, policy=Block(None)) as [member]:
            peer.stop_reading()
            for text in "ab":
                await hub.broadcast("r", text)
                await idle()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await hub.broadcast("r", "c")
            await idle()
            assert hub.connections == (member,)
            assert member.statistics().dropped == 1
            assert hub.statistics().dropped == 1
            assert hub.rooms["r"].statistics().dropped == 1
            peer.read_on()
            await idle()
            assert peer.heard == ["a", "b"]

    async def test_one_that_is_cancelled_during_the_flush_counts_each_drop_once(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hubbub.room._MESSAGES_PER_CHECKPOINT", 1)  # a flush takes long
        peers = [Peer() for _ in range(20)]
        async with hub, joined(hub, *peers, capacity=1, policy=Block(None)) as members:
            for peer in peers:
                peer.stop_reading()
            for text in "ab":
                await hub.broadcast("r", text)
                await eventually(lambda: all(each.statistics().taken for each in members))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hub.broadcast, "r", "c")
                for _ in range(6):  # so it has come to some of them
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            await eventually(lambda: hub.statistics().dropped == 20)
            await idle()
            assert [each.statistics().dropped for each in members] == [1] * 20
            assert hub.rooms["r"].statistics().dropped == 20
            assert len(hub.connections) == 20

    async def test_one_that_gives_up_lets_those_behind_it_in(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, max_bytes=2, policy=Block(None)):
            peer.stop_reading()
            await hub.broadcast("r", "a")
            await idle()
            await hub.broadcast("r", "b")
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope:
                    tasks.start_soon(cancel_when_idle, scope)
                    tasks.start_soon(hub.broadcast, "r", "d")
                    await hub.broadcast("r", "cc")
            peer.read_on()
            await idle()
            assert sorted(map(str, peer.heard)) == ["a", "b", "d"]


async def cancel_when_idle(scope: anyio.CancelScope) -> None:
    await idle()
    scope.cancel()


class TestMember:
    async def test_rooms(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer) as [member]:
            assert hub.rooms["r"].members == (member,)
            assert hub.rooms["r"].name == "r"
            assert len(hub.rooms["r"]) == 1
            assert repr(hub.rooms["r"]) == "<Room 'r' of 1>"
            member.join("s")
            member.join("s")
            assert member.rooms == {"r", "s"}
            member.leave("r")
            member.leave("r")
            assert member.rooms == {"s"}
            assert list(hub.rooms) == ["s"]
            assert hub.connections == (member,)
            assert repr(member) == f"<Member {peer!r} in ['s']>"
            await hub.broadcast("r", "to nobody")
            await hub.broadcast("s", "to it")
            await idle()
            assert peer.heard == ["to it"]

    async def test_leaving_every_room_is_not_disconnecting(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer) as [member]:
            await hub.broadcast("r", "a")
            member.leave("r")
            await member.send("b")
            await idle()
            assert peer.heard == ["a", "b"]
            assert peer.closed_with is None
            assert len(hub.connections) == 1

    async def test_send_keeps_the_order_with_broadcasts(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer) as [member]:
            for number in range(0, 20, 2):
                await hub.broadcast("r", str(number))
                await member.send(str(number + 1))
            await idle()
            assert peer.heard == [str(number) for number in range(20)]

    async def test_send_comes_behind_a_flush_that_is_not_there_yet(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hubbub.room._MESSAGES_PER_CHECKPOINT", 1)
        peers = [Peer() for _ in range(40)]
        async with hub, joined(hub, *peers) as members:
            hub.broadcast_nowait("r", "to all")
            await members[-1].send("to one")
            assert hub.rooms["r"].statistics().sent == 1  # the flush is not over
            await eventually(lambda: len(peers[-1].heard) == 2)
            assert peers[-1].heard == ["to all", "to one"]

    async def test_send_brings_nothing_of_rooms_that_it_is_not_in(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, peers[0]) as [member], joined(hub, peers[1], room="s"):
            hub.broadcast_nowait("s", "to another")
            member.send_nowait("to one")
            await eventually(lambda: peers[0].heard and peers[1].heard)
            assert (peers[0].heard, peers[1].heard) == (["to one"], ["to another"])

    async def test_send_waits_for_room_whatever_the_policy(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, capacity=2) as [member]:
            peer.stop_reading()
            sent = 0

            async def send() -> None:
                nonlocal sent
                for _ in range(10):
                    await member.send(str(sent))
                    sent += 1

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await idle()
                assert sent == 3
                peer.read_on()
            await idle()
            assert peer.heard == [str(number) for number in range(10)]

    async def test_a_snapshot_is_followed_by_every_change_and_by_no_other(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        state = 0

        def change(room: str) -> None:
            nonlocal state
            state += 1
            hub.broadcast_nowait(room, str(state))

        async with hub, joined(hub, *peers) as members:
            for member in members:
                member.join("s")
            await hub.broadcast("r", "begin")  # what follows is not the rooms' first
            await hub.broadcast("s", "begin")
            await eventually(lambda: all(peer.heard == ["begin"] * 2 for peer in peers))
            for peer in peers:
                peer.sent.clear()
            for room in "rsrs":
                change(room)
            members[0].send_nowait(f"so far {state}")
            for room in "srr":
                change(room)
            await hub.broadcast_all("end")
            await eventually(lambda: all(peer.heard[-1:] == ["end"] for peer in peers))
            assert [sorted(peer.heard[:-1]) for peer in peers[1:]] == [list("1234567")] * 3
            snapshot = peers[0].heard.index("so far 4")
            assert sorted(peers[0].heard[:snapshot]) == list("1234")
            assert sorted(peers[0].heard[snapshot + 1 : -1]) == list("567")

    @pytest.mark.parametrize("at_once", [1, 2, 3])
    async def test_a_snapshot_has_its_place_in_a_flush_too(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        monkeypatch.setattr("hubbub.room._MESSAGES_PER_CHECKPOINT", 8 * at_once)
        peers = [Peer() for _ in range(12)]
        async with hub, joined(hub, *peers) as members:

            async def take_snapshots(peer: Peer, member: Member) -> None:
                for number in range(3):
                    member.send_nowait(f"so far {number}")
                    await anyio.lowlevel.checkpoint()

            async with anyio.create_task_group() as tasks:
                for peer, member in zip(peers, members, strict=True):
                    tasks.start_soon(take_snapshots, peer, member)
                for number in range(4):
                    hub.broadcast_nowait("r", str(number))
                    await anyio.lowlevel.checkpoint()
            await hub.broadcast("r", "end")
            await eventually(lambda: all(peer.heard[-1:] == ["end"] for peer in peers))
            for peer in peers:
                assert [text for text in peer.heard if len(text) == 1] == list("0123")
                own = [text for text in peer.heard if str(text).startswith("so far")]
                assert own == ["so far 0", "so far 1", "so far 2"]
            assert hub.rooms["r"].statistics().sent == 12 * 5

    @pytest.mark.parametrize("policy", [Disconnect(), DropOldest(), Block()])
    async def test_a_send_that_cannot_wait_does_not_go_into_a_full_outbox(
        self, hub: Hub, peer: Peer, policy: Policy
    ) -> None:
        async with hub, joined(hub, peer, capacity=1, max_bytes=4, policy=policy) as [member]:
            peer.stop_reading()
            member.send_nowait("a")
            await idle()
            member.send_nowait("b")
            with pytest.raises(anyio.WouldBlock):
                member.send_nowait("c")
            with pytest.raises(MessageTooBig):
                member.send_nowait("ccccc")
            with pytest.raises(TypeError):
                member.send_nowait(1)  # type: ignore[arg-type]
            peer.read_on()
            await eventually(lambda: peer.heard == ["a", "b"])
            assert member.statistics().dropped == 0
            peer.send_error = ConnectionResetError()
            member.send_nowait("d")
            await eventually(lambda: not hub.connections)
            with pytest.raises(WebSocketDisconnect):
                member.send_nowait("e")

    async def test_what_comes_before_a_send_that_cannot_wait_may_end_the_member(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub, joined(hub, peer, capacity=1) as [member]:
            for _ in range(2):
                hub.broadcast_nowait("r", "x")
            with pytest.raises(WebSocketDisconnect) as caught:
                member.send_nowait("y")
            assert caught.value.code == 1013
            assert not hub.rooms

    async def test_send_too_big(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, max_bytes=10) as [member]:
            with pytest.raises(MessageTooBig):
                await member.send("x" * 11)

    async def test_a_send_that_waits_learns_of_the_end(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer, capacity=1) as [member]:
            peer.stop_reading()
            await member.send("a")
            await idle()
            await member.send("b")
            ends: list[int] = []

            async def send() -> None:
                try:
                    await member.send("c")
                except WebSocketDisconnect as end:
                    ends.append(end.code)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await idle()
                await hub.broadcast("r", "too many")
            assert ends == [1013]

    async def test_what_waits_is_sent_when_the_block_ends(self, hub: Hub, peer: Peer) -> None:
        async with hub:
            async with peer.websocket() as ws, hub.join("r", ws) as member:
                for number in range(50):
                    await member.send(str(number))
            assert peer.heard == [str(number) for number in range(50)]
            assert peer.closed_with == (1000, "")
            with pytest.raises(WebSocketDisconnect) as caught:
                await member.send("x")
            assert (caught.value.code, caught.value.reason) == (1000, "")

    async def test_what_was_broadcast_before_the_block_ends_reaches_it(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        leaver, others = peers[0], peers[1:]
        async with hub, joined(hub, *others):
            async with leaver.websocket() as ws, hub.join("r", ws):
                hub.broadcast_nowait("r", "bye")
            hub.broadcast_nowait("r", "it has gone")
            await idle()
            assert leaver.heard == ["bye"]
            assert [peer.heard for peer in others] == [["bye", "it has gone"]] * 3

    @pytest.mark.usefixtures("virtual_clock")
    async def test_a_peer_that_does_not_read_does_not_hold_the_block_up(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub:
            with anyio.fail_after(30):
                async with peer.websocket() as ws, hub.join("r", ws) as member:
                    peer.stop_reading()
                    await member.send("x")
                    await idle()
            assert not hub.connections
            await anyio.sleep(10)
            assert not hub.statistics().senders

    async def test_an_error_in_the_block_comes_out_as_it_is(self, hub: Hub, peer: Peer) -> None:
        async with hub:
            with pytest.raises(KeyError) as caught:
                async with peer.websocket() as ws, hub.join("r", ws):
                    raise KeyError("mine")
            assert caught.value.args == ("mine",)
            assert not hub.connections
            assert not hub.rooms
            assert peer.closed_with == (1011, "")

    async def test_a_cancelled_handler_leaves_nothing_behind(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, *peers[1:]):
            with anyio.move_on_after(0.01):
                async with peers[0].websocket() as ws, hub.join("r", ws):
                    await anyio.sleep_forever()
            assert len(hub.connections) == 3
            assert await hub.broadcast("r", "hi") == Delivery(3, 3)

    async def test_a_cancelled_handler_breaks_no_message_off(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        slow, others = peers[0], peers[1:]

        async def handle(scope: anyio.CancelScope) -> None:
            with scope:
                async with slow.websocket() as ws, hub.join("r", ws):
                    await anyio.sleep_forever()

        async with hub, joined(hub, *others), anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()
            tasks.start_soon(handle, scope)
            await eventually(lambda: len(hub.connections) == 4)
            slow.stop_reading()
            for text in ("in hand", "waits"):
                await hub.broadcast("r", text)
                await eventually(lambda: hub.connections[-1].statistics().taken)
            scope.cancel()
            await eventually(lambda: len(hub.connections) == 3)
            slow.read_on()
            await eventually(lambda: slow.closed_with)
            assert slow.heard == ["in hand"]
            assert slow.closed_with == (1001, "")
            assert await hub.broadcast("r", "hi") == Delivery(3, 3)
            await eventually(lambda: all(peer.heard[-1:] == ["hi"] for peer in others))

    async def test_what_arrives_after_the_end_of_a_member_was_sent(
        self, hub: Hub, peer: Peer
    ) -> None:
        async with hub:
            ws = await peer.accepted()
            with suppress(KeyError):
                async with hub.join("r", ws) as member:
                    peer.stop_reading()
                    await hub.broadcast("r", "on its way")
                    await eventually(lambda: member.statistics().taken)
                    raise KeyError
            assert hub.statistics().sent == 0
            peer.read_on()
            await eventually(lambda: peer.heard)
            await idle()
            assert hub.statistics().sent == 1

    @pytest.mark.may_leak("members")  # the check would keep it
    async def test_nobody_keeps_a_member_that_has_gone(self, hub: Hub) -> None:
        async with hub:
            peer = Peer()
            async with joined(hub, peer) as members:
                gone = weakref.ref(members.pop())
                await hub.broadcast("r", "hi")
                await idle()
                peer.leave()
            del peer
            gc.collect()
            assert gone() is None


class TestJoin:
    async def test_twice_is_an_error(self, hub: Hub, peer: Peer) -> None:
        async with hub, peer.websocket() as ws, hub.join("r", ws):
            with pytest.raises(RuntimeError, match=r"is a member already: .* member\.join"):
                async with hub.join("s", ws):
                    pass
            assert list(hub.rooms) == ["r"]

    async def test_again_after_the_block(self, hub: Hub, peer: Peer) -> None:
        async with hub, peer.websocket() as ws:
            for room in ("r", "s"):
                async with hub.join(room, ws) as member:
                    await member.send(room)
            assert peer.heard == ["r", "s"]

    @pytest.mark.parametrize("bounds", [{"capacity": 0}, {"max_bytes": 0}])
    async def test_bounds_must_be_positive(
        self, hub: Hub, peer: Peer, bounds: dict[str, int]
    ) -> None:
        async with hub, peer.websocket() as ws:
            with pytest.raises(ValueError, match="at least 1"):
                async with hub.join("r", ws, **bounds):  # type: ignore[arg-type]
                    pass
            assert not hub.connections

    @pytest.mark.parametrize("policy", [DropOldest, "drop_oldest", None], ids=repr)
    async def test_a_policy_is_one(self, hub: Hub, peer: Peer, policy: Any) -> None:
        async with hub, peer.websocket() as ws:
            with pytest.raises(TypeError, match=r"Expected a policy, DropOldest\(\) for example"):
                async with hub.join("r", ws, policy=policy):
                    pass
            assert not hub.connections

    async def test_a_hub_that_does_not_run(self, hub: Hub, peer: Peer) -> None:
        ws = peer.websocket()
        with pytest.raises(RuntimeError, match=r"not running: give it to App\(lifespan=hub\)"):
            async with hub.join("r", ws):
                pass
        with pytest.raises(RuntimeError, match="not running"):
            await hub.broadcast("r", "x")
        with pytest.raises(RuntimeError, match="not running"):
            hub.broadcast_nowait("r", "x")
        assert hub.rooms == {}
        assert hub.connections == ()
        assert not any(astuple(hub.statistics()))
        await hub.aclose()


class TestClosing:
    async def test_everybody_gets_what_waits_and_is_told(self, hub: Hub, peers: list[Peer]) -> None:
        async with hub, joined(hub, *peers) as members:
            for number in range(20):
                hub.broadcast_nowait("r", str(number))
            await hub.aclose()
            for peer in peers:
                assert peer.heard == [str(number) for number in range(20)]
                assert peer.closed_with == (1001, "")
            assert not hub.connections
            late = Peer()
            with pytest.raises(WebSocketDisconnect) as caught:
                async with late.websocket() as ws, hub.join("r", ws):
                    pass
            assert caught.value.code == 1001
            assert late.closed_with == (1001, "")
            with pytest.raises(WebSocketDisconnect):
                await members[0].send("x")
            await hub.aclose()
            assert await hub.broadcast("r", "x") == Delivery()

    @pytest.mark.usefixtures("virtual_clock")
    async def test_who_comes_too_late_is_not_waited_for(self, hub: Hub, peers: list[Peer]) -> None:
        frozen, failing = peers[:2]
        async with hub:
            await hub.aclose(4013)
            late = [await frozen.accepted(), await failing.accepted()]
            frozen.stop_reading()
            failing.send_error = ValueError("the server has a bad day")
            for ws in late:
                began = anyio.current_time()
                with pytest.raises(WebSocketDisconnect) as caught:
                    async with hub.join("r", ws):
                        pass
                assert caught.value.code == 4013
                assert anyio.current_time() - began < 6

    async def test_with_another_code(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer):
            with pytest.raises(ValueError, match="close code"):
                await hub.aclose(code=1006)
            await hub.aclose(code=1012)
            assert peer.closed_with == (1012, "")

    @pytest.mark.usefixtures("virtual_clock")
    async def test_it_does_not_wait_for_ever_for_those_who_do_not_read(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, *peers):
            peers[0].stop_reading()
            await hub.broadcast("r", "x")
            began = anyio.current_time()
            await hub.aclose(drain=10)
            assert 10 <= anyio.current_time() - began <= 20
            assert hub.statistics().abandoned == 1
            assert [peer.closed_with for peer in peers[1:]] == [(1001, "")] * 3

    @pytest.mark.usefixtures("virtual_clock")
    async def test_it_waits_for_those_who_read_slowly(self, hub: Hub, peer: Peer) -> None:
        async with hub, joined(hub, peer), anyio.create_task_group() as tasks:

            async def read_on() -> None:
                await anyio.sleep(15)
                peer.read_on()

            peer.stop_reading()
            for text in ("a", "b"):
                await hub.broadcast("r", text)
            began = anyio.current_time()
            tasks.start_soon(read_on)
            await hub.aclose(drain=20)
            assert anyio.current_time() - began == pytest.approx(15)
            assert peer.heard == ["a", "b"]
            assert hub.statistics().abandoned == 0

    @pytest.mark.usefixtures("virtual_clock")
    async def test_what_was_broadcast_before_is_waited_for_and_nothing_else(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async with hub, joined(hub, *peers):
            hub.broadcast_nowait("r", "the last")
            began = anyio.current_time()
            await hub.aclose(drain=10)
            assert anyio.current_time() - began < 1
            assert [peer.heard for peer in peers] == [["the last"]] * 4

    async def test_the_block_closes_it(self, hub: Hub, peer: Peer) -> None:
        async with anyio.create_task_group() as tasks:
            async with hub:
                ready = anyio.Event()

                async def handle() -> None:
                    ws = peer.websocket()
                    async with ws, hub.join("r", ws):
                        ready.set()
                        with pytest.raises(WebSocketDisconnect):
                            await ws.receive()

                tasks.start_soon(handle)
                await ready.wait()
        assert peer.closed_with == (1001, "")

    async def test_who_does_not_look_is_gone_all_the_same(self, hub: Hub, peer: Peer) -> None:
        async with hub:
            async with peer.websocket() as ws, hub.join("r", ws) as member:
                await hub.aclose(1012)  # the handler goes on, and receives nothing
                assert peer.closed_with == (1012, "")
                assert not hub.connections
                assert not hub.rooms
                assert hub.statistics().disconnected == 1
                with pytest.raises(WebSocketDisconnect) as caught:
                    await member.send("x")
                assert caught.value.code == 1012

    async def test_it_may_be_entered_again(self, hub: Hub) -> None:
        for _ in range(2):
            peer = Peer()
            async with hub, joined(hub, peer):
                assert (await hub.broadcast("r", "hi")).sent == 1
            assert hub.statistics().connections == 0

    async def test_an_error_in_the_block_comes_out_as_it_is(self, hub: Hub, peer: Peer) -> None:
        with pytest.raises(KeyError):
            async with hub:
                async with peer.websocket() as ws, hub.join("r", ws):
                    pass
                raise KeyError("mine")

    async def test_a_cancelled_hub_tells_its_members_and_lets_nobody_wait(
        self, hub: Hub, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hubbub.room._MESSAGES_PER_CHECKPOINT", 1)  # a flush takes long
        deliveries: list[Delivery] = []

        async def publish() -> None:
            deliveries.append(await hub.broadcast("r", "x"))

        async with running(hub) as (end, ended), joined(hub, *peers):
            hub.broadcast_nowait("r", "the last")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish)
                end(True)
            await ended.wait()
            assert [peer.closed_with for peer in peers] == [(1001, "")] * 4
            assert all(peer.heard in (["the last", "x"], ["the last"]) for peer in peers)
        assert len(deliveries) == 1

    @pytest.mark.parametrize("cancelled", [False, True])
    async def test_it_goes_on_telling_whom_it_has_disconnected(
        self, hub: Hub, peer: Peer, cancelled: bool
    ) -> None:
        async with running(hub) as (end, ended), joined(hub, peer, capacity=1):
            peer.stop_reading()
            while hub.connections:
                await hub.broadcast("r", "x")
                await idle()
            end(cancelled)
            await idle()
            assert not ended.is_set()
            peer.read_on()
            await ended.wait()
            assert peer.heard == ["x"]
            assert peer.closed_with == (1013, "slow consumer")

    @pytest.mark.parametrize("cancelled", [False, True])
    async def test_it_breaks_no_message_off_to_one_that_has_left(
        self, hub: Hub, peer: Peer, cancelled: bool
    ) -> None:
        async def handle(scope: anyio.CancelScope) -> None:
            with scope:
                async with peer.websocket() as ws, hub.join("r", ws) as member:
                    peer.stop_reading()
                    await member.send("x")
                    await anyio.sleep_forever()

        scope = anyio.CancelScope()
        async with running(hub) as (end, ended), anyio.create_task_group() as tasks:
            tasks.start_soon(handle, scope)
            await idle()
            scope.cancel()
            await eventually(lambda: not hub.connections)
            end(cancelled)
            await idle()
            assert not ended.is_set()
            peer.read_on()
            await ended.wait()
            assert peer.heard == ["x"]

    async def test_who_publishes_until_it_ends_does_not_wait_for_ever(
        self, hub: Hub, peers: list[Peer]
    ) -> None:
        async def publish() -> None:
            with pytest.raises(RuntimeError, match="not running"):
                while True:
                    assert (await hub.broadcast_all("x")).members <= 4

        with anyio.fail_after(20):
            async with running(hub) as (end, ended), joined(hub, *peers):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(publish)
                    await idle()
                    end(False)
                await ended.wait()

    async def test_a_hub_that_has_no_time_to_close_leaves_nothing_behind(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "DRAIN", 0)
        monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 0)
        monkeypatch.setattr("hubbub.room._MESSAGES_PER_CHECKPOINT", 1)  # a flush takes long
        peers = [Peer() for _ in range(100)]
        deliveries: list[Delivery] = []

        async def run(leave: anyio.Event) -> None:
            async with hub:
                entered.set()
                await leave.wait()

        async def publish(room: str) -> None:
            deliveries.append(await hub.broadcast(room, "x"))

        entered, leave = anyio.Event(), anyio.Event()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run, leave)
                await entered.wait()
                async with joined(hub, *peers) as members:
                    members[0].join("s")
                    tasks.start_soon(publish, "r")
                    await anyio.lowlevel.checkpoint()
                    tasks.start_soon(publish, "s")
                    tasks.start_soon(hub.aclose, 1001, 1000)
                    await anyio.lowlevel.checkpoint()
                    leave.set()
                    await eventually(lambda: not hub.connections)
                    assert not any(member.rooms for member in members)
        assert len(deliveries) == 2

    async def test_nobody_is_left_a_member_by_a_hub_that_has_no_time_to_close(
        self, hub: Hub, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "DRAIN", 0)
        monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 0)
        async with peer.websocket() as ws, AsyncExitStack() as stack:
            async with hub:
                member = await stack.enter_async_context(hub.join("r", ws))
                hub.broadcast_nowait("r", "for which there is no time")
            assert not member.rooms
            with pytest.raises(WebSocketDisconnect) as caught:
                await member.send("x")
            assert caught.value.code == 1001


@asynccontextmanager
async def running(hub: Hub) -> AsyncGenerator[tuple[Callable[[bool], None], anyio.Event]]:
    """Run a hub in a task; gives what ends its block or cancels it, and the event of its end."""

    async def run() -> None:
        with scope:
            async with hub:
                ready.set()
                await leave.wait()
        assert scope.cancelled_caught == scope.cancel_called
        ended.set()

    def end(cancelled: bool) -> None:
        if cancelled:
            scope.cancel()
        else:
            leave.set()

    ready, leave, ended, scope = anyio.Event(), anyio.Event(), anyio.Event(), anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await ready.wait()
        yield end, ended


async def test_a_handlers_own_send_and_the_hubs_never_meet_at_the_server(hub: Hub) -> None:
    peer = Peer()
    sending = 0

    async def send(message: Message) -> None:
        nonlocal sending
        sending += 1
        assert sending == 1, "two sends at once"
        await peer.send(message)
        sending -= 1

    ws = type(peer.websocket())(peer.scope, peer.receive, send)
    async with hub, ws, hub.join("r", ws):
        for number in range(50):
            hub.broadcast_nowait("r", f"hub {number}")
            await ws.send(f"own {number}")
        await idle()
    assert len(peer.heard) == 100
