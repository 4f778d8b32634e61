"""The demo's application: the page and the sockets, each at its place."""

from __future__ import annotations

import httpx
import pytest

from hubbub import Hub
from hubbub.demo.app import create_app


@pytest.mark.parametrize(
    ("path", "content_type", "holds"),
    [
        ("/", "text/html", "<title>hubbub chat</title>"),
        ("/style.css", "text/css", "prefers-color-scheme: dark"),
        ("/chat.js", "text/javascript", "new WebSocket"),
    ],
)
async def test_the_page_is_served(path: str, content_type: str, holds: str) -> None:
    transport = httpx.ASGITransport(create_app(Hub()))
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
        response = await client.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(content_type)
        assert holds in response.text


@pytest.mark.parametrize(("path", "status"), [("/ws/chat", 426), ("/ws/x", 404), ("/x", 404)])
async def test_what_is_no_page_is_not(path: str, status: int) -> None:
    transport = httpx.ASGITransport(create_app(Hub()))
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
        assert (await client.get(path)).status_code == status


async def test_the_page_asks_nobody_else_for_anything() -> None:
    transport = httpx.ASGITransport(create_app(Hub()))
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
        for path in ("/", "/style.css", "/chat.js"):
            text = (await client.get(path)).text.replace("http://www.w3.org/2000/svg", "")
            assert "//" not in text.replace("// ", "")
            assert "innerHTML" not in text
