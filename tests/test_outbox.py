from __future__ import annotations

import anyio
import pytest

from hubbub import Block, Coalesce, Disconnect, DropNewest, DropOldest, MessageTooBig
from hubbub.outbox import QUEUED, Outbox, Policy
from hubbub.prepared import Burst, Prepared


def make(policy: Policy | None = None, *, capacity: int = 3, max_bytes: int = 10) -> Outbox:
    return Outbox(policy or Disconnect(), capacity, max_bytes)


def take_all(outbox: Outbox) -> list[str | bytes]:
    messages = []
    while (message := outbox.take()) is not None:
        messages.append(message.data)
    return messages


class TestBounds:
    def test_messages(self) -> None:
        outbox = make(capacity=2)
        assert outbox.offer(Prepared("a")) is QUEUED
        assert outbox.offer(Prepared("b")) is QUEUED
        with pytest.raises(anyio.WouldBlock):
            outbox.send_nowait(Prepared("c"))
        assert take_all(outbox) == ["a", "b"]

    def test_bytes(self) -> None:
        outbox = make(max_bytes=4)
        outbox.send_nowait(Prepared("éa"))
        assert outbox.fits(Prepared("x"))
        assert not outbox.fits(Prepared("é"))
        outbox.take()
        assert outbox.fits(Prepared("1234"))

    def test_several_fit_together_or_not_at_all(self) -> None:
        outbox = make(capacity=3, max_bytes=4)
        assert not outbox.try_queue(Burst([Prepared(text) for text in ("", "", "", "")]))
        assert not outbox.try_queue(Burst([Prepared("aaa"), Prepared("bb")]))
        assert outbox.try_queue(Burst([Prepared("aa"), Prepared("bb"), Prepared("")]))
        assert take_all(outbox) == ["aa", "bb", ""]

    def test_statistics(self) -> None:
        outbox = make(DropOldest())
        for text in ("a", "bc", "d", "e"):
            outbox.offer(Prepared(text))
        now = outbox.statistics()
        outbox.take()
        assert outbox.statistics().taken == 1
        assert (now.waiting, now.waiting_bytes, now.dropped) == (3, 4, 1)
        assert (now.capacity, now.max_bytes) == (3, 10)

    @pytest.mark.parametrize("bound", [0, -1])
    def test_no_bound_may_be_nothing(self, bound: int) -> None:
        with pytest.raises(ValueError, match=f"capacity of at least 1 message, got {bound}"):
            make(capacity=bound)
        with pytest.raises(ValueError, match=f"max_bytes of at least 1, got {bound}"):
            make(max_bytes=bound)


class TestLine:
    def test_it_comes_in_as_there_is_room(self) -> None:
        outbox = make(capacity=1)
        outbox.send_nowait(Prepared("a"))
        tickets = [outbox.stand_in_line(Prepared(text)) for text in "bc"]
        with pytest.raises(anyio.WouldBlock):
            outbox.send_nowait(Prepared("d"))
        assert not outbox.fits(Prepared("d"))
        assert take_all(outbox) == ["a", "b", "c"]
        assert all(ticket.admitted and ticket.settled.is_set() for ticket in tickets)
        assert outbox.fits(Prepared("d"))

    def test_nobody_overtakes_it(self) -> None:
        outbox = make(max_bytes=4)
        outbox.send_nowait(Prepared("aaa"))
        outbox.stand_in_line(Prepared("bb"))
        assert not outbox.fits(Prepared("c"))
        assert not outbox.try_queue(Prepared("c"))
        assert outbox.offer(Prepared("c")).disconnect is not None
        with pytest.raises(anyio.WouldBlock):
            outbox.send_nowait(Prepared("c"))
        assert take_all(outbox) == ["aaa", "bb"]

    def test_a_ticket_may_be_given_back(self) -> None:
        outbox = make(max_bytes=4)
        outbox.send_nowait(Prepared("aaa"))
        first, second = (outbox.stand_in_line(Prepared(text)) for text in ("bb", "c"))
        outbox.withdraw(first)
        outbox.withdraw(first)
        assert (first.admitted, second.admitted) == (False, True)
        assert outbox.dropped == 1
        assert take_all(outbox) == ["aaa", "c"]

    def test_the_end_settles_it(self) -> None:
        outbox = make(capacity=1)
        outbox.send_nowait(Prepared("a"))
        ticket = outbox.stand_in_line(Prepared("b"))
        outbox.close()
        assert ticket.settled.is_set()
        assert not ticket.admitted


