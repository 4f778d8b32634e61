from __future__ import annotations

import pytest


@pytest.fixture(params=["socket", "memory"])
def link(request: pytest.FixtureRequest) -> str:
    """What is between client and server: a socket of our own, or a stream that was given."""
    kind: str = request.param
    return kind
