from __future__ import annotations

import pytest

from hubbub.prepared import Burst, Prepared
from hubbub.wire.deflate import PerMessageDeflate, deflate
from hubbub.wire.events import Close, Ping
from hubbub.wire.frames import BINARY, CLOSE, FIN, PING, PONG, RSV1, TEXT, Role, build_frame
from hubbub.wire.protocol import MOVES, Move, Protocol, State
from tests.wire.frame import frame, peer_frame, receive

DEFLATE = PerMessageDeflate(server_no_context_takeover=True)


@pytest.fixture(params=Role)
def role(request: pytest.FixtureRequest) -> Role:
    assert isinstance(request.param, Role)
    return request.param


def other(role: Role) -> Role:
    return Role.CLIENT if role is Role.SERVER else Role.SERVER


# The table


def make(role: Role, move: Move, protocol: Protocol) -> None:
    """Have a move happen, by the public methods."""
    if move is Move.SEND_MESSAGE:
        protocol.send_message("a")
    elif move is Move.SEND_CONTROL:
        protocol.send_ping()
    elif move is Move.SEND_CLOSE:
        protocol.send_close()
    elif move is Move.RECEIVE_CLOSE:
        receive(protocol, peer_frame(role, FIN | CLOSE))
    elif move is Move.FAIL:
        receive(protocol, b"\xff\xff")
    else:
        protocol.receive_eof()
        receive(protocol, b"")


WAYS = {
    State.OPEN: [],
    State.CLOSE_SENT: [Move.SEND_CLOSE],
    State.CLOSE_DUE: [Move.RECEIVE_CLOSE],
    State.CLOSED: [Move.SEND_CLOSE, Move.RECEIVE_CLOSE],
}
SENDS = {Move.SEND_MESSAGE, Move.SEND_CONTROL, Move.SEND_CLOSE}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("move", Move)
def test_every_cell_of_the_table(role: Role, state: State, move: Move) -> None:
    protocol = Protocol(role)
    for step in WAYS[state]:
        make(role, step, protocol)
    assert protocol.state is state
    if move in MOVES[state]:
        make(role, move, protocol)
        assert protocol.state is MOVES[state][move]
    elif move in SENDS:
        with pytest.raises(RuntimeError, match=f"can {move.value}, got state {state.name}"):
            make(role, move, protocol)
        assert protocol.state is state
    else:  # nothing is read any more
        make(role, move, protocol)
        assert protocol.state is state


def test_every_state_is_reached_and_ends() -> None:
    assert set(MOVES) == set(State)
    assert not MOVES[State.CLOSED]
    assert {State.OPEN, *(to for moves in MOVES.values() for to in moves.values())} == set(State)


# Closing


def test_we_close(role: Role) -> None:
    us, them = Protocol(role), Protocol(other(role))
    assert receive(them, us.send_close(4000, "done")) == [Close(4000, "done")]
    assert receive(us, them.send_message("last words")) == ["last words"]
    assert receive(us, them.send_close()) == [Close(4000, "done")]  # its own code comes back
    assert (us.state, them.state) == (State.CLOSED, State.CLOSED)
    assert (us.close_code, us.close_reason) == (4000, "done")


def test_both_close_at_once(role: Role) -> None:
    us, them = Protocol(role), Protocol(other(role))
    ours, theirs = us.send_close(1000), them.send_close(1001, "bye")
    assert receive(us, theirs) == [Close(1001, "bye")]
    assert receive(them, ours) == [Close(1000)]
    assert (us.state, them.state) == (State.CLOSED, State.CLOSED)


def test_a_close_without_code_is_answered_without_code() -> None:
    protocol = Protocol(Role.SERVER)
    assert receive(protocol, frame(FIN | CLOSE)) == [Close(1005)]
    assert protocol.send_close(1000, "ours") == b"\x88\0"


def test_a_fault_is_answered_with_its_code(role: Role) -> None:
    us, them = Protocol(role), Protocol(other(role))
    (close,) = receive(us, peer_frame(role, FIN | TEXT, b"\xff"))
    assert close == Close(1007, "invalid UTF-8: invalid start byte", failed=True)
    assert receive(them, us.send_close(1000)) == [Close(1007, "invalid UTF-8: invalid start byte")]


def test_a_fault_after_our_close(role: Role) -> None:
    protocol = Protocol(role)
    protocol.send_close()
    assert receive(protocol, b"\xff\xff")[0] == Close(1002, "reserved bit set", failed=True)
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1002)


