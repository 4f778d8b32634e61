from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from hubbub.calls import Calls
from hubbub.codecs.envelope import JSON, MSGPACK, Codec
from hubbub.exceptions import DecodeError, RouterError, WebSocketDisconnect
from hubbub.types import Data


class Wire:
    """What was sent, and what is answered."""

    def __init__(self, codec: Codec = JSON) -> None:
        self.codec = codec
        self.sent: list[Data] = []
        self.woken = 0
        self.blocked = False
        self.calls = Calls(self.send, codec, on_change=self.wake)

    async def send(self, data: Data) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(data)
        if self.blocked:
            await anyio.sleep_forever()

    def wake(self) -> None:
        self.woken += 1

    def answer(self, data: Data) -> bool:
        return self.calls.settle(self.codec.decode(data))

    async def asked(self, *answers: Data) -> Any:
        """Ask, and answer with the first of the answers that is one."""
        result: list[Any] = []

        async def ask() -> None:
            result.append(await self.calls.request("ask", {}, timeout=None))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await wait_all_tasks_blocked()
            accepted = [self.answer(answer) for answer in answers]
            assert accepted == [False] * (len(answers) - 1) + [True]
        assert not self.calls.needy
        return result[0]


async def test_the_answer_is_known_by_id_and_type() -> None:
    wire = Wire()
    right = '{"type": "ask.reply", "id": "call-1", "payload": [1]}'
    others = [right.replace("call-1", "call-2"), right.replace("ask", "other"), '{"type": "ask"}']
    others.append('{"type": "ask.reply"}')
    assert await wire.asked(*others, right) == [1]
    assert wire.sent == ['{"type":"ask","payload":{},"id":"call-1"}']
    assert wire.woken == 1
    assert not wire.answer(right)  # of which only the first counts


async def test_ids_are_never_used_again() -> None:
    wire = Wire()
    for number in range(1, 4):
        await wire.asked(f'{{"type": "ask.reply", "id": "call-{number}"}}')
    assert len(set(wire.sent)) == 3


async def test_without_a_payload_it_is_empty() -> None:
    assert await Wire().asked('{"type": "ask.reply", "id": "call-1"}') == {}


async def test_in_messagepack() -> None:
    wire = Wire(MSGPACK)
    assert await wire.asked(MSGPACK.encode("ask.reply", b"\xff", "call-1")) == b"\xff"


@pytest.mark.parametrize(
    ("payload", "code", "message", "details"),
    [
        ('{"code": "no"}', "no", "", []),
        ('{"code": "no", "message": "Never", "details": [5]}', "no", "Never", [5]),
    ],
)
async def test_an_error_is_raised(
    payload: str, code: str, message: str, details: list[Any]
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await Wire().asked(f'{{"type": "error", "id": "call-1", "payload": {payload}}}')
    [error] = caught.value.exceptions
    assert isinstance(error, RouterError)
    assert (error.code, error.message, error.details) == (code, message, details)


@pytest.mark.parametrize(
    "answer", ['"error", "payload": {"code": 5}', '"ask.reply", "payload": "\xff"']
)
async def test_an_answer_that_cannot_be_decoded(answer: str) -> None:
    data = f'{{"id": "call-1", "type": {answer}}}'.encode("latin-1")
    with pytest.raises(ExceptionGroup) as caught:
        await Wire().asked(data)
    assert isinstance(caught.value.exceptions[0], DecodeError)


@pytest.mark.parametrize("blocked", [True, False])
async def test_no_answer_in_time(blocked: bool) -> None:
    wire = Wire()
    wire.blocked = blocked
    with pytest.raises(
        TimeoutError, match="timeout: Expected an answer to 'ask' in time"
    ) as caught:
        await wire.calls.request("ask", {}, timeout=0.01)
    assert isinstance(caught.value, RouterError)
    assert caught.value.code == "timeout"
    assert not wire.calls.needy
    assert not wire.answer('{"type": "ask.reply", "id": "call-1"}')


async def test_one_that_is_cancelled_is_forgotten() -> None:
    wire = Wire()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(wire.calls.request, "ask", {}, timeout=None))
            await wait_all_tasks_blocked()
            assert wire.calls.needy
            scope.cancel()
    assert not wire.calls.needy
    assert not wire.answer('{"type": "ask.reply", "id": "call-1"}')


async def test_a_payload_that_cannot_be_encoded() -> None:
    wire = Wire()
    with pytest.raises(TypeError):
        await wire.calls.request("ask", object(), timeout=None)
    assert not wire.woken
    assert not wire.answer('{"type": "ask.reply", "id": "call-1"}')


async def test_the_end_ends_all() -> None:
    wire = Wire()
    ends: list[WebSocketDisconnect] = []

    async def ask() -> None:
        try:
            await wire.calls.request("ask", {}, timeout=None)
        except WebSocketDisconnect as end:
            ends.append(end)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await wait_all_tasks_blocked()
        assert wire.calls.needy
        wire.calls.end(4000, "bye")
    await ask()
    assert [(end.code, end.reason) for end in ends] == [(4000, "bye")] * 4
    assert len(wire.sent) == 3
    assert len({id(end) for end in ends}) == 4


