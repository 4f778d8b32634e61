"""A connection that a router serves: order, limits, faults, beginning and end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from hubbub import App, Hub, Member, Router, RouterError, WebSocket, WebSocketDisconnect
from hubbub.router import RateLimit
from hubbub.router.limits import TokenBuckets
from tests.peer import call, eventually
from tests.router.client import Client, connected


class Stage:
    """Handlers whose beginning is noted, and whose end a test decides."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.ended: list[Any] = []
        self._gates: dict[Any, anyio.Event] = {}

    async def perform(self, payload: Any) -> Any:
        self.started.append(payload)
        try:
            await self._gate(payload).wait()
        finally:
            self.ended.append(payload)
        return payload

    def let_go(self, *payloads: Any) -> None:
        for payload in payloads:
            self._gate(payload).set()

    def _gate(self, payload: Any) -> anyio.Event:
        return self._gates.setdefault(payload, anyio.Event())


def staged(**options: Any) -> tuple[Stage, Router]:
    stage, router = Stage(), Router(**options)
    router.on("do")(stage.perform)
    return stage, router


async def echo(payload: Any) -> Any:
    return payload


class TestModes:
    async def test_ordered_is_one_at_a_time_and_answers_in_order(self) -> None:
        stage, router = staged()
        async with connected(router) as client:
            for payload in "abc":
                client.tell_router("do", payload, id=payload)
            client.tell_router("other", id="d")
            stage.let_go("c", "b")
            await wait_all_tasks_blocked()
            assert stage.started == ["a"]
            assert not client.heard
            stage.let_go("a")
            await eventually(lambda: len(client.heard) == 4)
            assert [message["id"] for message in client.messages] == ["a", "b", "c", "d"]
        assert stage.started == ["a", "b", "c"]

    async def test_concurrent_is_all_at_once(self) -> None:
        stage, router = staged(mode="concurrent")
        async with connected(router) as client:
            for payload in "abc":
                client.tell_router("do", payload, id=payload)
            client.tell_router("other", id="d")
            await client.hear(1)
            assert sorted(stage.started) == ["a", "b", "c"]
            for payload in "cab":
                stage.let_go(payload)
                await wait_all_tasks_blocked()
            assert [message["id"] for message in client.messages] == ["d", "c", "a", "b"]

    async def test_keyed_is_ordered_by_key(self) -> None:
        stage, router = staged(mode="keyed", key=lambda payload: payload[0])
        async with connected(router) as client:
            for payload in ("a1", "b1", "a2", "b2"):
                client.tell_router("do", payload, id=payload)
            await wait_all_tasks_blocked()
            assert sorted(stage.started) == ["a1", "b1"]
            stage.let_go("b2", "b1")
            await wait_all_tasks_blocked()
            assert stage.started[2:] == ["b2"]
            stage.let_go("a1", "a2")
            await client.hear(4)

    async def test_a_handler_may_have_a_mode_of_its_own(self) -> None:
        stage, router = staged()
        router.on("now", mode="concurrent")(echo)
        router.on("next")(echo)
        async with connected(router) as client:
            client.tell_router("do", "a", id=1)
            client.tell_router("next", "b", id=2)
            client.tell_router("now", "c", id=3)
            await client.hear(1)
            stage.let_go("a")
            await client.hear(3)
        assert [message["id"] for message in client.messages] == [3, 1, 2]

    async def test_a_key_that_fails_is_our_fault(self, caplog: pytest.LogCaptureFixture) -> None:
        _, router = staged(mode="keyed", key=lambda payload: payload["room"])
        async with connected(router) as client:
            client.tell_router("do", "a", id=1)
            client.tell_router("do", {"room": []}, id=2)
            assert await client.hear_codes(2) == ["internal", "internal"]
        assert len(caplog.records) == 2


