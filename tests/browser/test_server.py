"""Our own server, visited by a real Chromium."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests.interop.visit import SCRIPT, expect_visit, make_app
from tests.ws_bridge.peers import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

_PATIENCE = 20.0  # seconds


@pytest.fixture
def ends() -> list[tuple[int | None, str]]:
    """How the application heard of the end of an echo."""
    return []


@pytest.fixture
def url(ends: list[tuple[int | None, str]], anyio_backend: tuple[str, Any]) -> Iterator[str]:
    with start_blocking_portal(*anyio_backend) as portal:
        with portal.wrap_async_context_manager(served(make_app(ends))) as (host, port):
            yield f"ws://{host}:{port}"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_page() as page:
        yield page


def test_a_visit(page: Page, url: str, ends: list[tuple[int | None, str]]) -> None:
    expect_visit(page.evaluate(SCRIPT, url))
    expect(ends, [(4321, "why")])


def test_a_page_that_is_left(page: Page, url: str, ends: list[tuple[int | None, str]]) -> None:
    page.evaluate(
        """(url) => new Promise((resolve) => {
            window.socket = new WebSocket(url + "/echo");
            window.socket.onopen = resolve;
        })""",
        url,
    )
    page.close()
    expect(ends, [(1001, "")])


def expect(ends: list[tuple[int | None, str]], wanted: list[tuple[int | None, str]]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not ends and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ends == wanted