def reply(payload: Any, *, more: bool = True, id: str = "call-1") -> Data:
    return JSON.encode("ask.reply", payload, id, more=more)


class TestStreams:
    async def test_replies_are_taken_one_by_one(self) -> None:
        wire = Wire()
        async with wire.calls.stream("ask", {}, timeout=None) as replies:
            assert wire.sent == ['{"type":"ask","payload":{},"id":"call-1"}']
            for number in range(3):
                assert wire.answer(reply(number))
            assert [await anext(replies), await anext(replies)] == [0, 1]
            assert wire.answer(reply(None))
            assert wire.answer(reply(None, more=False))
            assert not wire.answer(reply(5))
            assert [each async for each in replies] == [2, None]
            assert [each async for each in replies] == []

    async def test_they_are_waited_for(self) -> None:
        wire, taken = Wire(), list[Any]()

        async def take() -> None:
            async with wire.calls.stream("ask", {}, timeout=None) as replies:
                taken.extend([each async for each in replies])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            for number in range(3):
                await wait_all_tasks_blocked()
                assert wire.calls.needy
                wire.answer(reply(number))
            wire.answer(reply(None, more=False))
        assert taken == [0, 1, 2]
        assert not wire.calls.needy

    async def test_a_single_reply_is_one_too(self) -> None:
        wire = Wire()
        async with wire.calls.stream("ask", {}, timeout=None) as replies:
            wire.answer(reply(5, more=False))
            assert [each async for each in replies] == [5]

    async def test_a_request_takes_the_first(self) -> None:
        assert await Wire().asked(reply(1)) == 1

    async def test_an_error_ends_them(self) -> None:
        wire = Wire()
        async with wire.calls.stream("ask", {}, timeout=None) as replies:
            wire.answer(reply(1))
            wire.answer(JSON.encode_error(RouterError("liftoff"), "call-1"))
            assert await anext(replies) == 1
            with pytest.raises(RouterError, match="liftoff"):
                await anext(replies)
            assert [each async for each in replies] == []

    async def test_those_that_were_taken_before_the_end_of_the_connection(self) -> None:
        wire = Wire()
        async with wire.calls.stream("ask", {}, timeout=None) as replies:
            wire.answer(reply(1))
            wire.calls.end(4000, "bye")
            assert await anext(replies) == 1
            with pytest.raises(WebSocketDisconnect):
                await anext(replies)
        with pytest.raises(WebSocketDisconnect):
            async with wire.calls.stream("ask", {}, timeout=None):
                raise AssertionError

    async def test_each_has_to_come_in_time(self) -> None:
        wire = Wire()
        async with wire.calls.stream("ask", {}, timeout=0.2) as replies:
            wire.answer(reply(1))
            assert await anext(replies) == 1
            with pytest.raises(TimeoutError):
                await anext(replies)
            wire.answer(reply(2))  # late, and yet
            assert await anext(replies) == 2
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(replies)
        wire.blocked = True
        with pytest.raises(TimeoutError):
            async with wire.calls.stream("ask", {}, timeout=0.01):
                raise AssertionError

    async def test_those_that_nobody_takes_are_sixteen_at_most(self) -> None:
        wire = Wire()
        async with wire.calls.stream("ask", {}, timeout=None) as replies:
            for number in range(16):
                assert not wire.calls.full
                assert wire.answer(reply(number))
            assert wire.calls.full
            woken = wire.woken
            assert await anext(replies) == 0
            assert not wire.calls.full
            assert wire.woken == woken + 1
            assert wire.answer(reply(16))
            assert wire.answer(reply(17))  # is lost
            assert not wire.answer(reply(18))
            assert [await anext(replies) for _ in range(16)] == list(range(1, 17))
            with pytest.raises(RouterError, match="too_busy: Expected replies to 'ask'"):
                await anext(replies)

    async def test_their_end_is_not_one_too_many(self) -> None:
        wire = Wire()
        async with wire.calls.stream("ask", {}, timeout=None) as replies:
            for number in range(16):
                wire.answer(reply(number))
            wire.answer(reply(None, more=False))
            assert [each async for each in replies] == list(range(16))

    async def test_leaving_early_lets_the_reader_go_on(self) -> None:
        wire = Wire()
        async with wire.calls.stream("ask", {}, timeout=None):
            for number in range(16):
                wire.answer(reply(number))
            woken = wire.woken
        assert wire.woken == woken + 1
        assert not wire.calls.full
        assert not wire.answer(reply(16))

    async def test_two_tasks_may_take_them(self) -> None:
        wire, taken = Wire(), list[Any]()
        async with wire.calls.stream("ask", {}, timeout=None) as replies:

            async def take() -> None:
                taken.append(await anext(replies))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take)
                tasks.start_soon(take)
                await wait_all_tasks_blocked()
                wire.answer(reply(1))
                assert not wire.calls.needy  # until the other one says that it does
                await wait_all_tasks_blocked()
                assert wire.calls.needy
                wire.answer(reply(2))
        assert sorted(taken) == [1, 2]
