"""Delays between attempts."""

from __future__ import annotations

import pytest

from hubbub.backoff import Backoff


def test_delays_grow_up_to_the_longest() -> None:
    backoff = Backoff(first=1, factor=3, maximum=20)
    for failures, longest in [(1, 1), (2, 3), (3, 9), (4, 20), (5, 20), (10_000, 20)]:
        delays = [backoff.delay(failures) for _ in range(50)]
        assert all(longest / 2 <= delay <= longest for delay in delays)
        assert len(set(delays)) > 1


def test_without_delay() -> None:
    assert Backoff(first=0).delay(10_000) == 0


@pytest.mark.parametrize("fields", [{"first": -1}, {"maximum": -1}, {"factor": 0.9}])
def test_what_cannot_be_meant(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Expected delays"):
        Backoff(**fields)
