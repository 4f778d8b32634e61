from __future__ import annotations

import pickle

import pytest

from hubbub import DecodeError, HubbubError, MessageTooBig, RouterError, WebSocketDisconnect
from hubbub.exceptions import ClientDisconnected


def test_the_tree() -> None:
    assert issubclass(DecodeError, ValueError)
    for error in (DecodeError, MessageTooBig, RouterError, WebSocketDisconnect):
        assert issubclass(error, HubbubError)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [(WebSocketDisconnect(), 1000, ""), (WebSocketDisconnect(4000, "why"), 4000, "why")],
)
def test_a_disconnect_says_how(error: WebSocketDisconnect, code: int, reason: str) -> None:
    assert (error.code, error.reason) == (code, reason)
    assert str(error) == f"WebSocket disconnected: code={code}, reason={reason}"
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.reason) == (code, reason)


def test_a_client_that_is_gone_says_how() -> None:
    error = pickle.loads(pickle.dumps(ClientDisconnected(4000, "why")))
    assert issubclass(ClientDisconnected, OSError)
    assert (error.code, error.reason) == (4000, "why")


def test_an_error_envelope_says_what() -> None:
    error = pickle.loads(pickle.dumps(RouterError("full", "The room is full", [4])))
    assert (error.code, error.message, error.details) == ("full", "The room is full", [4])
    assert str(error) == "full: The room is full"
    assert str(RouterError("full")) == "full"
