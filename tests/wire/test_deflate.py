from __future__ import annotations

import random
import zlib

import pytest

from hubbub.wire.deflate import (
    OFFER,
    Inflater,
    PerMessageDeflate,
    check_answer,
    deflate,
    negotiate,
)
from hubbub.wire.events import Failure
from hubbub.wire.frames import Role
from hubbub.wire.headers import parse_extensions

MIB = 1024 * 1024


def inflater(*, takeover: bool = False, bits: int = 15, max_size: int | None = MIB) -> Inflater:
    return Inflater(takeover=takeover, window_bits=bits, max_size=max_size)


# Negotiation as a server


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        (
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
                "; server_max_window_bits=10"
            ),
        ),
        (
            "permessage-deflate; client_max_window_bits=11",
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
                "; client_max_window_bits=11"
            ),
        ),
        (
            'permessage-deflate; server_max_window_bits="8"; server_no_context_takeover',
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
                "; server_max_window_bits=8"
            ),
        ),
        (
            (
                "x-webkit-deflate-frame, permessage-deflate; unknown, permessage-deflate"
                "; client_no_context_takeover; server_max_window_bits=15"
            ),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
                "; server_max_window_bits=15"
            ),
        ),
    ],
)
def test_the_first_valid_offer_is_answered(offers: str, answer: str) -> None:
    agreed = negotiate(parse_extensions([offers]))
    assert agreed is not None
    assert str(agreed.extension()) == answer


def test_the_client_may_keep_its_context_where_we_let_it() -> None:
    agreed = negotiate([OFFER], client_no_context_takeover=False)
    assert agreed is not None
    assert agreed.client_no_context_takeover  # it said that it does not
    offers = parse_extensions(["permessage-deflate"])
    agreed = negotiate(offers, client_no_context_takeover=False)
    assert agreed == PerMessageDeflate(server_no_context_takeover=True)


@pytest.mark.parametrize(
    "parameters",
    [
        "foo",
        "foo=1",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=08",
        'server_max_window_bits=""',
        "client_max_window_bits=16",
        "client_max_window_bits=+9",
        "client_max_window_bits; client_max_window_bits=10",
        "server_no_context_takeover; server_no_context_takeover",
    ],
)
def test_invalid_parameters_decline_the_offer(parameters: str) -> None:
    offers = parse_extensions([f"permessage-deflate; {parameters}"])
    assert negotiate(offers) is None
    with pytest.raises(ValueError, match="Expected"):
        check_answer(offers)


# Negotiation as a client


@pytest.mark.parametrize(
    ("answer", "agreed"),
    [
        ("", None),
        ("permessage-deflate", PerMessageDeflate()),
        (
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
                "; server_max_window_bits=9; client_max_window_bits=12"
            ),
            PerMessageDeflate(True, True, 9, 12),
        ),
    ],
)
def test_answers(answer: str, agreed: PerMessageDeflate | None) -> None:
    assert check_answer(parse_extensions([answer])) == agreed


@pytest.mark.parametrize(
    "answer",
    [
        "foo",
        "permessage-deflate, foo",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate; client_max_window_bits",
    ],
)
def test_answers_that_were_not_asked_for(answer: str) -> None:
    with pytest.raises(ValueError, match="Expected"):
        check_answer(parse_extensions([answer]))


def test_directions() -> None:
    agreed = PerMessageDeflate(server_no_context_takeover=True, client_max_window_bits=10)
    assert agreed.window_bits(Role.SERVER) == 15
    assert agreed.window_bits(Role.CLIENT) == 10
    assert not agreed.takeover(Role.SERVER)
    assert agreed.takeover(Role.CLIENT)


# Messages


HELLO = "f2 48 cd c9 c9 07 00"


@pytest.mark.parametrize(
    "compressed",
    [
        HELLO,  # RFC 7692 §7.2.3.1
        "00 05 00 fa ff 48 65 6c 6c 6f 00",  # §7.2.3.3: a block with no compression
        "f3 48 cd c9 c9 07 00 00",  # §7.2.3.4: a block with BFINAL
        "f2 48 05 00 00 00 ff ff ca c9 c9 07 00",  # §7.2.3.5: two blocks
    ],
)
@pytest.mark.parametrize("takeover", [False, True])
def test_examples_of_rfc7692_7_2_3(compressed: str, takeover: bool) -> None:
    inflate = inflater(takeover=takeover).inflate
    assert inflate(bytes.fromhex(compressed)) == b"Hello"
    assert inflate(bytes.fromhex(compressed)) == b"Hello"  # each message is whole by itself