class TestTheBound:
    @pytest.mark.parametrize("mode", ["ordered", "concurrent"])
    async def test_at_it_nothing_more_is_read(self, mode: str) -> None:
        stage, router = staged(mode=mode, max_running=3)
        client = Client()
        async with connected(router, client):
            for payload in range(50):
                client.tell_router("do", payload, id=payload)
            await wait_all_tasks_blocked()
            assert len(stage.started) == (1 if mode == "ordered" else 3)
            # The three, and what the connection has read ahead.
            assert client.receives < 25
            stage.let_go(*range(50))
            await eventually(lambda: len(client.heard) == 50)

    async def test_or_what_is_more_is_refused(self) -> None:
        stage, router = staged(max_running=2, refuse_when_busy=True)
        async with connected(router) as client:
            for payload in range(50):
                client.tell_router("do", payload, id=payload)
            assert set(await client.hear_codes(48)) == {"too_busy"}
            assert [message["id"] for message in client.messages] == list(range(2, 50))
            stage.let_go(0, 1)
            await client.hear(50)
            assert client.closed_with is None

    async def test_answers_are_read_all_the_same(self) -> None:
        router = Router(max_running=2)

        @router.on("greet")
        async def greet(ws: WebSocket) -> str:
            return f"hello {await ws.request('name', {})}"

        async with connected(router) as client:
            client.tell_router("greet", id="a")
            await client.hear(1)
            for id in "bcd":
                client.tell_router("greet", id=id)
            assert await client.hear_codes(3) == ["name", "too_busy", "too_busy"]
            client.tell_router("name.reply", "ann", id="call-1")
            await client.hear(5)
            client.tell_router("name.reply", "bob", id="call-2")
            assert [message.get("payload") for message in (await client.hear(6))[3:]] == [
                *("hello ann", {}, "hello bob")
            ]

    async def test_a_call_wakes_the_reader_that_stands_at_the_bound(self) -> None:
        router, ask = Router(max_running=1), anyio.Event()

        @router.on("greet")
        async def greet(ws: WebSocket) -> Any:
            await ask.wait()
            return await ws.request("name", {})

        async with connected(router) as client:
            client.tell_router("greet", id=1)
            client.tell_router("greet", id=2)
            await wait_all_tasks_blocked()
            assert not client.heard
            ask.set()
            assert await client.hear_codes(2) == ["name", "too_busy"]
            client.tell_router("name.reply", "ann", id="call-1")
            assert (await client.hear(3))[-1]["payload"] == "ann"

    async def test_replies_that_are_never_read(self) -> None:
        router = Router(max_running=4)
        router.on("echo")(echo)
        router.on("now", mode="concurrent")(echo)
        client = Client()
        async with connected(router, client):
            await wait_all_tasks_blocked()
            client.stop_reading()
            for number in range(500):
                client.tell_router("now" if number % 2 else "echo", "x", id=number)
                client.say("what?")
            await wait_all_tasks_blocked()
            assert client.receives < 50
            client.read_on()
            await eventually(lambda: client.closed_with or len(client.heard) == 1000)

    async def test_it_is_sixteen_unless_somebody_says_otherwise(self) -> None:
        stage, router = staged(mode="concurrent")
        async with connected(router) as client:
            for payload in range(17):
                client.tell_router("do", payload)
            await wait_all_tasks_blocked()
            assert sorted(stage.started) == list(range(16))
            stage.let_go(*range(17))
            await client.hear(17)
            for _ in range(17):
                client.say("what?")
            await eventually(lambda: client.closed_with)
            assert len(client.heard) == 17 + 16


class TestTimeouts:
    async def test_a_handler_that_hangs_is_cancelled(self) -> None:
        stage, router = staged(timeout=0.01)
        router.on("patient", timeout=None)(stage.perform)
        async with connected(router) as client:
            client.tell_router("do", "a", id=1)
            assert await client.hear_codes(1) == ["timeout"]
            assert client.messages[0]["payload"]["message"] == "Expected to be done in 0.01 s"
            assert stage.ended == ["a"]
            client.tell_router("patient", "b", id=2)
            await eventually(lambda: stage.started == ["a", "b"])
            stage.let_go("b")
            assert await client.hear_codes(2) == ["timeout", "patient.reply"]

    async def test_it_is_late_by_an_eighth_at_most(self, virtual_clock: None) -> None:
        router, took = Router(timeout=80.0), list[float]()

        @router.on("hang")
        async def hang() -> None:
            began = anyio.current_time()
            try:
                await anyio.sleep_forever()
            finally:
                took.append(anyio.current_time() - began)

        async with connected(router) as client:
            for pause in (0, 1, 3, 7):
                await anyio.sleep(pause)
                client.tell_router("hang", id=pause)
                await anyio.sleep(200)
            assert [message["payload"]["code"] for message in client.messages] == ["timeout"] * 4
        assert all(80 <= seconds <= 90 for seconds in took)


