from __future__ import annotations

import pytest

from hubbub.prepared import Burst, Prepared


@pytest.mark.parametrize(
    ("data", "size"), [("", 0), ("abc", 3), ("é☃", 5), (b"", 0), (b"\0\xff", 2)]
)
def test_size_is_in_bytes_of_payload(data: str | bytes, size: int) -> None:
    prepared = Prepared(data)
    assert prepared.data is data
    assert prepared.size == size


@pytest.mark.parametrize("data", [None, 1, bytearray(b"a"), ["a"]])
def test_what_is_no_message(data: object) -> None:
    with pytest.raises(TypeError, match="Expected a message of str or bytes, got"):
        Prepared(data)  # type: ignore[arg-type]


def test_a_text_that_has_no_utf8_form() -> None:
    with pytest.raises(UnicodeEncodeError):
        Prepared("\ud800")


def test_frames_are_built_once_and_joined_once() -> None:
    built: list[str | bytes] = []

    def build(data: str | bytes) -> bytes:
        built.append(data)
        return f"<{data!r}>".encode()

    one, two = Prepared("one"), Prepared("two")
    burst = Burst([one, two])
    assert one.build_frames(0, build) == b"<'one'>"
    assert burst.build_frames(0, build) == b"<'one'><'two'>"
    assert burst.frames == {0: b"<'one'><'two'>"}
    assert (one.frames, two.frames) == ({0: b"<'one'>"}, {0: b"<'two'>"})
    assert built == ["one", "two"]
