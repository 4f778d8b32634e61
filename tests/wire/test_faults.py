"""The known faults of another bridge that are this layer's to avoid: each is a test here.

The numbers are those of the list they were collected in; the missing ones are not faults of
framing or handshake, and are tested where the sockets are.
"""

from __future__ import annotations

import pytest

from hubbub.wire.deflate import PerMessageDeflate, deflate, negotiate
from hubbub.wire.events import Close, Ping
from hubbub.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    RSV1,
    TEXT,
    Role,
    build_frame,
)
from hubbub.wire.handshake import Refusal, ServerHandshake, UpgradeRequest
from hubbub.wire.headers import accept_key
from hubbub.wire.protocol import Protocol, State
from tests.wire.frame import drain, frame, receive
from tests.wire.test_handshake import head


def upgrade(data: bytes) -> tuple[ServerHandshake, UpgradeRequest]:
    handshake = ServerHandshake()
    request = handshake.receive_data(data)
    assert isinstance(request, UpgradeRequest)
    return handshake, request


def test_01_the_guid_is_that_of_the_rfc() -> None:
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_02_compression_is_agreed_on_only_when_offered_and_then_works() -> None:
    handshake, request = upgrade(head())
    assert negotiate(request.extensions) is None
    assert b"permessage-deflate" not in handshake.accept(request)
    handshake, request = upgrade(head("Sec-WebSocket-Extensions: permessage-deflate"))
    agreed = negotiate(request.extensions)
    assert b"permessage-deflate" in handshake.accept(request, deflate=agreed)
    data = frame(FIN | RSV1 | TEXT, deflate(b"small"))
    assert receive(Protocol(Role.SERVER, deflate=agreed), data) == ["small"]


def test_03_headers_of_the_accept_are_sent() -> None:
    handshake, request = upgrade(head())
    assert b"\r\nx-a: b\r\n" in handshake.accept(request, headers=[(b"x-a", b"b")])


def test_04_subprotocols_are_read_from_all_fields_and_checked() -> None:
    fields = ("Sec-WebSocket-Protocol: a,", "Sec-WebSocket-Protocol: , b")
    handshake, request = upgrade(head(*fields))
    assert request.subprotocols == ["a", "b"]
    with pytest.raises(ValueError, match="a subprotocol of"):
        handshake.accept(request, subprotocol="c")


def test_05_fragments_are_one_message_and_have_one_limit() -> None:
    protocol = Protocol(Role.SERVER, max_message_size=4)
    data = frame(TEXT, b"ab") + frame(FIN | CONTINUATION, b"cd")
    assert receive(protocol, data[:5], data[5:]) == ["abcd"]
    data = frame(TEXT, b"ab") + frame(CONTINUATION, b"cd") + frame(FIN | CONTINUATION, b"e")
    assert receive(protocol, data) == [Close(1009, "message of more than 4 bytes", failed=True)]


def test_06_the_end_comes_once_with_code_and_reason() -> None:
    protocol = Protocol(Role.SERVER)
    assert receive(protocol, frame(FIN | CLOSE, b"\x0f\xa0why")) == [Close(4000, "why")]
    protocol.receive_eof()
    assert receive(protocol, b"") == []
    assert receive(Protocol(Role.SERVER), frame(FIN | CLOSE)) == [Close(1005)]


def test_07_the_close_of_the_client_is_answered() -> None:
    protocol = Protocol(Role.SERVER)
    receive(protocol, frame(FIN | CLOSE, b"\x03\xe9bye"))
    assert protocol.send_close() == build_frame(FIN | CLOSE, b"\x03\xe9bye")
    assert protocol.state is State.CLOSED


def test_08_after_our_close_the_answer_is_waited_for() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.send_close(1000)
    assert receive(protocol, frame(FIN | TEXT, b"crossing")) == ["crossing"]
    assert receive(protocol, frame(FIN | CLOSE, b"\x03\xe8")) == [Close(1000)]
    assert protocol.state is State.CLOSED


def test_11_what_comes_before_the_accept_is_noticed_and_kept() -> None:
    handshake, request = upgrade(head() + frame(FIN | TEXT, b"early"))
    handshake.accept(request)
    assert receive(Protocol(Role.SERVER), handshake.trailing_data) == ["early"]


