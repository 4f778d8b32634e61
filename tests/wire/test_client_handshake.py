from __future__ import annotations

import re

import pytest

from hubbub.exceptions import HandshakeError
from hubbub.wire.client_handshake import ClientHandshake, UpgradeResponse
from hubbub.wire.deflate import PerMessageDeflate, negotiate
from hubbub.wire.handshake import ServerHandshake, UpgradeRequest
from hubbub.wire.headers import accept_key
from tests.wire.frame import octets


def opening(**options: object) -> tuple[ClientHandshake, str]:
    """A client that has sent its request, and the accept value it waits for."""
    client = ClientHandshake("localhost", "/", **options)  # type: ignore[arg-type]  # of several types
    key = re.search(rb"sec-websocket-key: (\S+)", client.request())
    assert key is not None
    return client, accept_key(key[1]).decode()


def switching(accept: str, *more: str, **fields: str) -> bytes:
    values = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
    values.update(fields)
    lines = [f"{name}: {value}" for name, value in values.items() if value]
    head = ["HTTP/1.1 101 Switching Protocols", *lines, *more, "", ""]
    return "\r\n".join(head).encode()


def test_both_sides() -> None:
    client = ClientHandshake(
        "localhost:8000",
        "/chat?x=1",
        subprotocols=["a", "b"],
        headers=[(b"origin", b"http://localhost"), (b"cookie", b"c=1")],
    )
    server = ServerHandshake()
    request = server.receive_data(client.request())
    assert isinstance(request, UpgradeRequest)
    assert request.target == b"/chat?x=1"
    assert request.subprotocols == ["a", "b"]
    assert list(request.headers)[-2:] == [(b"origin", b"http://localhost"), (b"cookie", b"c=1")]
    agreed = negotiate(request.extensions)
    data = server.accept(request, subprotocol="b", deflate=agreed, headers=[(b"x", b"y")])
    response = client.receive_data(data + b"\x81\0")
    assert isinstance(response, UpgradeResponse)
    assert response.subprotocol == "b"
    assert response.deflate == agreed == PerMessageDeflate(True, True)
    assert (b"x", b"y") in response.headers
    assert response.trailing_data == b"\x81\0"


def test_nothing_is_offered_that_is_not_wanted() -> None:
    data = ClientHandshake("a", "/", deflate=False).request()
    assert b"sec-websocket-extensions" not in data
    assert b"sec-websocket-protocol" not in data


def test_keys_are_fresh() -> None:
    assert len({ClientHandshake("a", "/").request() for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("host", "target", "headers"),
    [("a\r\nb: c", "/", []), ("a", "/a b", []), ("a", "/", [(b"x", b"\n")])],
)
def test_misuse(host: str, target: str, headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ValueError, match="Expected a valid target and header fields"):
        ClientHandshake(host, target, headers=headers).request()


def test_a_subprotocol_that_is_none() -> None:
    with pytest.raises(ValueError, match="Expected a list of tokens"):
        ClientHandshake("a", "/", subprotocols=["a b"])


def test_octet_by_octet_after_an_informational_response() -> None:
    client, accept = opening()
    data = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + switching(accept)
    results = [client.receive_data(octet) for octet in octets(data)]
    assert results[:-1] == [None] * (len(results) - 1)
    assert results[-1] is not None
    assert (results[-1].subprotocol, results[-1].deflate) == (None, None)


@pytest.mark.parametrize(
    ("more", "fields", "message"),
    [
        ((), {"Upgrade": ""}, "Upgrade: websocket"),
        ((), {"Upgrade": "websocket, h2c"}, "Upgrade: websocket"),
        ((), {"Connection": "keep-alive"}, "Connection: upgrade"),
        ((), {"Connection": "a b"}, "a list of tokens"),
        ((), {"Sec-WebSocket-Accept": ""}, "Accept to match the key"),
        ((), {"Sec-WebSocket-Accept": "IWFl7jb/cQr6GRUcc1Ks8TkMANA="}, "Accept to match the key"),
        (("Sec-WebSocket-Protocol: c",), {}, "a subprotocol of"),
        (("Sec-WebSocket-Protocol: a, b",), {}, "a subprotocol of"),
        (("Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: a"), {}, "a subprotocol of"),
        (("Sec-WebSocket-Extensions: foo",), {}, "no extension but"),
        (("Sec-WebSocket-Extensions: permessage-deflate; x",), {}, "a parameter of"),
        (("Sec-WebSocket-Extensions: ;",), {}, "a list of extensions"),
        (tuple(f"X-{i}: 1" for i in range(128)), {}, "at most 128 header fields"),
    ],
)
def test_invalid_responses(more: tuple[str, ...], fields: dict[str, str], message: str) -> None:
    client, accept = opening(subprotocols=["a", "b"])
    with pytest.raises(HandshakeError, match=f"valid response 101: .*{message}") as error:
        client.receive_data(switching(accept, *more, **fields))
    assert error.value.status == 101
    assert error.value.headers


def test_an_extension_that_was_not_offered() -> None:
    client, accept = opening(deflate=False)
    with pytest.raises(HandshakeError, match="no extension, got permessage-deflate"):
        client.receive_data(switching(accept, "Sec-WebSocket-Extensions: permessage-deflate"))


def test_a_refusal_comes_with_its_body() -> None:
    client, _ = opening()
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\nX: y\r\n\r\n"
    assert client.receive_data(head + b"go ") is None
    with pytest.raises(HandshakeError, match="Expected status 101, got 403") as error:
        client.receive_data(b"away")
    assert (error.value.status, error.value.body) == (403, b"go away")
    assert (b"x", b"y") in error.value.headers


def test_a_refusal_that_ends_with_the_connection() -> None:
    client, _ = opening()
    assert client.receive_data(b"HTTP/1.1 500 Oops\r\n\r\nbo") is None
    with pytest.raises(HandshakeError, match="got 500") as error:
        client.receive_data(b"")
    assert error.value.body == b"bo"


def test_a_refusal_that_is_cut_off() -> None:
    client, _ = opening()
    assert client.receive_data(b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nbo") is None
    with pytest.raises(HandshakeError, match="got 500") as error:
        client.receive_data(b"")
    assert error.value.body == b"bo"


def test_an_endless_body_is_cut() -> None:
    client, _ = opening()
    assert client.receive_data(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(65536)) is None
    with pytest.raises(HandshakeError, match="got 200") as error:
        client.receive_data(b"a")
    assert len(error.value.body) == 65536


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the server closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "illegal status line"),
        (b"x" * 70_000, "Receive buffer too long"),
    ],
)
def test_no_http(data: bytes, why: str) -> None:
    client, _ = opening()
    with pytest.raises(HandshakeError, match=f"Expected an HTTP response: {why}") as error:
        client.receive_data(data)
    assert error.value.status is None
