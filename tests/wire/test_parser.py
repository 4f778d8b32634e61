from __future__ import annotations

import itertools
import sys
import tracemalloc

import pytest

from hubbub.wire import parser
from hubbub.wire.deflate import PerMessageDeflate, deflate
from hubbub.wire.events import Close, Pause, Ping, Pong
from hubbub.wire.frames import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT, Role
from hubbub.wire.masking import apply_mask, apply_mask_in_python
from hubbub.wire.protocol import Protocol
from tests.wire.frame import drain, frame, octets, peer_frame, receive

DEFLATE = PerMessageDeflate(server_no_context_takeover=True, client_no_context_takeover=True)


@pytest.fixture(params=["c", "python"], autouse=True)
def mask_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    function = apply_mask if request.param == "c" else apply_mask_in_python
    monkeypatch.setattr(parser, "apply_mask", function)


@pytest.fixture(params=Role)
def role(request: pytest.FixtureRequest) -> Role:
    assert isinstance(request.param, Role)
    return request.param


def refusal(protocol: Protocol, data: bytes) -> Close:
    """The one event that some bytes lead to."""
    (close,) = receive(protocol, data)
    assert isinstance(close, Close)
    assert close.failed
    assert close.reason
    assert protocol.close_code == close.code
    return close


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_messages_of_every_length(role: Role, size: int) -> None:
    text = "é" * (size // 2) + "a" * (size % 2)
    data = peer_frame(role, FIN | TEXT, text.encode())
    data += peer_frame(role, FIN | BINARY, text.encode())
    for chunks in ([data], [data[:1], data[1:]], [data[:9], data[9:100], data[100:]]):
        assert receive(Protocol(role), *chunks) == [text, text.encode()]


def test_octet_by_octet(role: Role) -> None:
    data = (
        peer_frame(role, TEXT, "a☃".encode()[:2])
        + peer_frame(role, FIN | PING, b"here?")
        + peer_frame(role, CONTINUATION)
        + peer_frame(role, FIN | CONTINUATION, "a☃".encode()[2:])
        + peer_frame(role, FIN | BINARY, bytes(300))
        + peer_frame(role, FIN | PONG, bytes(125))
        + peer_frame(role, FIN | CLOSE, b"\x03\xe8bye")
    )
    events = [Ping(b"here?"), "a☃", bytes(300), Pong(bytes(125)), Close(1000, "bye")]
    assert receive(Protocol(role), data) == events
    assert receive(Protocol(role), *octets(data)) == events


def test_a_frame_that_begins_with_the_rest_of_another(role: Role) -> None:
    one, two = peer_frame(role, FIN | TEXT, b"one"), peer_frame(role, BINARY, b"tw")
    end = peer_frame(role, FIN | CONTINUATION, b"o")
    protocol = Protocol(role)
    assert receive(protocol, one + two[:-1]) == ["one"]
    assert receive(protocol, two[-1:] + end + one) == [b"two", "one"]


@pytest.mark.parametrize("size", [1, 126, 65536])
def test_a_header_that_is_not_whole_behind_a_message(role: Role, size: int) -> None:
    one, two = peer_frame(role, FIN | TEXT, b"one"), peer_frame(role, FIN | BINARY, bytes(size))
    for cut in range(1, 15):
        assert receive(Protocol(role), one + two[:cut], two[cut:]) == ["one", bytes(size)]


def test_parsing_stops_after_each_message(role: Role) -> None:
    protocol = Protocol(role)
    protocol.receive_data(peer_frame(role, FIN | TEXT, b"a") + peer_frame(role, FIN | TEXT, b"b"))
    assert protocol.next_event() == "a"
    protocol.receive_data(peer_frame(role, FIN | TEXT, b"c"))  # too early, but nothing is lost
    assert list(drain(protocol)) == ["b", "c"]


def test_compressed_messages_are_inflated_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    inflated: list[bytes] = []

    class Spy:
        def __init__(self, **options: object) -> None:
            pass

        def inflate(self, payload: bytes) -> bytes:
            inflated.append(payload)
            return b"message"

    monkeypatch.setattr("hubbub.wire.protocol.Inflater", Spy)
    protocol = Protocol(Role.SERVER, deflate=DEFLATE)
    protocol.receive_data(frame(FIN | RSV1 | TEXT, b"one") + frame(FIN | RSV1 | BINARY, b"two"))
    assert inflated == []
    assert protocol.next_event() == "message"
    assert inflated == [b"one"]
    assert protocol.next_event() == b"message"
    assert inflated == [b"one", b"two"]


@pytest.mark.parametrize("text", ["", "a", "é☃𐍈" * 1000])
def test_compressed_messages(role: Role, text: str) -> None:
    small = deflate(text.encode())
    half = len(small) // 2
    data = (
        peer_frame(role, FIN | RSV1 | TEXT, small)
        + peer_frame(role, RSV1 | BINARY, small[:half])
        + peer_frame(role, FIN | PING)
        + peer_frame(role, FIN | CONTINUATION, small[half:])
        + peer_frame(role, FIN | TEXT, b"plain")
    )
    events = [text, Ping(b""), text.encode(), "plain"]
    assert receive(Protocol(role, deflate=DEFLATE), data) == events
    assert receive(Protocol(role, deflate=DEFLATE), *octets(data)) == events


# Fail fast: two bytes are enough


def first_bytes(*, between: bool, with_deflate: bool) -> set[int]:
    """The first bytes that RFC 6455 §5 and RFC 7692 §6 allow, from their words."""
    allowed = set()
    for first in range(256):
        fin, rsv1, rsv23 = first & 0x80, first & 0x40, first & 0x30
        opcode = first & 0x0F
        if rsv23 or opcode not in (0, 1, 2, 8, 9, 10):
            continue
        if rsv1 and not (with_deflate and opcode in (1, 2)):
            continue
        if opcode >= 8 and not fin:
            continue
        if opcode < 8 and between is (opcode == 0):
            continue
        allowed.add(first)
    return allowed


@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("with_deflate", [True, False])
def test_every_first_byte(role: Role, between: bool, with_deflate: bool) -> None:
    allowed = first_bytes(between=between, with_deflate=with_deflate)
    second = b"\x80" if role is Role.SERVER else b"\0"
    for first in range(256):
        protocol = Protocol(role, deflate=DEFLATE if with_deflate else None)
        if not between:
            assert receive(protocol, peer_frame(role, TEXT)) == []
        if first in allowed:
            protocol.receive_data(bytes([first]) + second)
            assert protocol.next_event() is None or role is Role.CLIENT
        else:
            assert refusal(protocol, bytes([first]) + second).code == 1002


def test_reasons_for_first_bytes() -> None:
    for first, reason in {
        FIN | RSV1 | TEXT: "reserved bit set",
        FIN | 0x20 | TEXT: "reserved bit set",
        FIN | RSV1 | PING: "reserved bit set",
        FIN | 0x3: "reserved opcode 3",
        FIN | 0xB: "reserved opcode 11",
        PING: "control frame in fragments",
        FIN: "continuation of no message",
    }.items():
        assert refusal(Protocol(Role.SERVER), bytes([first, 0x80])).reason == reason
    protocol = Protocol(Role.SERVER)
    receive(protocol, frame(TEXT))
    assert refusal(protocol, b"\x82\x80").reason == "new message before the end of the last one"
    for first, reason in {
        FIN | RSV1 | BINARY: "new message before the end of the last one",
        FIN | RSV1 | CONTINUATION: "reserved bit set",
    }.items():
        protocol = Protocol(Role.SERVER, deflate=DEFLATE)
        receive(protocol, frame(RSV1 | TEXT))
        assert refusal(protocol, bytes([first, 0x80])).reason == reason


def test_the_mask_bit(role: Role) -> None:
    wrong = b"\x81\0" if role is Role.SERVER else b"\x81\x80"
    close = refusal(Protocol(role), wrong)
    assert close.code == 1002
    assert "mask" in close.reason


@pytest.mark.parametrize("length", [126, 127])
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_long_control_frame(role: Role, opcode: int, length: int) -> None:
    bit = 0x80 if role is Role.SERVER else 0
    assert refusal(Protocol(role), bytes([FIN | opcode, bit | length])).code == 1002


@pytest.mark.parametrize(
    ("length", "code"),
    [
        ("7e 0000", 1002),
        ("7e 007d", 1002),
        ("7f 0000000000000000", 1002),
        ("7f 000000000000ffff", 1002),
        ("7f 8000000000000000", 1002),
        ("7f ffffffffffffffff", 1002),
        ("7f 7fffffffffffffff", 1009),
        ("7f 0000000000100001", 1009),
    ],
)
def test_lengths_are_judged_before_the_payload(role: Role, length: str, code: int) -> None:
    octets_of_length = bytearray.fromhex(length)
    octets_of_length[0] |= 0x80 if role is Role.SERVER else 0
    for first in (FIN | BINARY, TEXT):
        protocol = Protocol(role, max_message_size=1 << 20)
        assert receive(protocol, bytes([first]) + octets_of_length[:-1]) == []
        assert refusal(protocol, bytes(octets_of_length[-1:])).code == code


def test_no_limit() -> None:
    protocol = Protocol(Role.SERVER, max_message_size=None)
    assert receive(protocol, b"\x82\xff\x7f" + b"\xff" * 7 + b"mask" + b"begin") == []
    assert protocol.close_code is None


# Limits


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_limit_counts_all_fragments(role: Role, opcode: int) -> None:
    protocol = Protocol(role, max_message_size=10)
    whole = peer_frame(role, opcode, b"12345") + peer_frame(role, FIN | CONTINUATION, b"67890")
    message = "1234567890" if opcode == TEXT else b"1234567890"
    assert receive(protocol, whole + whole) == [message, message]
    assert receive(protocol, peer_frame(role, opcode, b"12345")) == []
    close = refusal(protocol, peer_frame(role, CONTINUATION, b"678901"))
    assert (close.code, close.reason) == (1009, "message of more than 10 bytes")


def test_the_limit_is_in_bytes_after_inflation(role: Role) -> None:
    noise = bytes(range(256)) * 4
    stored = deflate(noise[:256])
    assert len(stored) > 256
    protocol = Protocol(role, deflate=DEFLATE, max_message_size=256)
    assert receive(protocol, peer_frame(role, FIN | RSV1 | BINARY, stored)) == [noise[:256]]
    bomb = peer_frame(role, FIN | RSV1 | BINARY, deflate(bytes(257)))
    assert refusal(protocol, bomb).code == 1009


def test_compressed_bytes_have_a_limit_too(role: Role) -> None:
    bit = 0x80 if role is Role.SERVER else 0
    protocol = Protocol(role, deflate=DEFLATE, max_message_size=1000)
    header = bytes([FIN | RSV1 | BINARY, bit | 126]) + (1000 + 250 + 64 + 1).to_bytes(2, "big")
    assert refusal(protocol, header).code == 1009
    protocol = Protocol(role, deflate=DEFLATE, max_message_size=1000)
    assert receive(protocol, peer_frame(role, RSV1 | BINARY, bytes(1300))) == []
    assert receive(protocol, peer_frame(role, CONTINUATION, bytes(14))) == []
    assert refusal(protocol, peer_frame(role, CONTINUATION, bytes(1))).code == 1009


def test_endless_empty_fragments(role: Role) -> None:
    protocol = Protocol(role)
    assert receive(protocol, peer_frame(role, BINARY)) == []
    empty = peer_frame(role, CONTINUATION)
    for _ in range(200):  # by then every line has run, which coverage notes in memory of its own
        assert receive(protocol, empty) == []
    tracemalloc.start()
    for _ in range(823):
        assert receive(protocol, empty) == []
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 2000
    close = refusal(protocol, empty)
    assert (close.code, close.reason) == (1009, "message with more than 1024 empty fragments")


def test_empty_fragments_are_counted_for_each_message(role: Role) -> None:
    one = peer_frame(role, TEXT) + peer_frame(role, CONTINUATION) * 1000
    one += peer_frame(role, FIN | CONTINUATION, b"a")
    assert receive(Protocol(role), one * 3) == ["a"] * 3


def test_frames_that_make_no_message_come_with_pauses(role: Role) -> None:
    protocol = Protocol(role)
    protocol.receive_data(peer_frame(role, FIN | PING) * 300)
    events = [protocol.next_event() for _ in range(303)]
    assert [place for place, event in enumerate(events) if event == Pause()] == [127, 255]
    assert events.count(Ping(b"")) == 300
    assert events[-1] is None
    fragments = peer_frame(role, TEXT) + peer_frame(role, CONTINUATION, b"a") * 300
    protocol.receive_data(fragments + peer_frame(role, FIN | CONTINUATION))
    events = [protocol.next_event() for _ in range(4)]
    assert events == [Pause(), Pause(), "a" * 300, None]


@pytest.mark.parametrize("first", [TEXT, BINARY])
def test_fragments_of_one_byte_cost_what_they_carry(role: Role, first: int) -> None:
    protocol = Protocol(role)
    receive(protocol, peer_frame(role, first, b"a"))
    fragments = peer_frame(role, CONTINUATION, b"a") * 100
    tracemalloc.start()
    for _ in range(1000):
        receive(protocol, fragments)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 1_000_000  # 100,000 characters; StringIO has four bytes for each
    size = 100_002
    message = receive(protocol, peer_frame(role, FIN | CONTINUATION, b"a"))
    assert message == ["a" * size if first == TEXT else b"a" * size]


def test_an_idle_connection_keeps_nothing(role: Role) -> None:
    protocol = Protocol(role)
    message = bytes(60_000)
    data = peer_frame(role, FIN | BINARY, message)
    references = sys.getrefcount(data)
    assert receive(protocol, data) == [message]
    assert sys.getrefcount(data) == references
    assert receive(protocol, part := data[:50_000]) == []
    assert sys.getrefcount(part) == 2


# UTF-8


def valid_prefixes() -> set[bytes]:
    """All beginnings, of one to three bytes, of the characters that are longer."""
    prefixes = set()
    for code in itertools.chain(range(0x80, 0xD800), range(0xE000, 0x110000)):
        encoded = chr(code).encode()
        prefixes |= {encoded[:size] for size in range(1, len(encoded))}
    return prefixes


def test_text_is_refused_as_soon_as_it_is_wrong() -> None:
    prefixes = valid_prefixes()
    tails = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF]
    candidates = [bytes([a]) for a in range(0x80, 0x100)]
    candidates += [bytes([a, b]) for a in range(0xC0, 0x100) for b in tails]
    candidates += [bytes([a, b, c]) for a in range(0xE0, 0x100) for b in tails for c in tails]
    for candidate in candidates:
        good = candidate in prefixes or _decodes(candidate)
        good = good or any(
            _decodes(candidate[:cut]) and candidate[cut:] in prefixes for cut in range(1, 3)
        )
        data = frame(FIN | TEXT, candidate + b"\x80\x80\x80")
        for chunks in ([data[:-3]], [data[:6], *octets(data[6:-3])]):
            protocol = Protocol(Role.SERVER)
            events = receive(protocol, *chunks)
            assert [e.code for e in events if isinstance(e, Close)] == ([] if good else [1007])


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"]
)
def test_invalid_text(role: Role, bad: bytes) -> None:
    for data in (
        peer_frame(role, FIN | TEXT, b"ok" + bad),
        peer_frame(role, TEXT, b"ok") + peer_frame(role, FIN | CONTINUATION, bad),
    ):
        end = refusal(Protocol(role), data)
        assert end.code == 1007
        assert receive(Protocol(role), *octets(data)) == [end]
    small = peer_frame(role, FIN | RSV1 | TEXT, deflate(bad))
    assert refusal(Protocol(role, deflate=DEFLATE), small).code == 1007
    assert receive(Protocol(role), peer_frame(role, FIN | BINARY, bad)) == [bad]


