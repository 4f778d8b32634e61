from __future__ import annotations

from typing import Any

import pytest

from hubbub.datastructures import (
    Address,
    State,
    client_from_scope,
    encode_headers,
    join_repeated,
    query_params_from_scope,
    route_path_from_scope,
    state_from_scope,
    url_from_scope,
)


@pytest.mark.parametrize(
    ("scope", "url"),
    [
        ({}, "ws://localhost/"),
        ({"server": ("example.org", 80)}, "ws://example.org/"),
        ({"server": ("example.org", 443)}, "ws://example.org:443/"),
        ({"server": ("example.org", 443), "scheme": "wss"}, "wss://example.org/"),
        ({"server": ("::1", 8000)}, "ws://[::1]:8000/"),
        ({"server": ("/run/app.sock", None)}, "ws://localhost/"),
        ({"server": None, "headers": [(b"host", b"example.org:8000")]}, "ws://example.org:8000/"),
        ({"headers": [(b"host", b"example.org:80")]}, "ws://example.org/"),
        ({"headers": [(b"host", b"evil/path?x=[")]}, "ws://localhost/"),
        ({"headers": [(b"host", b"me@example.org")]}, "ws://localhost/"),
        ({"headers": [(b"host", b"[::1]:65000")]}, "ws://[::1]:65000/"),
        ({"headers": [(b"host", b"")]}, "ws://localhost/"),
        ({"headers": [(b"host", b"example.org:port")]}, "ws://localhost/"),
        ({"headers": [(b"host", b"example.org:99999")]}, "ws://localhost/"),
        ({"path": "/a b/ü", "query_string": b"x=%20&y"}, "ws://localhost/a%20b/%C3%BC?x=%20&y"),
        ({"path": "/chat", "query_string": None}, "ws://localhost/chat"),
        ({"path": "/a", "query_string": b"\xff#"}, "ws://localhost/a?%C3%BF%23"),
        ({"path": "/a?b#c"}, "ws://localhost/a%3Fb%23c"),
        ({"root_path": "/api", "path": "/chat"}, "ws://localhost/api/chat"),
        ({"root_path": "/api/", "path": "/api/chat"}, "ws://localhost/api/chat"),
        ({"root_path": "/api", "path": "/apichat"}, "ws://localhost/api/apichat"),
    ],
)
def test_url(scope: dict[str, Any], url: str) -> None:
    assert str(url_from_scope(scope)) == url


@pytest.mark.parametrize(
    ("root", "path", "route"),
    [
        ("", "/chat", "/chat"),
        (None, None, "/"),
        ("/ws", "/ws/chat", "/chat"),
        ("/ws", "/ws", "/"),
        ("/ws/", "/ws/", "/"),
        ("/ws", "/wschat", "/wschat"),
        ("/ws", "/chat", "/chat"),
    ],
)
def test_route_path(root: str | None, path: str | None, route: str) -> None:
    assert route_path_from_scope({"root_path": root, "path": path}) == route


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (None, None),
        (("10.0.0.1", 5000), Address("10.0.0.1", 5000)),
        (["10.0.0.1", "5000"], Address("10.0.0.1", 5000)),
        (["/run/app.sock", None], Address("/run/app.sock", 0)),
        (("", 0), Address("", 0)),
        (("fe80::1", 5000, 0, 2), Address("fe80::1", 5000)),
    ],
)
def test_client(client: Any, address: Address | None) -> None:
    assert client_from_scope({"client": client}) == address


def test_query_params_keep_what_is_empty_and_what_repeats() -> None:
    params = query_params_from_scope({"query_string": b"a=1&b=&c&a=%C3%A9"})
    assert list(params.items()) == [("a", "1"), ("b", ""), ("c", ""), ("a", "é")]


class TestState:
    def test_attributes_and_items_are_the_same(self) -> None:
        state = State()
        state.user = "ada"
        state["room"] = "lobby"
        assert (state["user"], state.room) == ("ada", "lobby")
        assert dict(state) == {"user": "ada", "room": "lobby"}
        assert len(state) == 2
        assert repr(state) == "State({'user': 'ada', 'room': 'lobby'})"
        del state.user
        del state["room"]
        assert not state

    def test_a_name_that_is_not_there(self) -> None:
        state = State()
        with pytest.raises(AttributeError, match="State has no attribute 'user'"):
            _ = state.user
        with pytest.raises(AttributeError, match="State has no attribute 'user'"):
            del state.user
        with pytest.raises(KeyError):
            _ = state["user"]

    def test_it_shows_the_scope(self) -> None:
        scope: dict[str, Any] = {"state": {"db": 1}}
        state_from_scope(scope).user = "ada"
        assert scope["state"] == {"db": 1, "user": "ada"}

    @pytest.mark.parametrize("scope", [{}, {"state": None}])
    def test_it_is_made_where_there_was_none(self, scope: dict[str, Any]) -> None:
        state_from_scope(scope).user = "ada"
        assert scope == {"state": {"user": "ada"}}


def test_headers_that_repeat_are_joined_but_cookies() -> None:
    pairs = [(b"vary", b"a"), (b"set-cookie", b"c"), (b"vary", b"b"), (b"set-cookie", b"d")]
    assert join_repeated(pairs) == [
        (b"vary", b"a, b"),
        (b"set-cookie", b"c"),
        (b"set-cookie", b"d"),
    ]


class TestEncodeHeaders:
    def test_a_mapping_or_pairs(self) -> None:
        assert encode_headers({"X-A": "1"}) == [(b"x-a", b"1")]
        assert encode_headers([("X-A", "1"), ("x-a", "2")]) == [(b"x-a", b"1"), (b"x-a", b"2")]
        assert encode_headers(()) == []

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("X A", "", "Expected a header name that is a token"),
            ("X:A", "", "Expected a header name that is a token"),
            ("é", "", "Expected a header name that is a token"),
            ("X-A\n", "", "Expected a header name that is a token"),
            ("sec-WebSocket-Accept", "", "Expected a header that is not the server's own"),
            ("X-A", "a\nb", "Expected header 'X-A' without CR, LF and NUL"),
            ("X-A", "€", "Expected header 'X-A' in Latin-1"),
        ],
    )
    def test_what_must_not_reach_the_wire(self, name: str, value: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            encode_headers({name: value})
