"""The protocol against wsproto and websockets, both ways, whatever way the bytes are cut."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate as TheirDeflate
from websockets.frames import Opcode
from websockets.protocol import Protocol as Websockets
from websockets.protocol import Side
from wsproto import events as wsproto_events
from wsproto.connection import Connection as Wsproto
from wsproto.connection import ConnectionType
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

from hubbub.close_codes import is_close_code
from hubbub.wire import parser
from hubbub.wire.client_handshake import ClientHandshake, UpgradeResponse
from hubbub.wire.deflate import PerMessageDeflate, deflate, negotiate
from hubbub.wire.events import Close, Ping, Pong
from hubbub.wire.frames import BINARY, CONTINUATION, FIN, PING, RSV1, TEXT, Role
from hubbub.wire.handshake import Refusal, ServerHandshake, UpgradeRequest
from hubbub.wire.headers import parse_extensions
from hubbub.wire.masking import apply_mask, apply_mask_in_python
from hubbub.wire.protocol import MOVES, Move, Protocol, State
from tests.wire.frame import octets, peer_frame, receive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubbub.wire.events import Event

ROLES = st.sampled_from(Role)
TEXTS = st.text(max_size=200) | st.text("ab", min_size=120, max_size=400)
DATA = TEXTS | st.binary(max_size=200) | st.binary(min_size=65_500, max_size=65_600)
CONTROL = st.builds(Ping, st.binary(max_size=125)) | st.builds(Pong, st.binary(max_size=125))
BITS = st.none() | st.integers(9, 15)
AGREED = st.none() | st.builds(PerMessageDeflate, st.booleans(), st.booleans(), BITS, BITS)
CODES = st.sampled_from([1000, 1001, 1003, 1007, 1011, 3000, 4999])  # that all three know
REASONS = st.text(max_size=30)


@pytest.fixture(params=["c", "python"], scope="module")
def mask_path(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        function = apply_mask if request.param == "c" else apply_mask_in_python
        monkeypatch.setattr(parser, "apply_mask", function)
        yield


def other(role: Role) -> Role:
    return Role.CLIENT if role is Role.SERVER else Role.SERVER


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Some bytes, cut anywhere."""
    places = draw(st.lists(st.integers(0, len(data)), max_size=8))
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


# The oracles, each as far as it is needed: what it sends, and what it makes of what we send


def websockets_side(role: Role, agreed: PerMessageDeflate | None) -> Websockets:
    """Websockets in a role."""
    side = Websockets(Side.SERVER if role is Role.SERVER else Side.CLIENT, max_size=None)
    if agreed is not None:
        ours, theirs = (role, other(role))
        side.extensions = [
            TheirDeflate(
                remote_no_context_takeover=not agreed.takeover(theirs),
                local_no_context_takeover=not agreed.takeover(ours),
                remote_max_window_bits=agreed.window_bits(theirs),
                local_max_window_bits=agreed.window_bits(ours),
            )
        ]
    return side


def websockets_sends(side: Websockets, message: Event) -> bytes:
    if isinstance(message, str):
        side.send_text(message.encode())
    elif isinstance(message, bytes):
        side.send_binary(message)
    elif isinstance(message, Ping):
        side.send_ping(message.payload)
    elif isinstance(message, Pong):
        side.send_pong(message.payload)
    else:
        side.send_close(message.code, message.reason)
    return b"".join(side.data_to_send())


def websockets_receives(side: Websockets, data: bytes) -> list[Event]:
    side.receive_data(data)
    assert side.parser_exc is None
    received: list[Event] = []
    for frame in side.events_received():
        if frame.opcode is Opcode.TEXT:  # type: ignore[union-attr]  # a frame, after the handshake
            received.append(bytes(frame.data).decode())  # type: ignore[union-attr]  # as above
        elif frame.opcode is Opcode.BINARY:  # type: ignore[union-attr]  # as above
            received.append(bytes(frame.data))  # type: ignore[union-attr]  # as above
        elif frame.opcode is Opcode.CLOSE:  # type: ignore[union-attr]  # as above
            assert side.close_rcvd is not None
            received.append(Close(side.close_rcvd.code, side.close_rcvd.reason))
        else:
            kind = Ping if frame.opcode is Opcode.PING else Pong  # type: ignore[union-attr]  # as above
            received.append(kind(bytes(frame.data)))  # type: ignore[union-attr]  # as above
    return received