def test_a_character_in_several_fragments(role: Role) -> None:
    a, b, c, d = octets("𐍈".encode())
    data = peer_frame(role, TEXT, a)
    data += b"".join(peer_frame(role, CONTINUATION, part) for part in (b, b"", c, d))
    assert receive(Protocol(role), data + peer_frame(role, FIN | CONTINUATION)) == ["𐍈"]


# Close frames


@pytest.mark.parametrize(
    ("payload", "close"),
    [
        (b"", Close(1005)),
        (b"\x03\xe8", Close(1000)),
        (b"\x0f\xa0" + "é".encode(), Close(4000, "é")),
        (b"\x03\xe9" + b"a" * 123, Close(1001, "a" * 123)),
    ],
)
def test_close(role: Role, payload: bytes, close: Close) -> None:
    assert receive(Protocol(role), peer_frame(role, FIN | CLOSE, payload)) == [close]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_invalid_close_codes(role: Role, code: int) -> None:
    close = refusal(Protocol(role), peer_frame(role, FIN | CLOSE, code.to_bytes(2, "big")))
    assert (close.code, close.reason) == (1002, f"invalid close code {code}")


@pytest.mark.parametrize(("payload", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff", 1007)])
def test_invalid_close_frames(role: Role, payload: bytes, code: int) -> None:
    assert refusal(Protocol(role), peer_frame(role, FIN | CLOSE, payload)).code == code
