from __future__ import annotations

from typing import Any

import h11
import pytest

from hubbub.wire.deflate import PerMessageDeflate
from hubbub.wire.handshake import (
    Refusal,
    ServerHandshake,
    UpgradeRequest,
    asks_for_websocket,
)
from hubbub.wire.headers import Extension, group_fields
from tests.wire.frame import octets

FIELDS = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def head(*more: str, line: str = "GET /chat HTTP/1.1", without: str = "", **fields: str) -> bytes:
    """A request that is valid but for what is said."""
    changed = {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{k}: {v}" for k, v in {**FIELDS, **changed}.items() if k != without]
    return "\r\n".join([line, *lines, *more, "", ""]).encode("latin-1")


def accepted(data: bytes) -> UpgradeRequest:
    request = ServerHandshake().receive_data(data)
    assert isinstance(request, UpgradeRequest)
    return request


def refused(data: bytes, **options: Any) -> tuple[Refusal, bytes]:
    handshake = ServerHandshake(**options)
    refusal = handshake.receive_data(data)
    assert isinstance(refusal, Refusal)
    assert "\n" not in refusal.reason
    return refusal, handshake.refuse(refusal)


def response(data: bytes) -> tuple[h11.Response | h11.InformationalResponse, bytes, bytes]:
    """The response in some bytes, its body, and what follows, as a client of h11 reads it."""
    client = h11.Connection(h11.CLIENT)
    fields = [("host", "a"), ("upgrade", "websocket"), ("connection", "upgrade")]
    client.send(h11.Request(method="GET", target="/", headers=fields))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    event = client.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    body = b""
    while isinstance(part := client.next_event(), h11.Data):
        body += part.data
    return event, body, client.trailing_data[0]


# What is accepted


def test_the_sample_of_rfc6455_1_3() -> None:
    handshake = ServerHandshake()
    data = head("Sec-WebSocket-Protocol: chat, superchat", "Origin: http://example.com")
    request = handshake.receive_data(data)
    assert isinstance(request, UpgradeRequest)
    assert request.target == b"/chat"
    assert request.key == b"dGhlIHNhbXBsZSBub25jZQ=="
    assert request.subprotocols == ["chat", "superchat"]
    assert request.extensions == []
    assert request.headers[0] == (b"host", b"server.example.com")
    assert request.headers[-1] == (b"origin", b"http://example.com")
    answer, _, _ = response(handshake.accept(request, subprotocol="chat"))
    assert answer.status_code == 101
    assert list(answer.headers) == [
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        (b"sec-websocket-protocol", b"chat"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        head(Connection="keep-alive, UPGRADE"),
        head(Upgrade="h2c, WebSocket"),
        head("Content-Length: 0"),
        head(Host=""),
        head(Host="[::1]:8000"),
        head(line="GET http://server.example.com/chat HTTP/1.1"),
        head(line="GET wss://server.example.com/chat HTTP/1.1"),
    ],
)
def test_valid_requests(data: bytes) -> None:
    assert accepted(data).target == b"/chat"


def test_peers_share_the_names_that_all_of_them_send() -> None:
    (host, _), *_ = accepted(head()).headers
    (same, _), *_ = accepted(head(line="GET /other HTTP/1.1")).headers
    assert host == b"host"
    assert same is host


def test_the_target_is_kept_as_it_came() -> None:
    assert accepted(head(line="GET /a%20b/?q=%31&&r HTTP/1.1")).target == b"/a%20b/?q=%31&&r"


def test_offers_from_several_fields() -> None:
    request = accepted(
        head(
            "Sec-WebSocket-Protocol: a",
            "Sec-WebSocket-Protocol: ,b , c",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            "Sec-WebSocket-Extensions: foo",
        )
    )
    assert request.subprotocols == ["a", "b", "c"]
    deflate = Extension("permessage-deflate", (("client_max_window_bits", None),))
    assert request.extensions == [deflate, Extension("foo")]


def test_octet_by_octet() -> None:
    handshake = ServerHandshake()
    results = [handshake.receive_data(octet) for octet in octets(head())]
    assert results[:-1] == [None] * (len(results) - 1)
    assert isinstance(results[-1], UpgradeRequest)


def test_bytes_after_the_request_are_not_lost() -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(head() + b"\x81\x80")
    assert isinstance(request, UpgradeRequest)
    assert handshake.trailing_data == b"\x81\x80"
    assert handshake.receive_data(b"mask") is None
    handshake.accept(request)
    assert handshake.trailing_data == b"\x81\x80mask"
    assert handshake.receive_data(b"") is None  # the client has left before the answer


def test_accept_with_everything() -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(head("Sec-WebSocket-Extensions: permessage-deflate"))
    assert isinstance(request, UpgradeRequest)
    cookies = [(b"set-cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
    data = handshake.accept(request, deflate=PerMessageDeflate(True), headers=cookies)
    answer, _, _ = response(data)
    assert list(answer.headers)[3:] == [
        (b"sec-websocket-extensions", b"permessage-deflate; server_no_context_takeover"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]


def test_what_may_not_be_accepted_with() -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(head("Sec-WebSocket-Protocol: chat"))
    assert isinstance(request, UpgradeRequest)
    with pytest.raises(ValueError, match=r"a subprotocol of \['chat'\], got 'graphql-ws'"):
        handshake.accept(request, subprotocol="graphql-ws")
    for name in (b"Upgrade", b"connection", b"Content-Length", b"sec-websocket-protocol"):
        with pytest.raises(ValueError, match="that the handshake does not set"):
            handshake.accept(request, headers=[(name, b"1")])
    for field in ((b"a", b"b\r\nc: d"), (b"a", b"\0"), (b"a b", b"c"), (b"", b"c")):
        with pytest.raises(ValueError, match="Expected valid header fields"):
            handshake.accept(request, headers=[field])
    assert handshake.accept(request)  # none of that did any harm
    with pytest.raises(RuntimeError, match="Expected a request that has not been answered"):
        handshake.accept(request)


# What is refused


@pytest.mark.parametrize(
    ("data", "status"),
    [
        # not meant to be one
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        (b"GET / HTTP/1.0\r\n\r\n", 426),
        (head(without="Upgrade"), 426),
        (head(without="Connection"), 426),
        (head(Connection="close"), 426),
        (head(Connection="upgrade; x"), 426),
        (head(Upgrade="h2c"), 426),
        (head(line="POST /chat HTTP/1.1", Upgrade="h2c"), 426),
        # malformed
        (head(line="GET /chat"), 400),
        (head(line="GET /chat HTTP/1.0"), 400),
        (head(line="GET /chat HTTP/2.0"), 400),
        (head(line="GET chat HTTP/1.1"), 400),
        (head(line="GET * HTTP/1.1"), 400),
        (head(line="GET /chat#fragment HTTP/1.1"), 400),
        (head(line="GET ftp://a/chat HTTP/1.1"), 400),
        (head(without="Host"), 400),
        (head("Host: server.example.com"), 400),
        (head(Host="a b"), 400),
        (head(Host="a/b"), 400),
        (head(Host="a, b"), 400),
        (head("no colon"), 400),
        (head("space : before"), 400),
        (head("nul: \0"), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\r\n\r\n", 400),
        # smuggling shapes
        (head("Content-Length: 5"), 400),
        (head("Content-Length: 0, 5"), 400),
        (head("Content-Length: x"), 400),
        (head("Content-Length: 5", "Content-Length: 6"), 400),
        (head("Transfer-Encoding: chunked"), 400),
        (head("Transfer-Encoding: chunked", "Content-Length: 0"), 400),
        (head("Transfer-Encoding: gzip, chunked"), 400),
        (head("Transfer-Encoding: identity"), 400),
        # key
        (head(without="Sec-WebSocket-Key"), 400),
        (head("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        (head(Sec_WebSocket_Key=""), 400),
        (head(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ"), 400),
        (head(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZTE="), 400),
        (head(Sec_WebSocket_Key="dGhlIHNhbXBsZSB*b25jZQ=="), 400),
        (head(Sec_WebSocket_Key="\xe9GhlIHNhbXBsZSBub25jZQ=="), 400),
        # method, version, offers
        (head(line="POST /chat HTTP/1.1"), 405),
        (head(line="HEAD /chat HTTP/1.1"), 405),
        (head(line="CONNECT /chat HTTP/1.1"), 405),
        (head(without="Sec-WebSocket-Version"), 426),
        (head("Sec-WebSocket-Version: 13"), 426),
        (head(Sec_WebSocket_Version="8"), 426),
        (head(Sec_WebSocket_Version="13, 8"), 426),
        (head("Sec-WebSocket-Protocol: a b"), 400),
        (head("Sec-WebSocket-Extensions: a;"), 400),
    ],
)
def test_bad_requests(data: bytes, status: int) -> None:
    refusal, _ = refused(data)
    assert refusal.status == status, refusal


def test_a_refusal_says_why_and_closes() -> None:
    refusal, data = refused(head(Sec_WebSocket_Key="short"))
    answer, body, _ = response(data)
    assert (answer.status_code, answer.reason) == (400, b"Bad Request")
    assert body == refusal.reason.encode() + b"\n"
    assert body == b"Expected one Sec-WebSocket-Key of 16 bytes in base64\n"
    assert (b"connection", b"close") in list(answer.headers)


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            {b"upgrade": b"websocket", b"connection": b"upgrade, close"},
        ),
        (
            head(Sec_WebSocket_Version="7"),
            {b"sec-websocket-version": b"13", b"upgrade": b"websocket"},
        ),
        (head(line="PUT / HTTP/1.1"), {b"allow": b"GET", b"connection": b"close"}),
    ],
)
def test_a_refusal_says_what_is_wanted(data: bytes, fields: dict[bytes, bytes]) -> None:
    _, sent = refused(data)
    answer, _, _ = response(sent)
    assert fields.items() <= dict(answer.headers).items()


def test_a_refused_head_request_gets_no_body() -> None:
    _, data = refused(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data", [head("X: " + "a" * 1000), head("X: " + "a" * 1000)[:1100], b"G" * 1100]
)
def test_a_large_head(data: bytes) -> None:
    refusal, sent = refused(data, max_size=1024)
    assert refusal.status == 431
    assert response(sent)[0].status_code == 431


def test_the_limit_is_for_the_head_alone() -> None:
    handshake = ServerHandshake(max_size=1024)
    assert isinstance(handshake.receive_data(head() + bytes(2000)), UpgradeRequest)


def test_many_headers() -> None:
    fields = [f"X-{i}: 1" for i in range(124)]
    assert refused(head(*fields))[0].status == 431
    assert len(accepted(head(*fields[1:])).headers) == 128
    assert refused(head(), max_headers=4)[0].status == 431


def test_a_client_that_leaves() -> None:
    assert ServerHandshake().receive_data(b"") is None
    handshake = ServerHandshake()
    assert handshake.receive_data(head()[:20]) is None
    refusal = handshake.receive_data(b"")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400
    assert handshake.refuse(refusal)


def test_a_refusal_before_the_request() -> None:
    for received in (b"", head()[:50]):
        handshake = ServerHandshake()
        if received:
            assert handshake.receive_data(received) is None
        data = handshake.refuse(Refusal(408, "Expected a request within 10 s"))
        answer, body, _ = response(data)
        assert (answer.status_code, body) == (408, b"Expected a request within 10 s\n")


def test_a_response_of_the_application() -> None:
    handshake = ServerHandshake()
    handshake.receive_data(head())
    with pytest.raises(ValueError, match="Expected a valid status and header fields"):
        handshake.start_response(403, [(b"a", b"b\r\n")])
    with pytest.raises(ValueError, match="Expected a valid status and header fields"):
        handshake.start_response(101, [])
    data = handshake.start_response(499, [(b"x", b"y"), (b"Connection", b"keep-alive")])
    data += handshake.send_body(b"go ", more=True) + handshake.send_body(b"away", more=False)
    answer, body, _ = response(data)
    assert (answer.status_code, body) == (499, b"go away")
    assert list(answer.headers)[:2] == [(b"x", b"y"), (b"connection", b"close")]
    with pytest.raises(RuntimeError, match="Expected another order of responses"):
        handshake.send_body(b"more", more=True)


def test_a_page_on_the_same_port() -> None:
    handshake = ServerHandshake()
    refusal = handshake.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    assert isinstance(refusal, Refusal)
    assert handshake.request is not None
    assert not asks_for_websocket(group_fields(list(handshake.request.headers)))
    data = handshake.http.next_event()
    assert isinstance(data, h11.Data)
    assert data.data == b"hi"
    assert isinstance(handshake.http.next_event(), h11.EndOfMessage)
    sent = handshake.http.send(h11.Response(status_code=204, headers=[]))
    assert sent is not None
    assert b" 204 " in sent
