from __future__ import annotations

from typing import Any

import pytest

from hubbub import Block, Coalesce, Disconnect, DropNewest, DropOldest
from hubbub.outbox import QUEUED, Outbox, Policy, Verdict
from hubbub.prepared import Prepared

SLOW = (1013, "slow consumer")


def full(policy: Policy, *texts: str, capacity: int = 3, max_bytes: int = 10) -> Outbox:
    outbox = Outbox(policy, capacity, max_bytes)
    for text in texts:
        assert outbox.offer(Prepared(text)) is QUEUED
    return outbox


def waiting(outbox: Outbox) -> list[str | bytes]:
    return [message.data for message in outbox]


class TestDisconnect:
    def test_the_message_and_the_member_are_refused(self) -> None:
        outbox = full(Disconnect(4000, "too slow"), "a", capacity=1)
        assert outbox.offer(Prepared("b")) == Verdict(False, disconnect=(4000, "too slow"))
        assert waiting(outbox) == ["a"]

    def test_its_code_and_reason_must_be_sendable(self) -> None:
        with pytest.raises(ValueError, match="close code"):
            Disconnect(1006)
        with pytest.raises(ValueError, match="close reason"):
            Disconnect(reason="x" * 124)


class TestDropOldest:
    def test_the_oldest_go(self) -> None:
        outbox = full(DropOldest(), "a", "b", "c")
        assert outbox.offer(Prepared("d")) == Verdict(queued=True, dropped=1)
        assert outbox.offer(Prepared("e")) == Verdict(queued=True, dropped=1)
        assert waiting(outbox) == ["c", "d", "e"]
        assert outbox.dropped == 2

    def test_as_many_as_the_bytes_need(self) -> None:
        outbox = full(DropOldest(), "aaaa", "bbbb")
        assert outbox.offer(Prepared("c" * 9)) == Verdict(queued=True, dropped=2)
        assert waiting(outbox) == ["c" * 9]

    def test_one_that_can_never_fit_goes_itself(self) -> None:
        outbox = full(DropOldest(), "a")
        assert outbox.offer(Prepared("x" * 11)) == Verdict(queued=False, dropped=1)
        assert waiting(outbox) == ["a"]


class TestDropNewest:
    def test_the_new_one_goes(self) -> None:
        outbox = full(DropNewest(), "a", "b", "c")
        assert outbox.offer(Prepared("d")) == Verdict(queued=False, dropped=1)
        assert waiting(outbox) == ["a", "b", "c"]
        assert outbox.dropped == 1


class TestCoalesce:
    def test_the_newest_of_a_key_takes_the_oldest_ones_place(self) -> None:
        outbox = full(Coalesce(lambda data: data[0]), "a1", "b1", "a2", max_bytes=100)
        assert outbox.offer(Prepared("b2")) == Verdict(queued=True, dropped=2)
        assert waiting(outbox) == ["a2", "b2"]
        assert outbox.statistics().waiting_bytes == 4

    def test_without_a_key_a_message_stays(self) -> None:
        outbox = full(Coalesce(lambda data: data[0] if data[0] != "-" else None), "-", "a", "-")
        assert outbox.offer(Prepared("a!")) == Verdict(queued=True, dropped=1)
        assert waiting(outbox) == ["-", "a!", "-"]

    def test_the_oldest_go_when_that_makes_no_room(self) -> None:
        outbox = full(Coalesce(lambda data: data), "a", "b", "c")
        assert outbox.offer(Prepared("d")) == Verdict(queued=True, dropped=1)
        assert waiting(outbox) == ["b", "c", "d"]

    def test_bytes_count_too(self) -> None:
        outbox = full(Coalesce(lambda data: data[0]), "aaaa", "bbbb")
        assert outbox.offer(Prepared("b" * 9)) == Verdict(queued=True, dropped=2)
        assert waiting(outbox) == ["b" * 9]
        assert outbox.offer(Prepared("c" * 10)) == Verdict(queued=True, dropped=1)
        assert waiting(outbox) == ["c" * 10]

    def test_in_an_old_place_it_may_be_the_oldest(self) -> None:
        outbox = full(Coalesce(lambda data: data[0]), "a", "bbbbbbbb")
        assert outbox.offer(Prepared("a" * 5)) == Verdict(queued=False, dropped=2)
        assert waiting(outbox) == ["bbbbbbbb"]

    def test_one_that_can_never_fit_goes_itself(self) -> None:
        outbox = full(Coalesce(lambda data: data[0]), "a")
        assert outbox.offer(Prepared("a" * 11)) == Verdict(queued=False, dropped=1)
        assert waiting(outbox) == ["a"]

    def test_a_message_is_asked_for_its_key_once(self) -> None:
        asked: list[str | bytes] = []

        def key(data: str | bytes) -> str:
            asked.append(data)
            return "same"

        policy, message = Coalesce(key), Prepared("x")
        for outbox in (full(policy, "a", capacity=1), full(policy, "b", capacity=1)):
            outbox.offer(message)
        assert asked == ["a", "x", "b"]


class TestBlock:
    @pytest.mark.parametrize("timeout", [5.0, None])
    def test_it_asks_for_time(self, timeout: float | None) -> None:
        outbox = full(Block(timeout), "a", capacity=1)
        assert outbox.offer(Prepared("b")) == Verdict(False, disconnect=SLOW, patience=timeout)

    def test_no_time_helps_what_can_never_fit(self) -> None:
        verdict = full(Block(None)).offer(Prepared("x" * 11))
        assert verdict == Verdict(queued=False, disconnect=SLOW, patience=0)


def test_a_key_is_a_function() -> None:
    no_function: Any = "symbol"
    with pytest.raises(TypeError, match="Expected a function that gives a message's key"):
        Coalesce(no_function)


def test_patience_is_not_negative() -> None:
    with pytest.raises(ValueError, match="Expected a timeout of at least 0, got -1"):
        Block(-1)
    assert Block(0).timeout == 0
