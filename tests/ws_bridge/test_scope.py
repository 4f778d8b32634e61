from __future__ import annotations

from typing import Any

import pytest

from hubbub.wire.handshake import UpgradeRequest
from hubbub.ws_bridge import build_ws_scope
from hubbub.ws_bridge.scope import Endpoint, endpoint


def request(target: bytes = b"/", **fields: Any) -> UpgradeRequest:
    return UpgradeRequest(
        **{
            "target": target,
            "headers": [(b"host", b"x")],
            "key": b"",
            "subprotocols": ("a", "b"),
            "extensions": (),
            **fields,
        }
    )


def test_a_scope_in_full() -> None:
    state = {"db": object()}
    scope = build_ws_scope(
        request(b"/caf%C3%A9%2Fx/%ff?q=%20&r"),
        client=("::1", 5),
        server=("/run/sock", None),
        secure=True,
        root_path="/app",
        state=state,
        extensions={"x": 1},
    )
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "wss",
        "path": "/café/x/\ufffd",
        "raw_path": b"/caf%C3%A9%2Fx/%ff",
        "query_string": b"q=%20&r",
        "root_path": "/app",
        "headers": [(b"host", b"x")],
        "client": ("::1", 5),
        "server": ("/run/sock", None),
        "subprotocols": ["a", "b"],
        "state": state,
        "extensions": {"websocket.http.response": {}, "x": 1},
    }
    assert scope["state"] is not state


def test_a_scope_without_all_that() -> None:
    scope = build_ws_scope(request())
    assert "state" not in scope
    assert "method" not in scope
    assert (scope["scheme"], scope["query_string"]) == ("ws", b"")
    assert scope["client"] is scope["server"] is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("::1", 80, 0, 0), ("::1", 80)),
        (("fe80::1%eth0", 80, 0, 2), ("fe80::1", 80)),
        (("::ffff:192.0.2.1", 80, 0, 0), ("192.0.2.1", 80)),
        (("::ffff:1:2:3", 80, 0, 0), ("::ffff:1:2:3", 80)),
        ("/run/sock", ("/run/sock", None)),
        (b"\0abstract", ("\0abstract", None)),
        ("", None),
        (None, None),
    ],
)
def test_endpoints(address: object, expected: Endpoint) -> None:
    assert endpoint(address) == expected
