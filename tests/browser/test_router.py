"""A router, visited by pages in a real Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal

from hubbub import App, Router, RouterError, WebSocket
from tests.ws_bridge.peers import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

router = Router()


@router.on_connect
async def authenticate(ws: WebSocket) -> None:
    if "nick" not in ws.query_params:
        raise RouterError("no_nick", "Wer bist du? Sag's uns — bitte")


@router.on("greet")
async def greet(ws: WebSocket) -> str:
    return f"hello {await ws.request('name', {})}"


@router.on("double")
async def double(payload: int) -> int:
    return payload * 2


# Greets, and answers what it is asked meanwhile; then says something wrong.
TALK = """
async (url) => {
  const socket = new WebSocket(url + "/open?nick=ann", ["hubbub.json"]);
  const heard = [];
  return new Promise((resolve) => {
    socket.onopen = () => socket.send(JSON.stringify({ type: "greet", id: 1 }));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      heard.push(message);
      if (message.type === "name")
        socket.send(JSON.stringify({ type: "name.reply", payload: "ann", id: message.id }));
      if (message.type === "greet.reply")
        socket.send(new Blob([JSON.stringify({ type: "double", payload: "x", id: 2 })]));
      if (message.type === "error") {
        socket.onclose = ({ code }) => resolve({ heard, code, protocol: socket.protocol });
        socket.close(4000);
      }
    };
  });
}
"""

CONNECT = """
(url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  let opened = false;
  socket.onopen = () => { opened = true; };
  socket.onclose = ({ code, reason }) => resolve({ opened, code, reason });
})
"""


@pytest.fixture
def url(anyio_backend: tuple[str, Any]) -> Iterator[str]:
    app = App({"/": router})
    everybodys = App({"/open": router}, origins=None)

    async def site(scope: Any, receive: Any, send: Any) -> None:
        await (everybodys if scope["path"] == "/open" else app)(scope, receive, send)

    with start_blocking_portal(*anyio_backend) as portal:
        with portal.wrap_async_context_manager(served(site)) as (host, port):
            yield f"ws://{host}:{port}"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_page() as page:
        yield page


def test_a_page_asks_is_asked_and_told_what_is_wrong(page: Page, url: str) -> None:
    told = page.evaluate(TALK, url)
    assert told["code"] == 4000
    assert told["protocol"] == "hubbub.json"
    name, greeting, error = told["heard"]
    assert name == {"type": "name", "payload": {}, "id": "call-1"}
    assert greeting == {"type": "greet.reply", "payload": "hello ann", "id": 1}
    assert error["payload"]["details"] == [{"path": "$", "message": "Expected `int`, got `str`"}]


def test_a_page_can_read_why_it_is_not_wanted(page: Page, url: str) -> None:
    told = page.evaluate(CONNECT, f"{url}/open")
    assert told == {"opened": True, "code": 1008, "reason": "Wer bist du? Sag's uns — bitte"}


def test_a_page_of_another_site_is_rejected(page: Page, url: str) -> None:
    told = page.evaluate(CONNECT, f"{url}/?nick=ann")  # about:blank has no origin that counts
    assert told == {"opened": False, "code": 1006, "reason": ""}
