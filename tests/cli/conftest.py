from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the signal handlers back: the demo leaves them so that a second Ctrl-C kills."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
