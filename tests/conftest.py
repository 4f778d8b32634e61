"""Every async test runs on asyncio, on asyncio with uvloop, and on trio."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from tests.peer import Peer

_WITHOUT_UVLOOP = pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not here")


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=_WITHOUT_UVLOOP),
        pytest.param(("trio", {}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def peer() -> Peer:
    return Peer()
