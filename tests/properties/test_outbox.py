"""The outbox against a model that is too simple to be wrong: a list."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hubbub import Block, Coalesce, Disconnect, DropNewest, DropOldest, MessageTooBig
from hubbub.outbox import QUEUED, Outbox, Policy, Ticket
from hubbub.prepared import Prepared

MESSAGES = st.one_of(st.text("abc", max_size=6), st.binary(max_size=12))


def size(data: str | bytes) -> int:
    return len(data.encode() if isinstance(data, str) else data)


def key(data: str | bytes) -> str | None:
    """Texts have their first character for a key, binary messages and empty ones have none."""
    return data[0] if isinstance(data, str) and data else None


COALESCE, BLOCK = Coalesce(key), Block(timeout=7)


class OutboxMachine(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from([Disconnect(), DropOldest(), DropNewest(), COALESCE, BLOCK]),
        capacity=st.integers(1, 5),
        max_bytes=st.integers(1, 30),
    )
    def start(self, policy: Policy, capacity: int, max_bytes: int) -> None:
        self.policy, self.capacity, self.max_bytes = policy, capacity, max_bytes
        self.outbox = Outbox(policy, capacity, max_bytes)
        self.model: list[str | bytes] = []
        self.line: list[tuple[str | bytes, Ticket]] = []
        self.offered = self.taken = self.refused = 0

    def fits(self, data: str | bytes) -> bool:
        return not self.line and self.has_room(data)

    def has_room(self, data: str | bytes) -> bool:
        waiting = sum(map(size, self.model))
        return len(self.model) < self.capacity and waiting + size(data) <= self.max_bytes

    @precondition(lambda self: not self.outbox.closed)
    @rule(data=MESSAGES)
    def offer(self, data: str | bytes) -> None:
        verdict = self.outbox.offer(Prepared(data))
        self.offered += 1
        if self.fits(data):
            assert verdict is QUEUED
            self.model.append(data)
        elif self.policy == BLOCK:
            assert verdict.disconnect == (1013, "slow consumer")
            assert verdict.patience == (7 if size(data) <= self.max_bytes else 0)
            if verdict.patience:
                self.line.append((data, self.outbox.stand_in_line(Prepared(data))))
                self.offered -= 1  # it is only on its way
            else:
                self.refused += 1
        elif self.policy == Disconnect():
            assert verdict.disconnect == (1013, "slow consumer")
            assert not verdict.queued
            self.refused += 1
        elif size(data) > self.max_bytes or self.policy == DropNewest():
            assert (verdict.queued, verdict.dropped) == (False, 1)
        elif self.policy == COALESCE:
            before = [*self.model, data]
            self.model = []
            for waiting in before:
                [*others] = (each for each in self.model if key(each) == key(waiting))
                if others and key(waiting) is not None:
                    self.model[self.model.index(others[0])] = waiting
                else:
                    self.model.append(waiting)
            while len(self.model) > self.capacity or sum(map(size, self.model)) > self.max_bytes:
                self.model.pop(0)
            assert verdict.dropped == len(before) - len(self.model)
        else:
            dropped = 0
            while not self.fits(data):
                self.model.pop(0)
                dropped += 1
            assert (verdict.queued, verdict.dropped) == (True, dropped)
            self.model.append(data)

    @rule(data=MESSAGES)
    def send_nowait(self, data: str | bytes) -> None:
        if self.outbox.closed:
            with pytest.raises(anyio.ClosedResourceError):
                self.outbox.send_nowait(Prepared(data))
        elif size(data) > self.max_bytes:
            with pytest.raises(MessageTooBig):
                self.outbox.send_nowait(Prepared(data))
        elif self.fits(data):
            self.outbox.send_nowait(Prepared(data))
            self.offered += 1
            self.model.append(data)
        else:
            with pytest.raises(anyio.WouldBlock):
                self.outbox.send_nowait(Prepared(data))

    @rule()
    def take(self) -> None:
        message = self.outbox.take()
        if self.model:
            assert message is not None
            assert message.data == self.model.pop(0)
            self.taken += 1
            self.admit()
        else:
            assert message is None

    def admit(self) -> None:
        while self.line and self.has_room(self.line[0][0]):
            data, ticket = self.line.pop(0)
            assert ticket.settled.is_set()
            assert ticket.admitted
            self.model.append(data)
            self.offered += 1

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.line) - 1))
        _, ticket = self.line.pop(place)
        for _ in range(2):
            self.outbox.withdraw(ticket)
        assert ticket.settled.is_set()
        assert not ticket.admitted
        self.offered += 1
        self.admit()

    @rule()
    def close(self) -> None:
        self.outbox.close()
        self.offered -= len(self.model)
        self.model.clear()
        assert not any(ticket.admitted for _, ticket in self.line)
        assert all(ticket.settled.is_set() for _, ticket in self.line)
        self.line.clear()

    @invariant()
    def it_is_as_full_as_the_model_and_never_fuller_than_its_bounds(self) -> None:
        now = self.outbox.statistics()
        assert now.waiting == len(self.model) == len(self.outbox) <= self.capacity
        assert now.waiting_bytes == sum(map(size, self.model)) <= self.max_bytes

    @invariant()
    def who_stands_in_line_waits(self) -> None:
        assert not any(ticket.settled.is_set() for _, ticket in self.line)

    @invariant()
    def nothing_is_lost_in_silence(self) -> None:
        waiting, dropped = len(self.outbox), self.outbox.dropped
        assert self.offered == self.taken + waiting + dropped + self.refused


TestOutbox = OutboxMachine.TestCase