class TestBadMessages:
    @pytest.mark.parametrize(
        ("message", "code"),
        [
            ("what?", "bad_json"),
            ("", "bad_json"),
            (b"\xff", "bad_json"),
            ('{"type": "echo"', "bad_json"),
            ('{"type": 5, "id": 7', "bad_json"),
            ('{"type": "echo", "payload": %s}' % ("[" * 100_000), "bad_json"),
            ("5 5", "bad_json"),
            (b'"\xff"', "bad_json"),
            ("5", "bad_envelope"),
            ("[]", "bad_envelope"),
            ("{}", "bad_envelope"),
            ('{"type": ""}', "bad_envelope"),
            ('{"type": 5}', "bad_envelope"),
            ('{"type": "%s"}' % ("x" * 129), "bad_envelope"),
            ('{"type": "echo", "id": {}}', "bad_envelope"),
            ('{"type": "echo", "id": 1.5}', "bad_envelope"),
            ('{"type": "echo", "id": 9007199254740992}', "bad_envelope"),
            ('{"type": "echo", "id": "%s"}' % ("x" * 129), "bad_envelope"),
            ('{"type": "other"}', "unknown_type"),
            ('{"type": "%s"}' % ("x" * 128), "unknown_type"),
        ],
    )
    async def test_are_answered_and_do_no_harm(self, message: Any, code: str) -> None:
        router = Router()
        router.on("echo")(echo)
        async with connected(router) as client:
            client.say(message)
            client.tell_router("echo", 1)
            assert await client.hear_codes(2) == [code, "echo.reply"]
            assert set(client.messages[0]) == {"type", "payload"}
            assert set(client.messages[0]["payload"]) == {"code", "message", "details"}
        assert max(map(len, client.heard)) < 1000

    async def test_their_id_comes_back(self) -> None:
        async with connected(Router()) as client:
            client.say('{"type": 5, "id": 7}')
            client.say('{"type": "other", "id": "x"}')
            assert [message["id"] for message in await client.hear(2)] == [7, "x"]

    async def test_too_many_in_a_row(self) -> None:
        router = Router(max_bad_messages=3)
        router.on("echo")(echo)
        async with connected(router) as client:
            for _ in range(3):
                client.say("what?")
                client.tell_router("other")
                client.tell_router("echo", 1)
            await client.hear(9)
            assert client.closed_with is None
            for _ in range(10):
                client.tell_router("other")
            await eventually(lambda: client.closed_with)
        assert client.closed_with == (1008, "too many bad messages")
        assert len(client.heard) == 12

    async def test_or_any_number(self) -> None:
        async with connected(Router(max_bad_messages=None)) as client:
            for _ in range(100):
                client.say("what?")
            await client.hear(100)

    async def test_an_answer_is_a_good_message(self) -> None:
        router = Router(max_bad_messages=2)

        @router.on("greet")
        async def greet(ws: WebSocket) -> Any:
            return await ws.request("name", {})

        async with connected(router) as client:
            client.tell_router("greet", id=1)
            await client.hear(1)
            client.tell_router("other")
            client.tell_router("name.reply", "ann", id="call-1")
            client.tell_router("other")
            await client.hear(4)
            assert client.closed_with is None

    async def test_what_is_our_fault_is_none(self, caplog: pytest.LogCaptureFixture) -> None:
        router = Router(max_bad_messages=1, mode="keyed", key=lambda payload: payload["room"])
        router.on("echo")(echo)
        async with connected(router) as client:
            for _ in range(3):
                client.tell_router("echo", "a")
            assert await client.hear_codes(3) == ["internal"] * 3
            assert client.closed_with is None
        assert len(caplog.records) == 3

    async def test_answers_that_nobody_waits_for_are_none(self) -> None:
        async with connected(Router(max_bad_messages=1)) as client:
            client.tell_router("error", {"code": "no"}, id="call-1")
            client.tell_router("name.reply", "ann", id="call-1")
            client.tell_router("name.reply", "ann")
            await wait_all_tasks_blocked()
            assert not client.heard
            assert client.closed_with is None


