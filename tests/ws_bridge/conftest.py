from __future__ import annotations

import pytest


@pytest.fixture(params=["socket", "memory"])
def link(request: pytest.FixtureRequest) -> str:
    """What is between server and peer: our own socket, or a stream with a reader and a writer."""
    kind: str = request.param
    return kind
