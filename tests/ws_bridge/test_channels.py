"""The form and the order of ASGI's events, with the rest of the server left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from hubbub.ws_bridge import create_ws_receive, create_ws_send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubbub.types import Data

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
SEND = {"type": "websocket.send", "text": "hi"}
START = {"type": "websocket.http.response.start", "status": 401}
BODY = {"type": "websocket.http.response.body"}


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def _note(self, *call: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(call)

    async def accept(self, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._note("accept", subprotocol, headers)

    async def send(self, data: Data) -> None:
        self._note("send", data)

    async def close(self, code: int, reason: str) -> None:
        self._note("close", code, reason)

    async def start_response(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._note("start", status, headers)

    async def send_body(self, data: bytes, *, more: bool) -> None:
        self._note("body", data, more)


async def test_the_order_of_what_is_received() -> None:
    feed, events = anyio.create_memory_object_stream[Any](4)
    receive = create_ws_receive(events)
    message = {"type": "websocket.receive", "text": "hi"}
    end = {"type": "websocket.disconnect", "code": 1001, "reason": "away"}
    for event in (message, end, message):
        feed.send_nowait(event)
    assert await receive() == {"type": "websocket.connect"}
    assert await receive() == message
    for _ in range(3):
        assert await receive() == end
    feed.close()
    events.close()


async def test_a_stream_that_ends_is_a_lost_connection() -> None:
    feed, events = anyio.create_memory_object_stream[Any](4)
    receive = create_ws_receive(events)
    feed.close()
    await receive()
    for _ in range(2):
        assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    events.close()


@pytest.mark.parametrize(
    ("messages", "calls"),
    [
        (
            [{**ACCEPT, "subprotocol": "a", "headers": [(b"x", b"y")]}, SEND, CLOSE],
            [("accept", "a", [(b"x", b"y")]), ("send", "hi"), ("close", 1000, "")],
        ),
        (
            [{**ACCEPT, "headers": None, "more": 1}, {**CLOSE, "code": 3000, "reason": None}],
            [("accept", None, []), ("close", 3000, "")],
        ),
        (
            [ACCEPT, {**SEND, "bytes": None}, {**SEND, "text": None, "bytes": b""}],
            [("accept", None, []), ("send", "hi"), ("send", b"")],
        ),
        (
            [ACCEPT, {"type": "websocket.send", "bytes": memoryview(b"m")}],
            [("accept", None, []), ("send", b"m")],
        ),
        (
            [START, {**BODY, "body": b"1", "more_body": True}, BODY],
            [("start", 401, []), ("body", b"1", True), ("body", b"", False)],
        ),
    ],
)
async def test_what_is_carried_out(messages: list[Any], calls: list[Any]) -> None:
    recorder = Recorder()
    send = create_ws_send(recorder, ["a"])
    for message in messages:
        await send(message)
    assert recorder.calls == calls


async def test_a_close_before_the_answer_is_a_refusal() -> None:
    recorder = Recorder()
    await create_ws_send(recorder)(CLOSE)
    assert [call[:2] for call in recorder.calls] == [("start", 403), ("body", b"Forbidden\n")]


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ([], SEND),
        ([], BODY),
        ([], {"type": "http.response.start"}),
        ([ACCEPT], ACCEPT),
        ([ACCEPT], START),
        ([ACCEPT, CLOSE], CLOSE),
        ([ACCEPT, CLOSE], SEND),
        ([CLOSE], ACCEPT),
        ([START], CLOSE),
        ([START], START),
        ([START, BODY], BODY),
    ],
)
async def test_the_wrong_order(before: list[Any], wrong: Any) -> None:
    recorder = Recorder()
    send = create_ws_send(recorder)
    for message in before:
        await send(message)
    calls = list(recorder.calls)
    with pytest.raises(RuntimeError, match=f"Expected .*, got '{wrong['type']}'"):
        await send(wrong)
    assert recorder.calls == calls


@pytest.mark.parametrize(
    ("before", "wrong", "right", "error"),
    [
        ([], {**ACCEPT, "subprotocol": "z"}, ACCEPT, ValueError),
        ([], {**ACCEPT, "headers": [(b"sec-websocket-protocol", b"a")]}, ACCEPT, ValueError),
        ([], {**ACCEPT, "headers": [(b":status", b"200")]}, ACCEPT, ValueError),
        ([], {**ACCEPT, "headers": [("x", "y")]}, ACCEPT, TypeError),
        ([], {**START, "status": "401\r\n"}, START, ValueError),
        ([], {**START, "status": 101}, START, ValueError),
        ([START], {**BODY, "body": "text"}, BODY, TypeError),
        ([ACCEPT], {**SEND, "bytes": b"too"}, SEND, ValueError),
        ([ACCEPT], {"type": "websocket.send"}, SEND, ValueError),
        ([ACCEPT], {**SEND, "text": b"bytes"}, SEND, TypeError),
        ([ACCEPT], {"type": "websocket.send", "bytes": "text"}, SEND, TypeError),
        ([ACCEPT], {"type": "websocket.send", "bytes": 5}, SEND, TypeError),
        ([ACCEPT], {**CLOSE, "code": 1006}, CLOSE, ValueError),
        ([ACCEPT], {**CLOSE, "reason": "é" * 62}, CLOSE, ValueError),
    ],
)
async def test_the_wrong_form_leaves_all_as_it_was(
    before: list[Any], wrong: Any, right: Any, error: type[Exception]
) -> None:
    recorder = Recorder()
    send = create_ws_send(recorder, ["a"])
    for message in before:
        await send(message)
    calls = list(recorder.calls)
    with pytest.raises(error):
        await send(wrong)
    assert recorder.calls == calls
    await send(right)
    assert len(recorder.calls) == len(calls) + 1


async def test_an_answer_that_fails_may_be_given_again() -> None:
    recorder = Recorder()
    send = create_ws_send(recorder)
    recorder.error = ValueError("a bad header")
    for message in (ACCEPT, START):
        with pytest.raises(ValueError, match="a bad header"):
            await send(message)
    recorder.error = None
    await send(ACCEPT)