def wsproto_side(role: Role, agreed: PerMessageDeflate | None) -> Wsproto:
    extensions = []
    if agreed is not None:
        extension = WsprotoDeflate(
            client_no_context_takeover=agreed.client_no_context_takeover,
            client_max_window_bits=agreed.window_bits(Role.CLIENT),
            server_no_context_takeover=agreed.server_no_context_takeover,
            server_max_window_bits=agreed.window_bits(Role.SERVER),
        )
        extension._enabled = True
        extensions.append(extension)
    kind = ConnectionType.SERVER if role is Role.SERVER else ConnectionType.CLIENT
    return Wsproto(kind, extensions)  # type: ignore[arg-type]  # a list of a subclass


def wsproto_sends(side: Wsproto, message: Event) -> bytes:
    if isinstance(message, str):
        return side.send(wsproto_events.TextMessage(message))
    if isinstance(message, bytes):
        return side.send(wsproto_events.BytesMessage(message))
    if isinstance(message, Ping):
        return side.send(wsproto_events.Ping(message.payload))
    if isinstance(message, Pong):
        return side.send(wsproto_events.Pong(message.payload))
    return side.send(wsproto_events.CloseConnection(message.code, message.reason))


def wsproto_receives(side: Wsproto, data: bytes) -> list[Event]:
    side.receive_data(data)
    received: list[Event] = []
    parts: list[Any] = []
    for event in side.events():
        if isinstance(event, wsproto_events.Message):
            parts.append(event.data)
            if event.message_finished:
                empty: Any = type(event.data)()
                received.append(empty.join(bytes(p) if empty != "" else p for p in parts))
                parts = []
        elif isinstance(event, wsproto_events.CloseConnection):
            received.append(Close(event.code, event.reason or ""))
        elif isinstance(event, wsproto_events.Ping):
            received.append(Ping(bytes(event.payload)))
        else:
            assert isinstance(event, wsproto_events.Pong)
            received.append(Pong(bytes(event.payload)))
    return received


ORACLES: Any = [
    pytest.param(websockets_side, websockets_sends, websockets_receives, id="websockets"),
    pytest.param(wsproto_side, wsproto_sends, wsproto_receives, id="wsproto"),
]


def send(protocol: Protocol, message: Event) -> bytes:
    if isinstance(message, Ping):
        return protocol.send_ping(message.payload)
    if isinstance(message, Pong):
        return protocol.send_pong(message.payload)
    if isinstance(message, Close):
        return protocol.send_close(message.code, message.reason)
    return protocol.send_message(message)


MESSAGES = st.lists(DATA | CONTROL, max_size=6)
CLOSES = st.builds(Close, CODES, REASONS)


@pytest.mark.usefixtures("mask_path")
@pytest.mark.parametrize(("side", "sends", "receives"), ORACLES)
@settings(deadline=None)
@given(role=ROLES, agreed=AGREED, messages=MESSAGES, close=CLOSES, data=st.data())
def test_we_understand_them(
    side: Any,
    sends: Any,
    receives: Any,
    role: Role,
    agreed: PerMessageDeflate | None,
    messages: list[Event],
    close: Close,
    data: st.DataObject,
) -> None:
    del receives
    them = side(other(role), agreed)
    stream = b"".join(sends(them, message) for message in [*messages, close])
    chunks = data.draw(cuts(stream))
    assert receive(Protocol(role, deflate=agreed), *chunks) == [*messages, close]