def test_what_may_not_be_closed_with(role: Role) -> None:
    protocol = Protocol(role)
    for code, reason in [(1006, ""), (999, ""), (1000, "a" * 124)]:
        with pytest.raises(ValueError, match="Expected a close"):
            protocol.send_close(code, reason)
    assert protocol.state is State.OPEN


def test_what_nobody_will_read_is_not_inflated(role: Role) -> None:
    protocol = Protocol(role, deflate=PerMessageDeflate())
    protocol.send_close()
    protocol.discard()
    invalid = peer_frame(role, FIN | RSV1 | TEXT, b"\xff") + peer_frame(
        role, RSV1 | BINARY, b"\xff"
    )
    events = receive(protocol, invalid, peer_frame(role, FIN), peer_frame(role, FIN | CLOSE))
    assert events == [b"", b"", Close(1005)]
    protocol.discard()  # of nothing


def test_what_is_pending(role: Role) -> None:
    protocol = Protocol(role)
    assert not protocol.has_pending
    protocol.receive_data(peer_frame(role, 0x81, b"a") * 2)
    for pending in (True, False):
        assert protocol.next_event() == "a"
        assert protocol.has_pending is pending


def test_nothing_is_read_after_the_end(role: Role) -> None:
    protocol = Protocol(role)
    data = peer_frame(role, FIN | CLOSE, b"\x03\xe8") + peer_frame(role, FIN | TEXT, b"late")
    assert receive(protocol, data) == [Close(1000)]
    assert receive(protocol, data, b"\xff") == []
    protocol.receive_eof()
    assert receive(protocol, b"") == []
    assert protocol.close_code == 1000


def test_a_message_before_a_bad_frame_is_delivered(role: Role) -> None:
    protocol = Protocol(role)
    protocol.receive_data(peer_frame(role, FIN | TEXT, b"good") + b"\x83\x80")
    assert protocol.next_event() == "good"
    protocol.send_message("reply")
    assert protocol.next_event() == Close(1002, "reserved opcode 3", failed=True)
    protocol.send_message("what was under way")
    protocol.send_close()
    with pytest.raises(RuntimeError, match="send a message"):
        protocol.send_message("late")


def test_the_peer_leaves_without_a_word(role: Role) -> None:
    protocol = Protocol(role)
    protocol.receive_data(peer_frame(role, FIN | TEXT, b"a") + peer_frame(role, TEXT, b"b"))
    protocol.receive_eof()
    assert protocol.next_event() == "a"  # what came whole still counts
    assert protocol.next_event() == Close(1006)
    assert protocol.next_event() is None
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 1006)


# Sending


@pytest.mark.parametrize(
    ("send", "first", "payload"),
    [
        (lambda protocol: protocol.send_message("é"), FIN | TEXT, "é".encode()),
        (lambda protocol: protocol.send_message(""), FIN | TEXT, b""),
        (lambda protocol: protocol.send_message(b"\0" * 300), FIN | BINARY, b"\0" * 300),
        (lambda protocol: protocol.send_ping(), FIN | PING, b""),
        (lambda protocol: protocol.send_ping(b"x" * 125), FIN | PING, b"x" * 125),
        (lambda protocol: protocol.send_pong(b"x"), FIN | PONG, b"x"),
        (lambda protocol: protocol.send_close(1001, "é"), FIN | CLOSE, b"\x03\xe9\xc3\xa9"),
    ],
)
def test_frames_of_a_server(send, first: int, payload: bytes) -> None:  # type: ignore[no-untyped-def]  # a lambda for each method
    assert send(Protocol(Role.SERVER)) == build_frame(first, payload)
    sent = send(Protocol(Role.CLIENT))
    assert (sent[0], sent[1] & 0x80) == (first, 0x80)


def test_a_control_frame_that_is_too_long(role: Role) -> None:
    for send in (Protocol(role).send_ping, Protocol(role).send_pong):
        with pytest.raises(ValueError, match="at most 125 bytes, got 126"):
            send(b"a" * 126)


def test_a_ping_is_answered(role: Role) -> None:
    us, them = Protocol(role), Protocol(other(role))
    assert receive(us, them.send_ping(b"1")) == [Ping(b"1")]
    us.send_close()
    assert us.send_pong(b"1")  # also after our close frame: the peer's is not in (§5.5.2)