def test_takeover_of_rfc7692_7_2_3_2() -> None:
    second = bytes.fromhex("f2 00 11 00 00")
    keeps = inflater(takeover=True)
    assert [keeps.inflate(bytes.fromhex(HELLO)), keeps.inflate(second)] == [b"Hello"] * 2
    forgets = inflater()
    forgets.inflate(bytes.fromhex(HELLO))
    with pytest.raises(Failure) as failure:
        forgets.inflate(second)
    assert failure.value.code == 1007


def test_no_octets() -> None:
    assert inflater().inflate(b"\0") == b""  # RFC 7692 §7.2.3.6
    assert inflater().inflate(b"") == b""


@pytest.mark.parametrize("bits", range(9, 16))
def test_round_trip_in_every_window(bits: int) -> None:
    payload = random.Random(bits).randbytes(40_000) * 2
    for data in (b"", b"a", payload):
        assert inflater(bits=bits).inflate(deflate(data, bits)) == data


def test_a_message_is_compressed_by_itself() -> None:
    assert deflate(b"Hello" * 100) == deflate(b"Hello" * 100)


def test_a_context_does_not_outlive_a_final_block() -> None:
    keeps = inflater(takeover=True)
    final = bytes.fromhex("f3 48 cd c9 c9 07 00 00")
    assert keeps.inflate(final) == b"Hello"
    assert keeps.inflate(bytes.fromhex(HELLO)) == b"Hello"
    ended = zlib.compressobj(wbits=-15)
    assert keeps.inflate(ended.compress(b"end") + ended.flush(zlib.Z_FINISH)) == b"end"
    assert keeps.inflate(bytes.fromhex(HELLO)) == b"Hello"


def test_several_final_blocks() -> None:
    final = bytes.fromhex("f3 48 cd c9 c9 07 00")
    assert inflater().inflate(final * 15 + b"\0") == b"Hello" * 15
    assert inflater(max_size=None).inflate(final * 2) == b"Hello" * 2
    with pytest.raises(Failure, match="16 final blocks") as failure:
        inflater().inflate(final * 100_000)
    assert failure.value.code == 1007


# Limits


def test_the_limit_is_that_of_the_message() -> None:
    compressed = deflate(bytes(1000))
    assert inflater(max_size=1000).inflate(compressed) == bytes(1000)
    assert inflater(max_size=None).inflate(compressed) == bytes(1000)
    with pytest.raises(Failure) as failure:
        inflater(max_size=999).inflate(compressed)
    assert failure.value.code == 1009


def test_a_bomb_is_not_inflated_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    real = zlib.decompressobj

    class Spy:
        def __init__(self, bits: int) -> None:
            self.inner = real(bits)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def decompress(self, data: bytes, max_length: int) -> bytes:
            result = self.inner.decompress(data, max_length)
            asked.append((max_length, len(result)))
            return result

    bomb = deflate(bytes(64 * MIB))
    monkeypatch.setattr(zlib, "decompressobj", Spy)
    with pytest.raises(Failure) as failure:
        inflater(max_size=MIB).inflate(bomb)
    assert failure.value.code == 1009
    assert asked == [(MIB + 1, MIB + 1)]


def test_a_bomb_in_parts_with_final_blocks() -> None:
    part = zlib.compressobj(wbits=-15)
    final = part.compress(bytes(MIB // 2)) + part.flush(zlib.Z_FINISH)
    assert inflater().inflate(final * 2) == bytes(MIB)
    with pytest.raises(Failure) as failure:
        inflater().inflate(final * 3)
    assert failure.value.code == 1009


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x07", b"\x00\x05\x00\x00\x00"])
def test_what_is_not_deflate(garbage: bytes) -> None:
    with pytest.raises(Failure) as failure:
        inflater().inflate(garbage)
    assert failure.value.code == 1007