class TestRateLimit:
    @pytest.mark.parametrize(
        ("rate", "passed"),
        [
            (RateLimit(messages=0.001, burst=3000), 3),
            (RateLimit(messages=0.001), 1),
            (RateLimit(bytes=0.001), 1),
            (RateLimit(bytes=0.001, burst=10_000), 1),
            (RateLimit(bytes=0.001, burst=50_000), 2),
            (RateLimit(messages=0.001, bytes=1_000_000, burst=2000), 2),
        ],
    )
    async def test_refuses_what_is_more(self, rate: RateLimit, passed: int) -> None:
        router = Router(rate=rate)
        router.on("echo")(echo)
        async with connected(router) as client:
            for id in range(10, 15):
                client.tell_router("echo", 1, id=id)  # 36 bytes
            codes = await client.hear_codes(5)
            assert codes == ["echo.reply"] * passed + ["rate_limited"] * (5 - passed)
            assert [message["id"] for message in client.messages] == [10, 11, 12, 13, 14]

    async def test_tokens_come_back(self) -> None:
        router = Router(rate=RateLimit(messages=1000, burst=0.001), max_bad_messages=None)
        router.on("echo")(echo)
        async with connected(router) as client:
            with anyio.fail_after(30):
                while [m["type"] for m in client.messages].count("echo.reply") < 3:
                    client.tell_router("echo", 1)
                    await anyio.sleep(0.002)

    def test_messages_are_counted_by_the_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr(anyio, "current_time", lambda: now)
        buckets = TokenBuckets(RateLimit(messages=2, burst=2))
        assert [buckets.take(1) for _ in range(5)] == [True] * 4 + [False]
        taken = []
        for step in range(1, 11):
            now = 100.0 + step / 8
            taken.append(buckets.take(1))
        assert taken == [False] * 3 + [True] + [False] * 3 + [True] + [False] * 2
        now = 1000.0
        assert [buckets.take(1) for _ in range(5)] == [True] * 4 + [False]

    def test_a_large_message_is_paid_for_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr(anyio, "current_time", lambda: now)
        buckets = TokenBuckets(RateLimit(bytes=10))
        assert buckets.take(110)
        now = 110.0
        assert not buckets.take(1)
        now = 110.5
        assert buckets.take(1)

    async def test_answers_pass(self) -> None:
        router = Router(rate=RateLimit(messages=0.001))

        @router.on("greet")
        async def greet(ws: WebSocket) -> Any:
            return await ws.request("name", {})

        async with connected(router) as client:
            client.tell_router("greet", id=1)
            await client.hear(1)
            client.tell_router("name.reply", "ann", id="call-9")
            client.tell_router("name.reply", "ann", id="call-1")
            assert await client.hear_codes(3) == ["name", "greet.reply", "rate_limited"]

    @pytest.mark.parametrize("rate", [{"messages": 0}, {"bytes": -1}, {"burst": 0}])
    def test_lets_something_through(self, rate: Any) -> None:
        with pytest.raises(ValueError, match=f"Expected {next(iter(rate))} above 0"):
            RateLimit(**rate)