@pytest.mark.parametrize(("side", "sends", "receives"), ORACLES)
@settings(deadline=None)
@given(role=ROLES, agreed=AGREED, messages=MESSAGES, close=CLOSES)
def test_they_understand_us(
    side: Any,
    sends: Any,
    receives: Any,
    role: Role,
    agreed: PerMessageDeflate | None,
    messages: list[Event],
    close: Close,
) -> None:
    del sends
    us = Protocol(role, deflate=agreed)
    stream = b"".join(send(us, message) for message in [*messages, close])
    assert receives(side(other(role), agreed), stream) == [*messages, close]


# Every split of the bytes


@st.composite
def streams(draw: st.DrawFn, role: Role, agreed: PerMessageDeflate | None) -> bytes:
    """Frames as no library sends them: fragments of any size, pings between them."""
    stream = b""
    for message in draw(st.lists(TEXTS | st.binary(max_size=200), max_size=4)):
        payload = message.encode() if isinstance(message, str) else message
        first = TEXT if isinstance(message, str) else BINARY
        if agreed is not None and draw(st.booleans()):
            payload = deflate(payload, agreed.window_bits(other(role)))
            first |= RSV1
        parts = draw(cuts(payload))
        for i, part in enumerate(parts):
            fin = FIN if i == len(parts) - 1 else 0
            stream += peer_frame(role, (CONTINUATION if i else first) | fin, part)
            if draw(st.booleans()):
                stream += peer_frame(role, FIN | PING, b"between")
    return stream


@pytest.mark.usefixtures("mask_path")
@settings(deadline=None)
@given(role=ROLES, agreed=AGREED, data=st.data())
def test_every_split_gives_the_same_events(
    role: Role, agreed: PerMessageDeflate | None, data: st.DataObject
) -> None:
    stream = data.draw(streams(role, agreed))
    if data.draw(st.booleans()):  # break it somewhere
        at = data.draw(st.integers(0, len(stream)))
        stream = stream[:at] + data.draw(st.binary(max_size=8)) + stream[at + 1 :]
    whole = receive(Protocol(role, deflate=agreed, max_message_size=500), stream)
    for chunks in (octets(stream), data.draw(cuts(stream))):
        assert receive(Protocol(role, deflate=agreed, max_message_size=500), *chunks) == whole


# The closing state machine

SENDS = (Move.SEND_MESSAGE, Move.SEND_CONTROL, Move.SEND_CLOSE)


@given(steps=st.lists(st.sampled_from([*SENDS, *Role]), max_size=12), data=st.data())
def test_two_ends_walk_the_table(steps: list[Move | Role], data: st.DataObject) -> None:
    """Whatever two connected ends do, each moves as the table says, and both can be closed."""
    ends = {role: Protocol(role) for role in Role}
    wires: dict[Role, bytes] = dict.fromkeys(Role, b"")  # what is under way to a role

    def deliver(role: Role) -> None:
        before = ends[role].state
        events, wires[role] = receive(ends[role], wires[role]), b""
        closes = [event for event in events if isinstance(event, Close)]
        assert not any(close.failed for close in closes)
        after = MOVES[before][Move.RECEIVE_CLOSE] if closes else before
        assert ends[role].state is after

    for step in steps:
        if isinstance(step, Role):
            deliver(step)
            continue
        role = data.draw(ROLES)
        end, before = ends[role], ends[role].state
        sends = {
            Move.SEND_MESSAGE: lambda end=end: end.send_message("a"),
            Move.SEND_CONTROL: lambda end=end: end.send_ping(),
            Move.SEND_CLOSE: lambda end=end: end.send_close(),
        }
        if step in MOVES[before]:
            wires[other(role)] += sends[step]()
            assert end.state is MOVES[before][step]
        else:
            with pytest.raises(RuntimeError, match="got state"):
                sends[step]()
    for role in (Role.CLIENT, Role.SERVER, Role.CLIENT):
        if Move.SEND_CLOSE in MOVES[ends[role].state]:
            wires[other(role)] += ends[role].send_close()
        deliver(other(role))
    assert {end.state for end in ends.values()} == {State.CLOSED}