class TestMissed:
    def test_the_oldest_are_missed_at_once(self) -> None:
        outbox = make(DropOldest(), capacity=1)
        assert outbox.take_missed() == 0
        for text in "abc":
            outbox.offer(Prepared(text))
        assert outbox.take_missed() == 2
        assert outbox.take_missed() == 0

    def test_those_that_another_took_the_place_of_are_missed_at_once(self) -> None:
        outbox = make(Coalesce(lambda data: data), capacity=2)
        for text in "aba":
            outbox.offer(Prepared(text))
        assert outbox.take_missed() == 1

    def test_the_newest_are_missed_behind_what_waits(self) -> None:
        outbox = make(DropNewest(), capacity=2)
        for text in "abcd":
            outbox.offer(Prepared(text))
        seen = []
        for _ in range(3):
            seen.append(outbox.take_missed())
            outbox.take()
        assert seen == [0, 0, 2]

    def test_of_several_places_the_first_is_told(self) -> None:
        outbox = make(DropOldest(), capacity=2)
        for text in ("a", "b", "larger than all room", "as large"):
            outbox.offer(Prepared(text))
        assert outbox.take_missed() == 2
        assert take_all(outbox) == ["b", "as large"]


class TestSending:
    async def test_a_send_waits_for_room(self) -> None:
        outbox = make(capacity=1)
        await outbox.send(Prepared("a"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.send, Prepared("b"))
            await anyio.wait_all_tasks_blocked()
            assert len(outbox) == 1
            assert take_all(outbox) == ["a"]
        assert take_all(outbox) == ["b"]

    async def test_all_who_wait_come_through(self) -> None:
        outbox = make(capacity=1)
        taken: list[str | bytes] = []
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(outbox.send, Prepared(str(number)))
            while len(taken) < 5:
                await anyio.wait_all_tasks_blocked()
                taken += take_all(outbox)
        assert sorted(taken) == ["0", "1", "2", "3", "4"]

    async def test_room_for_bytes_counts_too(self) -> None:
        outbox = make(max_bytes=4)
        await outbox.send(Prepared("aa"))
        await outbox.send(Prepared("b"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.send, Prepared("cccc"))
            await anyio.wait_all_tasks_blocked()
            outbox.take()
            await anyio.wait_all_tasks_blocked()
            assert len(outbox) == 1
            outbox.take()
        assert take_all(outbox) == ["cccc"]

    @pytest.mark.parametrize("policy", [DropOldest(), Coalesce(lambda _: "the same key")])
    async def test_what_is_dropped_makes_room(self, policy: Policy) -> None:
        outbox = make(policy)
        outbox.send_nowait(Prepared("a" * 10))
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outbox.send, Prepared("c"))
                await anyio.wait_all_tasks_blocked()
                assert outbox.offer(Prepared("b")).dropped == 1
        assert take_all(outbox) == ["b", "c"]

    async def test_a_place_given_up_makes_room(self) -> None:
        outbox = make(Block())
        outbox.send_nowait(Prepared("aaaa"))
        ticket = outbox.stand_in_line(Prepared("b" * 10))
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(outbox.send, Prepared("c"))
                await anyio.wait_all_tasks_blocked()
                outbox.withdraw(ticket)
        assert take_all(outbox) == ["aaaa", "c"]

    async def test_a_cancelled_send_queues_nothing(self) -> None:
        outbox = make(capacity=1)
        await outbox.send(Prepared("a"))
        with anyio.move_on_after(0.01):
            await outbox.send(Prepared("b"))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await outbox.send(Prepared("c"))
        assert take_all(outbox) == ["a"]
        with anyio.CancelScope() as scope:
            scope.cancel()
            await outbox.send(Prepared("has room"))
        assert take_all(outbox) == []

    async def test_one_that_can_never_fit_does_not_wait(self) -> None:
        with pytest.raises(MessageTooBig, match="at most 10 bytes, got 11"):
            await make().send(Prepared("x" * 11))


class TestClosing:
    async def test_it_takes_nothing_more_and_forgets_what_waits(self) -> None:
        outbox = make()
        outbox.send_nowait(Prepared("a"))
        async with outbox:
            pass
        assert outbox.closed
        assert take_all(outbox) == []
        assert outbox.statistics().waiting_bytes == 0
        with pytest.raises(anyio.ClosedResourceError):
            outbox.send_nowait(Prepared("b"))
        outbox.close()

    async def test_who_waits_is_told(self) -> None:
        outbox = make(capacity=1)
        outbox.send_nowait(Prepared("a"))
        told = anyio.Event()

        async def send() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await outbox.send(Prepared("b"))
            told.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            outbox.close()
        assert told.is_set()
