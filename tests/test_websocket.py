"""The wrapper: its state machine, its errors, and what it evens out between servers."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from http.cookies import SimpleCookie
from typing import ClassVar

import anyio
import pytest
import trio

from hubbub import DecodeError, WebSocket, WebSocketDisconnect, WebSocketState
from hubbub import websocket as module
from hubbub.types import Message
from tests.peer import Peer

CONNECTING = WebSocketState.CONNECTING
CONNECTED = WebSocketState.CONNECTED
DISCONNECTED = WebSocketState.DISCONNECTED


class TestConstruction:
    @pytest.mark.parametrize(("scope", "got"), [({"type": "http"}, "http"), ({}, "None")])
    def test_another_scope_is_refused(self, scope: dict[str, str], got: str, peer: Peer) -> None:
        with pytest.raises(ValueError, match=rf"^Expected scope type 'websocket', got '{got}'$"):
            WebSocket(scope, peer.receive, peer.send)

    def test_a_new_websocket_is_connecting_and_has_no_dict(self, peer: Peer) -> None:
        ws = peer.websocket()
        assert ws.connection_state is CONNECTING
        assert ws.close_code is None
        assert ws.close_reason is None
        assert not hasattr(ws, "__dict__")
        assert repr(ws) == "<WebSocket / CONNECTING>"

    def test_states_compare_as_numbers(self) -> None:
        assert CONNECTING < CONNECTED < DISCONNECTED
        assert [int(state) for state in WebSocketState] == [0, 1, 2]


class TestScope:
    def test_properties_read_the_scope_once(self) -> None:
        peer = Peer(
            path="/chat",
            scheme="wss",
            query_string=b"a=1&a=2",
            headers=[(b"host", b"example.org"), (b"X-Two", b"1"), (b"x-two", b"2")],
            client=("10.0.0.1", 5000),
            server=("example.org", 443),
            subprotocols=["a", "b"],
            state={"db": 1},
        )
        ws = peer.websocket()
        assert ws.scope is peer.scope
        assert (ws.path, ws.scheme) == ("/chat", "wss")
        assert str(ws.url) == "wss://example.org/chat?a=1&a=2"
        assert ws.url is ws.url
        assert ws.headers["HOST"] == "example.org"
        assert ws.headers.getall("X-Two") == ["1", "2"]
        assert ws.headers is ws.headers
        assert ws.query_params.getall("a") == ["1", "2"]
        assert ws.query_params is ws.query_params
        assert ws.client == ("10.0.0.1", 5000)
        assert ws.subprotocols == ("a", "b")
        assert ws.accepted_subprotocol is None
        assert ws.state.db == 1
        assert ws.state is ws.state

    def test_a_bare_scope_has_defaults(self, peer: Peer) -> None:
        ws = WebSocket({"type": "websocket"}, peer.receive, peer.send)
        assert (ws.path, ws.scheme, ws.client, ws.subprotocols) == ("/", "ws", None, ())
        assert str(ws.url) == "ws://localhost/"
        assert len(ws.headers) == len(ws.query_params) == len(ws.state) == 0


class TestAccept:
    async def test_it_consumes_connect_and_accepts(self, peer: Peer) -> None:
        ws = peer.websocket()
        await ws.accept()
        assert ws.connection_state is CONNECTED
        assert peer.sent == [{"type": "websocket.accept"}]

    async def test_subprotocol_and_headers(self) -> None:
        peer = Peer(subprotocols=["a", "b"])
        ws = peer.websocket()
        await ws.accept("b", {"X-Thing": "é"})
        assert ws.accepted_subprotocol == "b"
        assert peer.sent == [
            {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-thing", b"\xe9")]}
        ]

    async def test_a_header_may_repeat(self, peer: Peer) -> None:
        cookies = SimpleCookie({"a": "1", "b": "2"})
        pairs = [("Set-Cookie", morsel.OutputString()) for morsel in cookies.values()]
        await peer.websocket().accept(headers=pairs)
        assert peer.sent[0]["headers"] == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]

    async def test_a_subprotocol_that_was_not_offered_is_refused(self) -> None:
        peer = Peer(subprotocols=["a"])
        ws = peer.websocket()
        with pytest.raises(ValueError, match=r"one of the subprotocols \['a'\], got 'b'"):
            await ws.accept("b")
        assert peer.sent == []
        await ws.accept("a")  # nothing was consumed
        assert ws.connection_state is CONNECTED

    @pytest.mark.parametrize(
        "headers",
        [
            {"X-A": "1\r\nX-B: 2"},
            {"X-A": "nul\0"},
            {"X A": "1"},
            {"": "1"},
            {":status": "200"},
            {"Sec-WebSocket-Protocol": "a"},
            {"X-A": "☃"},
        ],
    )
    async def test_a_header_that_is_none_is_refused(
        self, peer: Peer, headers: dict[str, str]
    ) -> None:
        ws = peer.websocket()
        with pytest.raises(ValueError, match=r"Expected (a )?header"):
            await ws.accept(headers=headers)
        assert ws.connection_state is CONNECTING
        assert peer.sent == []

    async def test_twice_is_an_error(self, peer: Peer) -> None:
        ws = await peer.accepted()
        with pytest.raises(RuntimeError, match=r"^Cannot accept: connection in CONNECTED state$"):
            await ws.accept()

    async def test_a_peer_that_left_is_a_disconnect(self, peer: Peer) -> None:
        peer.forget_connect()
        peer.leave(1006)
        ws = peer.websocket()
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.accept()
        assert caught.value.code == ws.close_code == 1006
        assert ws.connection_state is DISCONNECTED

    async def test_a_peer_that_leaves_before_the_answer_is_a_disconnect(self, peer: Peer) -> None:
        peer.send_error = OSError("gone")
        ws = peer.websocket()
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.accept()
        assert isinstance(caught.value.__cause__, OSError)
        assert ws.close_code == 1006

    async def test_an_event_that_does_not_belong_there_is_an_error(self, peer: Peer) -> None:
        peer.forget_connect()
        peer.say("too early")
        with pytest.raises(RuntimeError, match=r"Expected websocket\.connect, got websocket\.rec"):
            await peer.websocket().accept()

    async def test_one_that_was_cancelled_while_waiting_may_be_tried_again(
        self, peer: Peer
    ) -> None:
        peer.forget_connect()
        ws = peer.websocket()
        with anyio.move_on_after(0):
            await ws.accept()
        peer.tell({"type": "websocket.connect"})
        await ws.accept()
        assert ws.connection_state is CONNECTED

    async def test_reject_after_an_accept_that_failed_consumes_connect_once(
        self, peer: Peer
    ) -> None:
        ws = peer.websocket()
        peer.send_error = ValueError("the server does not like it")
        with pytest.raises(ValueError, match="does not like"):
            await ws.accept()
        peer.send_error = None
        await ws.reject()
        assert peer.receives == 1
        assert peer.sent[0]["status"] == 403


class TestReject:
    async def test_a_denial_response(self, peer: Peer) -> None:
        ws = peer.websocket()
        await ws.reject(401, {"WWW-Authenticate": "Basic"}, b"who are you?")
        assert peer.sent == [
            {
                "type": "websocket.http.response.start",
                "status": 401,
                "headers": [(b"www-authenticate", b"Basic"), (b"content-length", b"12")],
            },
            {"type": "websocket.http.response.body", "body": b"who are you?"},
        ]
        assert ws.connection_state is DISCONNECTED
        assert (ws.close_code, ws.close_reason) == (1006, "")
        assert peer.receives == 1  # some servers answer nobody whose connect was not taken

    async def test_a_peer_that_left_is_a_disconnect(self, peer: Peer) -> None:
        peer.forget_connect()
        peer.leave(1006)
        ws = peer.websocket()
        with pytest.raises(WebSocketDisconnect):
            await ws.reject()
        assert peer.sent == []

    async def test_a_content_length_of_the_callers_own_stays(self, peer: Peer) -> None:
        await peer.websocket().reject(403, [("Content-Length", "0")])
        assert peer.sent[0]["headers"] == [(b"content-length", b"0")]

    async def test_headers_that_repeat_are_joined_but_cookies(self, peer: Peer) -> None:
        headers = [("Vary", "a"), ("Set-Cookie", "a=1"), ("vary", "b"), ("Set-Cookie", "b=2")]
        await peer.websocket().reject(403, headers, b"no")
        assert peer.sent[0]["headers"] == [
            (b"vary", b"a, b"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"content-length", b"2"),
        ]

    @pytest.mark.parametrize("extensions", [{}, None])
    async def test_the_plain_refusal_where_there_is_no_extension(
        self, extensions: dict[str, object] | None
    ) -> None:
        peer = Peer(extensions=extensions)
        await peer.websocket().reject(404, body=b"no")
        assert peer.sent == [{"type": "websocket.close"}]

    @pytest.mark.parametrize("status", [101, 200, 600])
    async def test_a_status_that_refuses_nothing_is_an_error(self, peer: Peer, status: int) -> None:
        with pytest.raises(ValueError, match=f"Expected a status of 300-599 .* got {status}"):
            await peer.websocket().reject(status)
        assert peer.sent == []

    async def test_after_accept_is_an_error(self, peer: Peer) -> None:
        ws = await peer.accepted()
        with pytest.raises(RuntimeError, match=r"^Cannot reject: connection in CONNECTED state$"):
            await ws.reject()

    async def test_afterwards_everything_is_an_error_but_close(self, peer: Peer) -> None:
        ws = peer.websocket()
        await ws.reject()
        await ws.close()
        with pytest.raises(RuntimeError, match="Cannot receive: connection in DISCONNECTED state"):
            await ws.receive()
        assert len(peer.sent) == 2


class TestClose:
    async def test_it_sends_code_and_reason(self, peer: Peer) -> None:
        ws = await peer.accepted()
        await ws.close(4009, "bye")
        assert peer.sent[-1] == {"type": "websocket.close", "code": 4009, "reason": "bye"}
        assert ws.connection_state is DISCONNECTED
        assert (ws.close_code, ws.close_reason) == (4009, "bye")

    async def test_twice_sends_once(self, peer: Peer) -> None:
        ws = await peer.accepted()
        await ws.close()
        await ws.close(4000)
        assert peer.closed_with == (1000, "")
        assert len(peer.sent) == 2
        assert ws.close_code == 1000

    async def test_before_accept_is_an_error_that_names_reject(self, peer: Peer) -> None:
        with pytest.raises(
            RuntimeError, match=r"^Cannot close: connection not accepted yet; use reject\(\)"
        ):
            await peer.websocket().close()

    @pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 0, -1, 2**31])
    async def test_a_code_that_must_not_be_sent(self, peer: Peer, code: int) -> None:
        ws = await peer.accepted()
        with pytest.raises(ValueError, match=f"Expected a close code of .* got {code}"):
            await ws.close(code)
        assert ws.connection_state is CONNECTED

    @pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
    async def test_a_code_that_may_be_sent(self, peer: Peer, code: int) -> None:
        ws = await peer.accepted()
        await ws.close(code)
        assert peer.closed_with == (code, "")

    async def test_the_reason_is_bounded_in_bytes(self, peer: Peer) -> None:
        ws = await peer.accepted()
        with pytest.raises(ValueError, match="at most 123 bytes of UTF-8, got 124"):
            await ws.close(1000, "é" * 62)
        await ws.close(1000, "é" * 61 + "x")
        assert peer.closed_with == (1000, "é" * 61 + "x")

    async def test_a_cancelled_close_is_not_sent_again(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.stop_reading()
        with anyio.move_on_after(0.01) as scope:
            await ws.close()
        assert scope.cancelled_caught
        peer.read_on()
        await ws.close()
        assert peer.closed_with is None

    async def test_it_waits_for_its_turn_behind_a_send(self, peer: Peer) -> None:
        sending = 0

        async def send(message: Message) -> None:
            nonlocal sending
            sending += 1
            assert sending == 1  # servers garble what two tasks send at once
            await peer.send(message)
            sending -= 1

        ws = WebSocket(peer.scope, peer.receive, send)
        await ws.accept()
        peer.stop_reading()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, "last words")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(ws.close)
            await anyio.wait_all_tasks_blocked()
            peer.read_on()
        assert peer.heard == ["last words"]
        assert peer.closed_with == (1000, "")

    async def test_a_peer_that_was_faster_is_no_error(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.send_error = OSError("gone")
        await ws.close()
        assert ws.close_code == 1000

    async def test_a_server_that_does_not_know_a_code_gets_a_private_one(self, peer: Peer) -> None:
        refused: list[int] = []

        async def send(message: Message) -> None:
            if 1000 < message.get("code", 1000) < 3000:
                refused.append(message["code"])
                raise Exception(  # noqa: TRY002 - that is what Daphne raises
                    f"invalid close code {message['code']} (must be 1000 or from [3000, 4999])"
                )
            await peer.send(message)

        ws = WebSocket(peer.scope, peer.receive, send)
        await ws.accept()
        await ws.close(1011, "sorry")
        assert refused == [1011]
        assert peer.closed_with == (4011, "sorry")
        assert ws.close_code == 1011

    async def test_any_other_error_of_the_server_comes_out_at_once(self, peer: Peer) -> None:
        calls = 0

        async def send(message: Message) -> None:
            nonlocal calls
            calls += 1
            if message["type"] == "websocket.close":
                raise ValueError("the server has a bad day")
            await peer.send(message)

        ws = WebSocket(peer.scope, peer.receive, send)
        await ws.accept()
        with pytest.raises(ValueError, match="bad day"):
            await ws.close()
        assert calls == 2  # the accept and one close


class TestReceive:
    @pytest.mark.parametrize("text", ["hi", "", "héllo ☃"])
    async def test_text(self, peer: Peer, text: str) -> None:
        ws = await peer.accepted()
        peer.say(text)
        peer.tell({"type": "websocket.receive", "text": text, "bytes": None})
        assert await ws.receive_text() == text
        assert await ws.receive() == text

    @pytest.mark.parametrize("data", [b"\0\xff", b""])
    async def test_binary(self, peer: Peer, data: bytes) -> None:
        ws = await peer.accepted()
        peer.say(data)
        peer.tell({"type": "websocket.receive", "bytes": data, "text": None})
        assert await ws.receive_bytes() == data
        assert await ws.receive() == data

    async def test_an_event_without_data_is_an_empty_message(self, peer: Peer) -> None:
        ws = await peer.accepted()
        for _ in range(3):
            peer.tell({"type": "websocket.receive", "text": None})
        assert await ws.receive_text() == ""
        assert await ws.receive_bytes() == b""
        assert await ws.receive() == b""

    async def test_the_wrong_kind_is_an_error_and_the_connection_goes_on(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.say(b"")
        peer.say("")
        peer.say("on")
        with pytest.raises(TypeError, match=r"^Received binary message\. Use receive_bytes\(\)"):
            await ws.receive_text()
        with pytest.raises(TypeError, match=r"^Received text message\. Use receive_text\(\) for"):
            await ws.receive_bytes()
        assert await ws.receive_text() == "on"

    async def test_json(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.say('{"a": [1, 2.5, null, "é"]}')
        peer.say("no json")
        peer.say(b"{}")
        assert await ws.receive_json() == {"a": [1, 2.5, None, "é"]}
        with pytest.raises(json.JSONDecodeError):
            await ws.receive_json()
        with pytest.raises(TypeError):
            await ws.receive_json()

    async def test_before_accept_and_after_close_is_an_error(self, peer: Peer) -> None:
        ws = peer.websocket()
        with pytest.raises(RuntimeError, match=r"^Cannot receive: connection in CONNECTING state$"):
            await ws.receive_text()
        await ws.accept()
        await ws.close()
        with pytest.raises(
            RuntimeError, match=r"^Cannot receive: connection in DISCONNECTED state$"
        ):
            await ws.receive_text()

    @pytest.mark.parametrize(
        ("event", "code", "reason"),
        [
            ({"code": 4321, "reason": "why"}, 4321, "why"),
            ({"code": 1001}, 1001, ""),
            ({"code": None, "reason": None}, 1005, ""),
            ({}, 1005, ""),
        ],
    )
    async def test_disconnect_is_remembered(
        self, peer: Peer, event: dict[str, object], code: int, reason: str
    ) -> None:
        ws = await peer.accepted()
        peer.tell({"type": "websocket.disconnect", **event})
        for _ in range(3):  # many a server would block for ever in the second receive
            with pytest.raises(WebSocketDisconnect) as caught:
                await ws.receive_text()
            assert (caught.value.code, caught.value.reason) == (code, reason)
        with pytest.raises(WebSocketDisconnect):
            await ws.send_text("too late")
        assert (ws.close_code, ws.close_reason) == (code, reason)
        assert ws.connection_state is DISCONNECTED
        assert peer.receives == 2
        assert peer.heard == []

    async def test_an_oserror_of_the_server_is_a_disconnect(self, peer: Peer) -> None:
        async def receive() -> Message:
            if peer.receives:
                raise ConnectionResetError
            return await peer.receive()

        ws = WebSocket(peer.scope, receive, peer.send)
        await ws.accept()
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.receive()
        assert caught.value.code == 1006
        assert isinstance(caught.value.__cause__, ConnectionResetError)

    async def test_a_cancelled_receive_loses_nothing(self, peer: Peer) -> None:
        async with await peer.accepted() as ws:
            with anyio.move_on_after(0):
                await ws.receive()
            peer.say("here")
            assert await ws.receive() == "here"


class TestSend:
    async def test_text_binary_and_json(self, peer: Peer) -> None:
        ws = await peer.accepted()
        await ws.send_text("a")
        await ws.send_text("")
        await ws.send_bytes(b"b")
        await ws.send("c")
        await ws.send(b"")
        await ws.send_json({"d": [1, "é"]})
        assert peer.sent[1:] == [
            {"type": "websocket.send", "text": "a"},
            {"type": "websocket.send", "text": ""},
            {"type": "websocket.send", "bytes": b"b"},
            {"type": "websocket.send", "text": "c"},
            {"type": "websocket.send", "bytes": b""},
            {"type": "websocket.send", "text": '{"d":[1,"é"]}'},
        ]

    async def test_the_wrong_kind_is_an_error(self, peer: Peer) -> None:
        ws = await peer.accepted()
        with pytest.raises(TypeError, match="Expected text of str, got bytes"):
            await ws.send_text(b"")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Expected binary data of bytes, got str"):
            await ws.send_bytes("")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a message of str or bytes, got int; see send_json"):
            await ws.send(1)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await ws.send_json({"a": object()})
        assert len(peer.sent) == 1

    async def test_before_accept_and_after_close_is_an_error(self, peer: Peer) -> None:
        ws = peer.websocket()
        with pytest.raises(RuntimeError, match=r"^Cannot send: connection in CONNECTING state$"):
            await ws.send_text("")
        await ws.accept()
        await ws.close()
        with pytest.raises(RuntimeError, match=r"^Cannot send: connection in DISCONNECTED state$"):
            await ws.send_text("")

    @pytest.mark.parametrize(
        "error",
        [
            ConnectionResetError("gone"),
            RuntimeError("Unexpected ASGI message 'websocket.send', after sending …"),
            RuntimeError("Attempt to send on a closed protocol"),
            RuntimeError("ASGI flow error"),
            trio.BusyResourceError("another task is sending"),
        ],
    )
    async def test_what_servers_raise_when_the_peer_has_gone(
        self, peer: Peer, error: Exception
    ) -> None:
        ws = await peer.accepted()
        peer.send_error = error
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.send("")
        assert caught.value.__cause__ is error
        assert ws.close_code == 1006

    async def test_any_other_error_of_the_server_comes_out(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.send_error = RuntimeError("something else")
        with pytest.raises(RuntimeError, match="something else"):
            await ws.send("")
        assert ws.connection_state is CONNECTED

    async def test_one_that_is_cancelled_before_it_began_leaves_no_trace(self, peer: Peer) -> None:
        ws = await peer.accepted()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ws.send("never")
        await ws.send("after")
        assert peer.heard == ["after"]

    async def test_one_that_is_cancelled_midway_ends_the_connection(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.stop_reading()
        with anyio.move_on_after(0.01) as scope:
            await ws.send("half")
        assert scope.cancelled_caught
        peer.read_on()
        with pytest.raises(WebSocketDisconnect) as caught:
            await ws.send("more")
        assert (caught.value.code, caught.value.reason) == (1006, "a send was cancelled")
        assert peer.heard == []

    async def test_two_tasks_send_one_after_the_other(self, peer: Peer) -> None:
        sending = 0

        async def send(message: Message) -> None:
            nonlocal sending
            sending += 1
            assert sending == 1
            await peer.send(message)
            sending -= 1

        ws = WebSocket(peer.scope, peer.receive, send)
        await ws.accept()
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(ws.send, str(number))
        assert sorted(str(text) for text in peer.heard) == list("0123456789")

    async def test_one_that_waited_for_its_turn_sees_the_end(self, peer: Peer) -> None:
        calls: list[Message] = []
        ends: list[int] = []

        async def send_to_server(message: Message) -> None:
            calls.append(message)
            await peer.send(message)

        ws = WebSocket(peer.scope, peer.receive, send_to_server)
        await ws.accept()
        peer.stop_reading()

        async def send() -> None:
            try:
                await ws.send("a")
            except WebSocketDisconnect as end:
                ends.append(end.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            peer.send_error = OSError("gone")
            peer.read_on()
        assert ends == [1006, 1006]
        assert len(calls) == 2  # the accept and one of the two

    async def test_a_server_that_never_waits_does_not_starve_the_others(self, peer: Peer) -> None:
        async def send(message: Message) -> None:
            peer.sent.append(message)

        ws = WebSocket(peer.scope, peer.receive, send)
        with anyio.fail_after(5):
            async with ws:
                peer.leave()
                with pytest.raises(WebSocketDisconnect):
                    while True:
                        await ws.send("x")
        assert len(peer.heard) < 1000


class TestTyped:
    VALUE: ClassVar = {
        "price": Decimal("100.50"),
        "day": date(2025, 1, 15),
        "text": "100::N",
        "n": [1],
    }

    @pytest.mark.parametrize("marker", ["::TYTX", "::JS"])
    async def test_round_trip(self, peer: Peer, marker: str) -> None:
        ws = await peer.accepted()
        await ws.send_typed(self.VALUE, marker)
        [text] = peer.heard
        assert isinstance(text, str)
        assert text.endswith("}" + marker)
        peer.say(text)
        assert await ws.receive_typed() == self.VALUE

    async def test_what_has_no_marker_is_plain_json(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.say('{"a":"100::N"}')
        assert await ws.receive_typed() == {"a": "100::N"}

    async def test_a_value_that_is_not_what_it_says(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.say('{"a":"soon::D"}::JS')
        with pytest.raises(DecodeError):
            await ws.receive_typed()

    async def test_without_the_package(self, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "HAS_TYTX", False)
        ws = await peer.accepted()
        peer.say('{"a":1}')
        peer.say('{"a":1}::TYTX')
        assert await ws.receive_typed() == {"a": 1}
        with pytest.raises(ImportError, match=r"^genro-tytx package required for receive_typed"):
            await ws.receive_typed()
        with pytest.raises(ImportError, match=r"required for send_typed\(\)\. Install with: pip "):
            await ws.send_typed({})


class TestIteration:
    async def test_texts_until_the_peer_leaves(self, peer: Peer) -> None:
        ws = await peer.accepted()
        for text in ("a", "", "b"):
            peer.say(text)
        peer.leave(4000, "done")
        assert [text async for text in ws] == ["a", "", "b"]
        assert (ws.close_code, ws.close_reason) == (4000, "done")
        assert [text async for text in ws.iter_text()] == []

    async def test_bytes_messages_and_json(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.say(b"a")
        async for data in ws.iter_bytes():
            assert data == b"a"
            break
        peer.say("b")
        peer.say(b"c")
        async for message in ws.iter_messages():
            if message == b"c":
                break
            assert message == "b"
        peer.say("[1]")
        peer.leave()
        assert [value async for value in ws.iter_json()] == [[1]]

    async def test_the_wrong_kind_is_an_error(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.say(b"a")
        with pytest.raises(TypeError):
            await anext(aiter(ws))

    async def test_it_ends_when_its_own_body_closes(self, peer: Peer) -> None:
        ws = await peer.accepted()
        peer.say("a")
        peer.say("b")
        seen = []
        async for text in ws:
            seen.append(text)
            await ws.close()
        assert seen == ["a"]

    async def test_before_accept_is_an_error(self, peer: Peer) -> None:
        with pytest.raises(RuntimeError, match="CONNECTING"):
            await anext(aiter(peer.websocket()))


class TestBlock:
    """``async with ws``."""

    async def test_it_accepts_and_closes(self, peer: Peer) -> None:
        async with peer.websocket() as ws:
            assert ws.connection_state is CONNECTED
        assert ws.connection_state is DISCONNECTED
        assert peer.sent == [
            {"type": "websocket.accept"},
            {"type": "websocket.close", "code": 1000, "reason": ""},
        ]

    async def test_it_takes_an_accepted_connection_and_leaves_a_closed_one(
        self, peer: Peer
    ) -> None:
        async with await peer.accepted() as ws:
            await ws.close(4000)
        assert peer.closed_with == (4000, "")
        assert len(peer.sent) == 2

    async def test_an_error_closes_with_1011_and_comes_out_as_it_is(self, peer: Peer) -> None:
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as caught:
            async with peer.websocket():
                raise error
        assert caught.value is error
        assert peer.closed_with == (1011, "")

    async def test_a_cancellation_closes_with_1001(self, peer: Peer) -> None:
        with anyio.CancelScope() as scope:
            async with peer.websocket():
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert peer.closed_with == (1001, "")

    async def test_a_peer_that_left_in_the_handshake(self, peer: Peer) -> None:
        peer.forget_connect()
        peer.leave()
        with pytest.raises(WebSocketDisconnect):
            async with peer.websocket():
                pytest.fail("it was never connected")

    async def test_twice_is_an_error(self, peer: Peer) -> None:
        async with peer.websocket() as ws:
            with pytest.raises(RuntimeError, match="entered already"):
                async with ws:
                    pass

    async def test_a_send_learns_that_the_peer_has_gone(self, peer: Peer) -> None:
        async with peer.websocket() as ws:
            peer.leave(4000, "bye")
            await anyio.wait_all_tasks_blocked()
            assert ws.connection_state is DISCONNECTED
            with pytest.raises(WebSocketDisconnect) as caught:
                await ws.send("into the void")
        assert (caught.value.code, caught.value.reason) == (4000, "bye")
        assert peer.sent == [{"type": "websocket.accept"}]

    async def test_what_had_come_before_is_still_received(self, peer: Peer) -> None:
        async with peer.websocket() as ws:
            peer.say("a")
            peer.say("b")
            peer.leave(4000)
            await anyio.wait_all_tasks_blocked()
            assert ws.close_code == 4000
            assert [text async for text in ws] == ["a", "b"]
            with pytest.raises(WebSocketDisconnect):
                await ws.receive()

    async def test_it_reads_only_so_far_ahead(self, peer: Peer) -> None:
        async with peer.websocket() as ws:
            for number in range(100):
                peer.say(str(number))
            await anyio.wait_all_tasks_blocked()
            assert peer.receives < 20
            peer.leave()
            assert [text async for text in ws] == [str(number) for number in range(100)]

    async def test_a_receive_that_waits_ends_when_another_task_closes(self, peer: Peer) -> None:
        ends: list[WebSocketDisconnect] = []

        async def receive() -> None:
            try:
                await ws.receive()
            except WebSocketDisconnect as end:
                ends.append(end)

        async with anyio.create_task_group() as tasks, peer.websocket() as ws:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await ws.close(4000, "enough")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError):
                await ws.receive()
        assert [(end.code, end.reason) for end in ends] == [(4000, "enough")]

    async def test_an_error_of_the_servers_receive_comes_out_as_it_is(self, peer: Peer) -> None:
        with pytest.raises(RuntimeError, match=r"^Expected websocket\.receive, got websocket\.no"):
            async with peer.websocket():
                peer.tell({"type": "websocket.nonsense"})
                await anyio.sleep_forever()

    async def test_a_peer_that_does_not_read_does_not_hold_it_up(
        self, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_CLOSE_TIMEOUT", 0.01)
        async with peer.websocket():
            peer.stop_reading()
        assert peer.closed_with is None

    async def test_after_it_a_peer_that_left_has_left(self, peer: Peer) -> None:
        async with peer.websocket() as ws:
            peer.say("unread")
            peer.leave(4000)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(WebSocketDisconnect):
            await ws.receive()

    async def test_after_it_the_connection_is_over(self, peer: Peer) -> None:
        async with peer.websocket() as ws:
            peer.say("unread")
        with pytest.raises(RuntimeError):
            await ws.receive()


class TestDisconnect:
    async def test_the_peer_is_told_and_the_handler_too(self, peer: Peer) -> None:
        async with peer.websocket() as ws:
            peer.say("last words")
            await anyio.wait_all_tasks_blocked()
            await ws.disconnect(1013, "slow consumer")
            assert await ws.receive() == "last words"
            with pytest.raises(WebSocketDisconnect) as received:
                await ws.receive()
            with pytest.raises(WebSocketDisconnect) as sent:
                await ws.send("x")
        assert peer.closed_with == (1013, "slow consumer")
        assert received.value.code == sent.value.code == ws.close_code == 1013

    async def test_over_already_it_does_nothing(self, peer: Peer) -> None:
        ws = await peer.accepted()
        await ws.close(4000)
        await ws.disconnect(1013)
        assert ws.close_code == 4000
        assert len(peer.sent) == 2

    async def test_the_block_waits_for_its_close_frame(self, peer: Peer) -> None:
        peer_reads = anyio.Event()

        async def kick() -> None:
            peer.stop_reading()
            await ws.disconnect(4001)

        async def read_on() -> None:
            await peer_reads.wait()
            peer.read_on()

        async with anyio.create_task_group() as tasks:
            async with peer.websocket() as ws:
                tasks.start_soon(kick)
                tasks.start_soon(read_on)
                with pytest.raises(WebSocketDisconnect):
                    await ws.receive()
                peer_reads.set()
            # The application may return now: the server has it all.
            assert peer.closed_with == (4001, "")

    async def test_no_receive_waits_while_the_close_is_sent(self, peer: Peer) -> None:
        receiving = 0

        async def receive() -> Message:
            nonlocal receiving
            receiving += 1
            try:
                return await peer.receive()
            finally:
                receiving -= 1

        async def send(message: Message) -> None:
            if message["type"] == "websocket.close":
                assert receiving == 0
            await peer.send(message)

        async with WebSocket(peer.scope, receive, send) as ws:
            await anyio.wait_all_tasks_blocked()
            assert receiving == 1
            await ws.disconnect(1013)
        assert peer.closed_with == (1013, "")

    async def test_a_code_that_must_not_be_sent(self, peer: Peer) -> None:
        ws = await peer.accepted()
        with pytest.raises(ValueError, match="got 1006"):
            await ws.disconnect(1006)
