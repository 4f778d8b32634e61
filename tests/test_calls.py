from __future__ import annotations

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
        self.calls = Calls(self.send, codec, on_wait=self.wake)

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
        assert len(self.calls) == 0
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
    assert len(wire.calls) == 0
    assert not wire.answer('{"type": "ask.reply", "id": "call-1"}')


async def test_a_payload_that_cannot_be_encoded() -> None:
    wire = Wire()
    with pytest.raises(TypeError):
        await wire.calls.request("ask", object(), timeout=None)
    assert len(wire.calls) == wire.woken == 0


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
        assert len(wire.calls) == 3
        wire.calls.end(4000, "bye")
    await ask()
    assert [(end.code, end.reason) for end in ends] == [(4000, "bye")] * 4
    assert len(wire.sent) == 3
    assert len({id(end) for end in ends}) == 4