@pytest.mark.parametrize(
    ("without", "status"), [("Sec-WebSocket-Version", 426), ("Sec-WebSocket-Key", 400)]
)
def test_13_version_and_key_are_checked_and_answered(without: str, status: int) -> None:
    handshake = ServerHandshake()
    refusal = handshake.receive_data(head(without=without))
    assert isinstance(refusal, Refusal)
    assert refusal.status == status
    assert handshake.refuse(refusal).startswith(f"HTTP/1.1 {status} ".encode())


def test_13_there_is_a_ping() -> None:
    assert receive(Protocol(Role.CLIENT), Protocol(Role.SERVER).send_ping(b"1")) == [Ping(b"1")]


def test_14_nothing_is_parsed_that_is_not_asked_for() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.receive_data(frame(FIN | BINARY, b"a") * 1000 + frame(FIN | CLOSE))
    assert protocol.next_event() == b"a"
    assert protocol.state is State.OPEN
    assert len(list(drain(protocol))) == 1000


def test_15_a_frame_is_whole_whatever_is_sent_between() -> None:
    protocol = Protocol(Role.SERVER)
    sent = protocol.send_message("a") + protocol.send_pong(b"") + protocol.send_message("b")
    assert sent == b"\x81\x01a\x8a\0\x81\x01b"


def test_16_a_send_after_the_end_is_an_error() -> None:
    protocol = Protocol(Role.SERVER)
    protocol.receive_eof()
    assert receive(protocol, b"") == [Close(1006)]
    with pytest.raises(RuntimeError, match="send a message, got state CLOSED"):
        protocol.send_message("a")


def test_17_an_accept_happens_once_and_an_empty_message_stays_one() -> None:
    handshake, request = upgrade(head())
    handshake.accept(request)
    with pytest.raises(RuntimeError, match="not been answered"):
        handshake.accept(request)
    assert Protocol(Role.SERVER).send_message("") == b"\x81\0"
    assert Protocol(Role.SERVER).send_message(b"") == b"\x82\0"
    assert receive(Protocol(Role.SERVER), frame(FIN | TEXT) + frame(FIN | BINARY)) == ["", b""]


def test_18_a_denial_is_a_proper_response() -> None:
    handshake, _ = upgrade(head())
    assert handshake.start_response(403, []).startswith(b"HTTP/1.1 403 Forbidden\r\n")
    handshake, _ = upgrade(head())
    with pytest.raises(RuntimeError, match="Expected another order of responses"):
        handshake.send_body(b"", more=False)
    handshake, _ = upgrade(head())
    with pytest.raises(ValueError, match="valid status and header fields"):
        handshake.start_response(403, [(b"a", b"b\r\nc: d")])


def test_20_a_fault_of_the_peer_is_an_event_and_raises_nothing() -> None:
    (close,) = receive(Protocol(Role.SERVER), b"GET / HTTP/1.1\r\n\r\n")
    assert close == Close(1002, "reserved bit set", failed=True)


def test_22_a_zip_bomb_stops_at_the_limit() -> None:
    protocol = Protocol(Role.SERVER, deflate=PerMessageDeflate(True), max_message_size=1 << 20)
    bomb = frame(FIN | RSV1 | BINARY, deflate(bytes(64 << 20)))
    assert len(bomb) < 400_000
    (close,) = receive(protocol, bomb)
    assert isinstance(close, Close)
    assert close.code == 1009


def test_22_many_small_bombs_are_inflated_one_by_one() -> None:
    protocol = Protocol(Role.SERVER, deflate=PerMessageDeflate(True), max_message_size=1 << 20)
    protocol.receive_data(frame(FIN | RSV1 | BINARY, deflate(bytes(1 << 20))) * 100)
    for _ in range(100):
        assert protocol.next_event() == bytes(1 << 20)
    assert protocol.next_event() is None


def test_pings_between_fragments() -> None:
    data = frame(TEXT, b"a") + frame(FIN | PING, b"p") + frame(FIN | CONTINUATION, b"b")
    assert receive(Protocol(Role.SERVER), data) == [Ping(b"p"), "ab"]
