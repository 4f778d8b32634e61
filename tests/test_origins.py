from __future__ import annotations

import re
from typing import Any

import pytest

from hubbub import App, WebSocket
from hubbub.origins import OriginCheck
from tests.peer import Peer, call


async def handler(ws: WebSocket) -> None:
    await ws.accept()


async def status(app: App, *origins: str, host: str | None = "chat.example") -> Any:
    """The status that a browser's connection is rejected with, None when it is let in."""
    headers = [(b"origin", origin.encode()) for origin in origins]
    peer = Peer(headers=headers + ([(b"host", host.encode())] if host is not None else []))
    peer.leave()
    await call(app, peer)
    return peer.sent[0].get("status")


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("https://chat.example", "chat.example", None),
        ("http://chat.example", "chat.example", None),
        ("http://CHAT.example", "chat.EXAMPLE", None),
        ("https://chat.example", "chat.example:443", None),
        ("http://chat.example:8000", "chat.example:8000", None),
        ("http://[::1]:8000", "[::1]:8000", None),
        ("https://evil.example", "chat.example", 403),
        ("https://chat.example.evil.example", "chat.example", 403),
        ("https://chat.example", "chat.example:8000", 403),
        ("http://chat.example:3000", "chat.example:8000", 403),
        ("null", "chat.example", 403),
        ("null", "", 403),
        ("", "", 403),
        ("http://[", "chat.example", 403),
        ("http://chat.example", "[", 403),
        ("https://chat.example", None, 403),
        ("file://", "chat.example", 403),
    ],
)
async def test_by_default_pages_of_the_same_host(
    origin: str, host: str | None, expected: int | None
) -> None:
    assert await status(App({"/": handler}), origin, host=host) == expected


async def test_who_is_no_browser_is_let_in() -> None:
    assert await status(App({"/": handler})) is None
    assert await status(App({"/": handler}), host=None) is None
    assert await status(App({"/": handler}, origins=[])) is None


async def test_the_handler_never_sees_who_is_rejected() -> None:
    async def handler(ws: WebSocket) -> None:
        pytest.fail("it was called")

    assert await status(App({"/": handler}), "https://evil.example") == 403


async def test_the_log_tells_who_is_rejected_and_what_would_let_it_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await status(App({"/": handler}), "http://localhost:3000") == 403
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "'http://localhost:3000' may not connect to /: see App(origins" in record.getMessage()


async def test_two_origins_are_none() -> None:
    app = App({"/": handler})
    assert await status(app, "https://chat.example", "https://chat.example") == 403


async def test_a_list() -> None:
    app = App({"/": handler}, origins=["https://a.example", "null"])
    assert await status(app, "https://a.example") is None
    assert await status(app, "null") is None
    assert await status(app, "https://chat.example") == 403
    assert await status(app, "http://a.example") == 403


async def test_everybody() -> None:
    assert await status(App({"/": handler}, origins=None), "https://evil.example") is None


def test_not_a_single_string() -> None:
    with pytest.raises(TypeError, match="Expected a list of origins, or 'same-host'"):
        OriginCheck("https://a.example")


@pytest.mark.parametrize(
    ("origin", "better"),
    [
        ("*", "https://example.org"),
        ("a.example", "https://example.org"),
        ("https://*.example", "https://www.example"),
        ("https://a.example/", "https://a.example"),
        ("https://A.example:443", "https://a.example"),
    ],
)
def test_not_what_no_browser_sends(origin: str, better: str) -> None:
    with pytest.raises(ValueError, match=f"such as {re.escape(better)}, got"):
        OriginCheck([origin])