class TestRequests:
    """The server asks the client."""

    async def test_the_end_of_the_connection_ends_all_waiting(self) -> None:
        router = Router(mode="concurrent")
        ends: list[WebSocketDisconnect] = []

        @router.on("greet")
        async def greet(ws: WebSocket) -> None:
            for _ in range(2):
                try:
                    await ws.request("name", {}, timeout=None)
                except WebSocketDisconnect as end:
                    ends.append(end)

        async with connected(router) as client:
            for _ in range(3):
                client.tell_router("greet")
            await client.hear(3)
            client.leave(4000, "bye")
        assert [(end.code, end.reason) for end in ends] == [(4000, "bye")] * 6

    async def test_a_handler_that_closes_ends_them_too(self) -> None:
        router = Router(mode="concurrent")
        ended = anyio.Event()

        @router.on("ask")
        async def ask(ws: WebSocket) -> None:
            with pytest.raises(WebSocketDisconnect):
                await ws.request("name", {}, timeout=None)
            ended.set()

        @router.on("close")
        async def close(ws: WebSocket) -> str:
            await ws.close(4001)
            return "not sent"

        async with connected(router) as client:
            client.tell_router("ask")
            client.tell_router("close")
            with anyio.fail_after(5):
                await ended.wait()
        assert client.closed_with == (4001, "")
        assert [message["type"] for message in client.messages] == ["name"]

    async def test_no_answer_in_time_is_told_to_who_does_not_answer(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        router = Router()

        @router.on("greet")
        async def greet(ws: WebSocket) -> Any:
            return await ws.request("name", {}, timeout=0.5)  # ample to send it in

        async with connected(router) as client:
            client.tell_router("greet", id=1)
            assert await client.hear_codes(2) == ["name", "timeout"]
            assert client.messages[1]["id"] == 1
        assert not caplog.records

    async def test_from_outside_of_a_handler(self) -> None:
        router = Router()
        there: list[WebSocket] = []

        @router.on_connect
        async def note(ws: WebSocket) -> None:
            with pytest.raises(RuntimeError, match="no router serves this connection"):
                await ws.request("name", {})
            there.append(ws)

        async with connected(router) as client:
            await wait_all_tasks_blocked()
            answers: list[Any] = []

            async def ask() -> None:
                answers.append(await there[0].request("name", {"who": "you"}))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                [asked] = await client.hear(1)
                assert asked == {"type": "name", "payload": {"who": "you"}, "id": "call-1"}
                client.tell_router("name.reply", "ann", id="call-1")
            assert answers == ["ann"]
        with pytest.raises(WebSocketDisconnect):
            await there[0].request("name", {})


class TestTheEnd:
    async def test_handlers_go_on_for_a_while(self) -> None:
        stage, router = staged(grace=5.0)
        async with connected(router) as client:
            client.tell_router("do", "a", id=1)
            client.tell_router("do", "b", id=2)
            await eventually(lambda: stage.started == ["a"])
            client.leave()
            await wait_all_tasks_blocked()
            assert stage.ended == []
            stage.let_go("a", "b")
        assert stage.started == stage.ended == ["a", "b"]
        assert not client.heard

    async def test_and_are_cancelled_then(self) -> None:
        router = Router(grace=0.01, mode="concurrent", timeout=None)
        cleaned_up: list[str] = []

        @router.on("hang")
        async def hang(payload: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.move_on_after(5, shield=True):
                    await anyio.lowlevel.checkpoint()
                    cleaned_up.append(payload)

        async with connected(router) as client:
            client.tell_router("hang", "a")
            client.tell_router("hang", "b")
            await wait_all_tasks_blocked()
        assert sorted(cleaned_up) == ["a", "b"]

    async def test_a_server_that_stops_cancels_them_at_once(self) -> None:
        stage, router = staged(grace=60.0)
        goodbyes: list[Any] = []

        @router.on_disconnect
        async def goodbye(ws: WebSocket) -> None:
            await anyio.lowlevel.checkpoint()
            goodbyes.append(ws.close_code)

        client = Client()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, App({"/": router}), client)
                client.tell_router("do", "a")
                await eventually(lambda: stage.started == ["a"])
                tasks.cancel_scope.cancel()
        assert stage.ended == ["a"]
        assert client.closed_with == (1001, "")
        assert goodbyes == [1001]

    async def test_a_send_to_a_peer_that_left_is_no_failure(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        router = Router()

        @router.on("say")
        async def say(ws: WebSocket) -> None:
            while True:
                await ws.send("news")

        async with connected(router) as client:
            client.tell_router("say", id=1)
            await eventually(lambda: len(client.heard) > 3)
        assert not caplog.records

    async def test_a_failure_after_the_end_is_one(self, caplog: pytest.LogCaptureFixture) -> None:
        router = Router()

        @router.on("leave")
        async def leave(ws: WebSocket) -> None:
            await ws.close()
            raise KeyError("mine")

        async with connected(router) as client:
            client.tell_router("leave", id=1)
        assert [record.getMessage() for record in caplog.records] == [
            "The handler of 'leave' failed"
        ]
        assert not client.heard

    async def test_a_reply_to_a_peer_that_is_gone_is_dropped(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage, router = staged()
        async with connected(router) as client:
            client.tell_router("do", "a", id=1)
            await wait_all_tasks_blocked()
            client.send_error = ConnectionResetError()
            stage.let_go("a")
            await wait_all_tasks_blocked()
        assert not caplog.records

    async def test_a_handler_that_closes_while_another_replies(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        router = Router(mode="concurrent")
        router.on("echo")(echo)

        @router.on("close")
        async def close(ws: WebSocket) -> None:
            await ws.close()

        async with connected(router) as client:
            await wait_all_tasks_blocked()
            client.stop_reading()
            client.tell_router("echo", "a")  # is being sent
            await wait_all_tasks_blocked()
            client.tell_router("echo", "b")  # waits for its turn
            await wait_all_tasks_blocked()
            client.tell_router("close")
            await wait_all_tasks_blocked()
            client.read_on()
            await eventually(lambda: client.closed_with)
        assert [message["payload"] for message in client.messages] == ["a"]
        assert not caplog.records

    async def test_a_reply_that_the_server_cannot_send(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        router = Router()
        router.on("echo")(echo)
        client = Client()
        async with connected(router, client):
            await wait_all_tasks_blocked()
            client.send_error = RuntimeError("the server is broken")
            client.tell_router("echo", "a", id=1)
            await eventually(lambda: len(caplog.records) == 2)
        assert "the server is broken" in caplog.text


class TestHooks:
    async def test_on_connect_may_reject(self) -> None:
        router, called = Router(), list[str]()

        @router.on_connect
        async def authenticate(ws: WebSocket) -> None:
            await ws.reject(401)

        @router.on_connect
        async def greet(ws: WebSocket) -> None:
            called.append("greet")

        @router.on_disconnect
        async def goodbye(ws: WebSocket) -> None:
            called.append("goodbye")

        async with connected(router) as client:
            pass
        assert client.sent[0]["status"] == 401
        assert not called

    @pytest.mark.parametrize("accepted", [True, False])
    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (RouterError("forbidden", "Log in first"), "Log in first"),
            (RouterError("forbidden"), "forbidden"),
            (RouterError("forbidden", "é" * 100), "é" * 61),
        ],
    )
    async def test_or_close_with_a_reason(
        self, error: RouterError, reason: str, accepted: bool
    ) -> None:
        router = Router()

        @router.on_connect
        async def authenticate(ws: WebSocket) -> None:
            if accepted:
                await ws.accept()
            raise error

        async with connected(router) as client:
            pass
        assert [message["type"] for message in client.sent] == [
            "websocket.accept",
            "websocket.close",
        ]
        assert client.closed_with == (1008, reason)

    async def test_or_accept_and_go_on(self) -> None:
        router = Router()
        router.on("echo")(echo)

        @router.on_connect
        async def accept(ws: WebSocket) -> None:
            await ws.accept("hubbub.msgpack", {"x-hello": "1"})

        client = Client(msgpack=True, subprotocols=["hubbub.json", "hubbub.msgpack"])
        async with connected(router, client):
            client.tell_router("echo", 1)
            assert await client.hear_payloads(1) == [1]

    async def test_one_that_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        router = Router()

        @router.on_connect
        async def fail(ws: WebSocket) -> None:
            raise KeyError("mine")

        async with connected(router) as client:
            pass
        assert client.sent[0]["status"] == 500
        assert len(caplog.records) == 1

    async def test_on_disconnect_comes_after_the_end(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        router, ends = Router(), []

        @router.on_disconnect
        async def fail(ws: WebSocket) -> None:
            raise KeyError("mine")

        @router.on_disconnect
        async def note(ws: WebSocket) -> None:
            ends.append((ws.close_code, ws.close_reason))

        async with connected(router) as client:
            client.leave(4000, "bye")
        assert ends == [(4000, "bye")]
        assert [record.getMessage() for record in caplog.records] == ["on_disconnect failed"]

    async def test_one_that_hangs_has_its_time(self) -> None:
        router, cancelled = Router(grace=0.01), anyio.Event()

        @router.on_disconnect
        async def hang(ws: WebSocket) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.set()

        with anyio.fail_after(5):
            async with connected(router):
                pass
        assert cancelled.is_set()

    async def test_a_member_that_is_disconnected_while_it_says_something(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        hub = Hub()
        router = Router(join=lambda ws: hub.join("lobby", ws))

        @router.on("say")
        async def say(member: Member) -> None:
            member.expel(4000, "out")
            await member.send("more")

        async with hub, connected(router) as client:
            client.tell_router("say", id=1)
            await eventually(lambda: client.closed_with)
        assert client.closed_with == (4000, "out")
        assert not client.heard
        assert not caplog.records

    async def test_a_member_that_could_not_keep_up(self, caplog: pytest.LogCaptureFixture) -> None:
        hub = Hub()
        router = Router(join=lambda ws: hub.join("lobby", ws, capacity=1), timeout=None)

        @router.on("flood")
        async def flood() -> None:
            for _ in range(5):
                await hub.broadcast("lobby", '"news"')

        async with hub, connected(router) as client:
            await wait_all_tasks_blocked()
            client.stop_reading()
            client.tell_router("flood", id=1)
            await wait_all_tasks_blocked()
            client.read_on()
            await eventually(lambda: client.closed_with)
        assert client.closed_with == (1013, "slow consumer")
        assert not caplog.records


async def test_many_connections_share_one_router() -> None:
    _, router = staged()
    router.on("echo")(echo)
    clients = [Client() for _ in range(20)]

    async with connected(router, *clients):
        for number, client in enumerate(clients):
            client.tell_router("echo", number)
        for number, client in enumerate(clients):
            assert await client.hear_payloads(1) == [number]