def test_what_is_worth_it_is_compressed(role: Role) -> None:
    us, them = Protocol(role, deflate=DEFLATE), Protocol(other(role), deflate=DEFLATE)
    cases: list[tuple[str | bytes, int]] = [
        ("a" * 127, FIN | TEXT),
        ("a" * 128, FIN | RSV1 | TEXT),
        (b"a" * 128, FIN | RSV1 | BINARY),
        (bytes(range(256)), FIN | BINARY),  # grows
    ]
    for message, first in cases:
        sent = us.send_message(message)
        assert sent[0] == first
        assert receive(them, sent) == [message]


def test_the_peer_says_which_window() -> None:
    message = bytes(range(200)) * 8  # repeats itself within the window of 512
    agreed = PerMessageDeflate(server_no_context_takeover=True, server_max_window_bits=9)
    sent = Protocol(Role.SERVER, deflate=agreed).send_message(message)
    assert sent == build_frame(FIN | RSV1 | BINARY, deflate(message, 9))


def test_each_direction_has_its_own_parameters(role: Role) -> None:
    agreed = PerMessageDeflate(
        server_no_context_takeover=role is Role.SERVER,
        client_no_context_takeover=role is Role.CLIENT,
    )  # so the peer alone may refer to its earlier messages
    first, second = bytes.fromhex("f248cdc9c90700"), bytes.fromhex("f200110000")  # RFC 7692 §7.2.3
    data = peer_frame(role, FIN | RSV1 | TEXT, first) + peer_frame(role, FIN | RSV1 | TEXT, second)
    assert receive(Protocol(role, deflate=agreed), data) == ["Hello", "Hello"]
    agreed = PerMessageDeflate(
        server_no_context_takeover=role is Role.CLIENT,
        client_no_context_takeover=role is Role.SERVER,
    )
    hello, close = receive(Protocol(role, deflate=agreed), data)
    assert (hello, close) == ("Hello", Close(1007, "invalid compressed data", failed=True))


def test_a_window_that_zlib_cannot_write() -> None:
    agreed = PerMessageDeflate(True, True, 8, 8)
    us, them = Protocol(Role.SERVER, deflate=agreed), Protocol(Role.CLIENT, deflate=agreed)
    for one, two in ((us, them), (them, us)):
        sent = one.send_message("a" * 1000)
        assert not sent[0] & RSV1
        assert receive(two, sent) == ["a" * 1000]
    compressed = frame(FIN | RSV1 | TEXT, deflate(b"a" * 1000, 9))
    assert receive(us, compressed) == ["a" * 1000]  # though the peer may well compress


# Messages for many


@pytest.mark.parametrize("data", ["a" * 200, b"a" * 200, "é", b""])
def test_a_batch_is_built_once(data: str | bytes) -> None:
    batch = Burst([Prepared(data), Prepared("and more")])
    plain = [Protocol(Role.SERVER).send_batch(batch) for _ in range(2)]
    small = [Protocol(Role.SERVER, deflate=DEFLATE).send_batch(batch) for _ in range(2)]
    assert plain[0] is plain[1]
    assert small[0] is small[1]
    for frames, protocol in (
        (plain[0], Protocol(Role.SERVER)),
        (small[0], Protocol(Role.SERVER, deflate=DEFLATE)),
    ):
        assert frames == protocol.send_message(data) + protocol.send_message("and more")


def test_batches_share_the_messages_they_have_in_common() -> None:
    """As when a member is excluded from one of them."""
    prepared = Prepared("a" * 200)
    one, other = Burst([prepared]), Burst([prepared, Prepared("b")])
    frame = Protocol(Role.SERVER, deflate=DEFLATE).send_batch(one)
    assert Protocol(Role.SERVER, deflate=DEFLATE).send_batch(other).startswith(frame)
    assert prepared.frames == {15: frame}
    narrow = PerMessageDeflate(server_no_context_takeover=True, server_max_window_bits=10)
    Protocol(Role.SERVER, deflate=narrow).send_batch(one)
    Protocol(Role.SERVER).send_batch(one)
    assert set(prepared.frames) == {0, 10, 15}


def test_a_client_masks_each_frame() -> None:
    batch = Burst([Prepared("a")])
    client = Protocol(Role.CLIENT)
    sent = {client.send_batch(batch) for _ in range(20)}
    assert len(sent) == 20
    assert receive(Protocol(Role.SERVER), *sent) == ["a"] * 20


def test_a_batch_needs_an_open_connection_too(role: Role) -> None:
    protocol = Protocol(role)
    batch = Burst([Prepared("a")])
    Protocol(Role.SERVER).send_batch(batch)
    protocol.send_close()
    with pytest.raises(RuntimeError, match="send a message"):
        protocol.send_batch(batch)
