"""What each fact about a server makes of a connection; whether it is one, tests/servers knows."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from hubbub import App, WebSocket, WebSocketDisconnect
from hubbub.exceptions import ClientDisconnected
from hubbub.testing import PROFILES, Profile, Rejected, TestClient
from hubbub.types import Message, Receive, Scope, Send


class Application:
    """A raw ASGI application: it sends events, then receives until told to stop."""

    def __init__(self, *answers: dict[str, Any], receives: int = 0) -> None:
        self.answers = answers or ({"type": "websocket.accept"},)
        self.receives = receives
        self.scope: Scope = {}
        self.events: list[Message] = []
        self.errors: list[Exception] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        self.scope = scope
        await receive()
        for answer in self.answers:
            try:
                await send(answer)
            except Exception as error:
                self.errors.append(error)
        for _ in range(self.receives):
            self.events.append(await receive())


ACCEPT = {"type": "websocket.accept", "headers": [(b"x", b"y")]}


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": data}


def close(code: int = 1000, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.close", "code": code, "reason": reason}


def client_of(app: Any, **facts: Any) -> TestClient:
    return TestClient(app, server=Profile(name="facts", **facts))


def test_names() -> None:
    assert all(profile.name == name for name, profile in PROFILES.items())
    assert PROFILES["asgi"] == Profile(name="asgi")


# -- The scope --------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.3", None])
async def test_spec_version(version: str | None) -> None:
    app = Application()
    async with client_of(app, spec_version=version) as client, client.connect("/"):
        pass
    assert app.scope["asgi"].get("spec_version") == version


async def test_joined_headers() -> None:
    app = Application()
    headers = [("a", "1"), ("A", "2"), ("b", "3")]
    async with client_of(app, joins_headers=True) as client, client.connect("/", headers=headers):
        pass
    assert {(b"a", b"1,2"), (b"b", b"3")} <= set(app.scope["headers"])


async def test_without_a_lifespan() -> None:
    async def lifespan_only(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError(scope)

    async with client_of(lifespan_only, lifespan=False):
        pass


# -- Messages ---------------------------------------------------------------------------


async def test_both_keys() -> None:
    app = Application(receives=1)
    async with client_of(app, both_keys=True) as client, client.connect("/") as ws:
        await ws.send("hi")
    assert app.events == [{"type": "websocket.receive", "text": "hi", "bytes": None}]


async def test_empty_messages_are_not_sent() -> None:
    app = Application(ACCEPT, text(""), {"type": "websocket.send", "bytes": b""}, text("full"))
    async with client_of(app, empty_messages=False) as client, client.connect("/") as ws:
        assert await ws.receive() == "full"


async def test_accept_headers_are_not_sent() -> None:
    async with client_of(Application(ACCEPT)) as client, client.connect("/") as ws:
        assert ws.headers == {"x": "y"}
    async with (
        client_of(Application(ACCEPT), accept_headers=False) as client,
        client.connect("/") as ws,
    ):
        assert not ws.headers


# -- The end ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "code", "told"),
    [
        ({}, 4321, (4321, "why")),
        ({"tells_code": False, "abort_code": 1006}, 4321, (1006, "why")),
        ({"tells_reason": False}, 4321, (4321, None)),
        ({"no_code": None}, None, (None, "why")),
    ],
)
async def test_what_a_close_is_told_as(
    facts: dict[str, Any], code: int | None, told: tuple[int | None, str | None]
) -> None:
    app = Application(receives=1)
    async with client_of(app, **facts) as client, client.connect("/") as ws:
        await ws.close(code, "why")
    [event] = app.events
    assert (event["code"], event.get("reason")) == told


async def test_what_a_lost_connection_is_told_as() -> None:
    app = Application(receives=1)
    async with client_of(app, abort_code=1005) as client, client.connect("/") as ws:
        ws.abort()
    assert app.events[0]["code"] == 1005


@pytest.mark.parametrize(
    ("second", "codes"), [("same", [4321, 4321, 4321]), ("no status", [4321, 1005, 1005])]
)
async def test_the_second_receive(second: Any, codes: list[int]) -> None:
    app = Application(receives=3)
    async with client_of(app, second_receive=second) as client, client.connect("/") as ws:
        await ws.close(4321)
    assert [event["code"] for event in app.events] == codes


@pytest.mark.parametrize("facts", [{"second_receive": "blocks"}, {"blocks_after_abort": True}])
async def test_the_second_receive_blocks(facts: dict[str, Any]) -> None:
    app = Application(receives=2)
    async with client_of(app, **facts) as client:
        with pytest.raises(TimeoutError, match=r"No return of the application.*\n.*receive\(\)"):
            async with client.connect("/") as ws:
                ws.abort()
                await anyio.wait_all_tasks_blocked()
                ws.timeout = 0.05
    assert [event["code"] for event in app.events] == [1006]


@pytest.mark.parametrize(("own", "told"), [(None, 4009), (1000, 1000)])
async def test_what_an_own_close_is_told_as(own: int | None, told: int) -> None:
    app = Application(ACCEPT, close(4009), receives=1)
    async with client_of(app, own_code=own) as client, client.connect("/") as ws:
        await ws.expect_close(4009)
    assert app.events[0]["code"] == told


@pytest.mark.parametrize("code", [1005, 1006])
async def test_what_a_refusal_is_told_as(code: int) -> None:
    app = Application(close(4000), receives=1)
    async with client_of(app, own_code=1000, refusal_code=code) as client:
        with pytest.raises(Rejected, match="403"):
            async with client.connect("/"):
                raise AssertionError("connected")
    assert app.events[0]["code"] == code


@pytest.mark.parametrize("tells", [True, False])
async def test_a_send_after_the_end(tells: bool) -> None:
    raised: list[Exception] = []

    async def send_late(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        try:
            await send(text("too late"))
        except OSError as error:
            raised.append(error)

    async with client_of(send_late, tells_senders=tells) as client, client.connect("/"):
        pass
    assert [type(error) for error in raised] == ([ClientDisconnected] if tells else [])


@pytest.mark.parametrize("fails", [True, False])
async def test_a_second_close(fails: bool) -> None:
    app = Application(ACCEPT, close(), close())
    async with client_of(app, second_close=fails) as client, client.connect("/") as ws:
        await ws.expect_close(1000)
    assert [type(error) for error in app.errors] == ([RuntimeError] if fails else [])


@pytest.mark.parametrize("fails", [True, False])
async def test_a_send_after_the_own_close(fails: bool) -> None:
    app = Application(ACCEPT, close(), text("too late"))
    async with client_of(app, send_after_close=fails) as client, client.connect("/") as ws:
        await ws.expect_close(1000)
    assert [type(error) for error in app.errors] == ([RuntimeError] if fails else [])


async def test_codes_and_reasons_that_are_not_sent() -> None:
    app = Application(ACCEPT, close(1011), close(4011, "why"))
    async with (
        client_of(app, sends_1xxx=False, sends_reason=False) as client,
        client.connect("/") as ws,
    ):
        await ws.expect_close(4011, "")
    assert "invalid close code 1011" in str(app.errors)


async def test_the_wrapper_maps_codes_that_are_not_sent() -> None:
    async def fail(ws: WebSocket) -> None:
        async with ws:
            raise ValueError

    profile = Profile(name="facts", sends_1xxx=False)
    async with TestClient(App({"/": fail}), server=profile, raise_app_exceptions=False) as client:
        async with client.connect("/") as ws:
            await ws.expect_close(4011)


# -- Sends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "outcome"),
    [("waits", "cancelled"), ("shielded", "gone"), ("buffers", "sent")],
)
async def test_a_send_to_a_peer_that_does_not_read(how: Any, outcome: str) -> None:
    outcomes: list[str] = []
    stalled, sending = anyio.Event(), anyio.CancelScope()

    async def push(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await stalled.wait()
        try:
            with sending:
                await send(text("hi"))
            outcomes.append("cancelled" if sending.cancelled_caught else "sent")
        except ClientDisconnected:
            outcomes.append("gone")

    async with client_of(push, send=how) as client, client.connect("/") as ws:
        ws.stall()
        stalled.set()
        await anyio.wait_all_tasks_blocked()
        sending.cancel()
        await anyio.wait_all_tasks_blocked()
        assert outcomes == ([] if how == "shielded" else [outcome])
    assert outcomes == [outcome]


async def test_a_shielded_send_is_freed_when_the_test_is_cancelled() -> None:
    async def push(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while True:
            await send(text("hi"))

    async with client_of(push, send="shielded") as client:
        with anyio.CancelScope() as scope:
            async with client.connect("/", capacity=1):
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught


# -- Refusals ---------------------------------------------------------------------------

START = {"type": "websocket.http.response.start", "status": 401, "headers": []}
PARTS: list[dict[str, Any]] = [
    {"type": "websocket.http.response.body", "body": b"Who ", "more_body": True},
    {"type": "websocket.http.response.body", "body": b"are you?"},
]


@pytest.mark.parametrize(
    ("facts", "status", "body", "error"),
    [
        ({}, 401, b"Who are you?", None),
        ({"denial": False}, 500, b"", None),
    ],
)
async def test_a_denial_response(
    facts: dict[str, Any], status: int, body: bytes, error: type[Exception] | None
) -> None:
    app = Application(START, *PARTS)
    async with client_of(app, **facts) as client:
        with pytest.raises(Rejected) as rejected:
            async with client.connect("/"):
                raise AssertionError("connected")
    assert (rejected.value.status, rejected.value.body) == (status, body)
    assert {type(raised) for raised in app.errors} == ({error} if error else set())
    assert ("websocket.http.response" in app.scope["extensions"]) == facts.get("denial", True)


async def test_a_response_in_parts_that_fails() -> None:
    app = Application(START, PARTS[0])
    async with client_of(app, denial_in_parts=False, returned_early=403) as client:
        with pytest.raises(Rejected) as rejected:
            async with client.connect("/"):
                raise AssertionError("connected")
    assert (rejected.value.status, rejected.value.body) == (403, b"")
    assert [type(error) for error in app.errors] == [RuntimeError]


async def test_half_a_response() -> None:
    async with client_of(Application(START, PARTS[0])) as client:
        with pytest.raises(Rejected) as rejected:
            async with client.connect("/"):
                raise AssertionError("connected")
    assert (rejected.value.status, rejected.value.body) == (401, b"Who ")


async def do_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def test_no_answer() -> None:
    async with client_of(do_nothing, lifespan=False, returned_early=403) as client:
        with pytest.raises(Rejected, match="403"):
            async with client.connect("/"):
                raise AssertionError("connected")
    async with client_of(do_nothing, lifespan=False, returned_early=None) as client:
        with pytest.raises(WebSocketDisconnect, match="1006"):
            async with client.connect("/"):
                raise AssertionError("connected")


@pytest.mark.parametrize(("accepts", "code"), [(False, None), (True, 1011), (True, 1006)])
async def test_an_error(accepts: bool, code: int | None) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if accepts:
            await send(ACCEPT)
        raise ValueError

    profile = Profile(name="facts", failed_early=418, failed=code or 1011)
    client = TestClient(fail, server=profile, raise_app_exceptions=False)
    if accepts:
        async with client, client.connect("/") as ws:
            await ws.expect_close(code)
    else:
        async with client:
            with pytest.raises(Rejected, match="418"):
                async with client.connect("/"):
                    raise AssertionError("connected")


@pytest.mark.parametrize("code", [1000, 1005, 1006])
async def test_a_return_without_a_close(code: int) -> None:
    async with client_of(Application(), returned=code) as client, client.connect("/") as ws:
        await ws.expect_close(code)


async def test_a_return_that_leaves_the_connection_open() -> None:
    async with client_of(Application(), returned=None) as client, client.connect("/") as ws:
        await ws.expect_silence()