# Garbage


@given(role=ROLES, agreed=AGREED, chunks=st.lists(st.binary(max_size=300), max_size=8))
def test_garbage_is_refused_and_nothing_else_happens(
    role: Role, agreed: PerMessageDeflate | None, chunks: list[bytes]
) -> None:
    protocol = Protocol(role, deflate=agreed, max_message_size=1000)
    receive(protocol, *chunks)
    protocol.receive_eof()
    events = receive(protocol, b"")
    assert protocol.close_code is not None
    assert is_close_code(protocol.close_code) or protocol.close_code in (1005, 1006)
    assert protocol.state in (State.CLOSE_DUE, State.CLOSED)
    if protocol.state is State.CLOSE_DUE:
        protocol.send_close()
        assert events == []
    assert protocol.next_event() is None


@given(role=ROLES, data=st.data())
def test_garbage_after_an_allowed_first_byte(role: Role, data: st.DataObject) -> None:
    agreed = PerMessageDeflate(server_no_context_takeover=True)
    first = data.draw(st.sampled_from([0x81, 0x82, 0x01, 0x02, 0xC1, 0x41, 0x88, 0x89]))
    payload = data.draw(st.binary(max_size=125))
    protocol = Protocol(role, deflate=agreed, max_message_size=1000)
    for event in receive(protocol, peer_frame(role, first, payload)):
        if isinstance(event, Close) and event.failed:
            assert event.code in (1002, 1007, 1009)


# The handshake

OFFERS = st.lists(
    st.sampled_from(
        [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=10; server_max_window_bits=9",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_max_window_bits=16",
            "x-other; a=1",
        ]
    ),
    max_size=3,
)


@given(offers=OFFERS, ask=st.booleans(), message=TEXTS)
def test_what_we_answer_is_what_websockets_allows(
    offers: list[str], ask: bool, message: str
) -> None:
    agreed = negotiate(parse_extensions(offers), client_no_context_takeover=ask)
    valid = [o for o in offers if o.startswith("permessage-deflate") and "=16" not in o]
    assert (agreed is not None) == bool(valid)
    us, them = Protocol(Role.SERVER, deflate=agreed), websockets_side(Role.CLIENT, agreed)
    for _ in range(2):
        assert websockets_receives(them, send(us, message)) == [message]
        assert receive(us, websockets_sends(them, message)) == [message]


@given(data=st.binary(max_size=400), valid=st.booleans(), at=st.integers(0, 200))
def test_no_bytes_break_the_servers_handshake(data: bytes, valid: bool, at: int) -> None:
    handshake = ServerHandshake()
    if valid:
        request = ClientHandshake("a", "/", subprotocols=["b"]).request()
        data = request[:at] + data + request[at + len(data) % 7 :]
    result = handshake.receive_data(data) or handshake.receive_data(b"")
    if result is None:
        assert not data
    elif isinstance(result, Refusal):
        assert handshake.refuse(result).startswith(b"HTTP/1.1 4")
    else:
        assert handshake.accept(result).startswith(b"HTTP/1.1 101")


@given(data=st.data(), subprotocols=st.lists(st.sampled_from("abc"), unique=True))
def test_a_handshake_with_every_split(data: st.DataObject, subprotocols: list[str]) -> None:
    client, server = ClientHandshake("a", "/x", subprotocols=subprotocols), ServerHandshake()
    (request,) = filter(
        None, map(server.receive_data, filter(None, data.draw(cuts(client.request()))))
    )
    assert isinstance(request, UpgradeRequest)
    agreed = negotiate(request.extensions)
    answer = server.accept(request, subprotocol=next(iter(subprotocols), None), deflate=agreed)
    for chunk in filter(None, data.draw(cuts(answer + b"first frame"))):
        response = client.receive_data(chunk)
        if response is not None:
            break
    else:
        pytest.fail("no response")
    assert isinstance(response, UpgradeResponse)
    assert response.deflate == agreed
    assert b"first frame".startswith(response.trailing_data)
