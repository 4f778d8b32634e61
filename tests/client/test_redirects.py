"""Servers that send a client elsewhere."""

from __future__ import annotations

import pytest

from hubbub import App, WebSocket
from hubbub.client import connect
from hubbub.exceptions import HandshakeError
from tests.client.servers import hosted
from tests.ws_bridge.peers import served


class Redirect:
    """An application that redirects to what its query says, and keeps its requests."""

    def __init__(self, status: int = 302) -> None:
        self.status = status
        self.seen: list[WebSocket] = []

    async def __call__(self, ws: WebSocket) -> None:
        self.seen.append(ws)
        await ws.reject(self.status, {"Location": ws.query_params["to"]}, b"over there")


async def greet(ws: WebSocket) -> None:
    async with ws:
        await ws.send_json({str(name): value for name, value in ws.headers.items()})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_it_is_followed(status: int) -> None:
    app = App({"/": Redirect(status), "/there": greet})
    async with hosted("socket", app) as to, to("/?to=/there") as ws:
        await ws.receive_json()
        assert ws.url.path == "/there"


async def test_secrets_go_to_the_same_server_only() -> None:
    redirect = Redirect()
    headers = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Other": "c"}
    async with (
        served(App({"/": redirect, "/there": greet})) as (host, port),
        served(App({"/": greet})) as (_, other),
    ):
        url = f"ws://me@{host}:{port}/?to="
        async with connect(f"{url}/there") as ws:
            assert (await ws.receive_json())["authorization"] == "Basic bWU6"
        async with connect(f"ws://{host}:{port}/?to=/there", headers=headers) as ws:
            got = await ws.receive_json()
            assert (got["authorization"], got["cookie"], got["x-other"]) == ("Bearer x", "a=b", "c")
        async with connect(f"{url}ws://{host}:{other}/", headers=headers) as ws:
            got = await ws.receive_json()
            assert got["x-other"] == "c"
            assert "cookie" not in got
            assert "authorization" not in got
    assert redirect.seen[-1].headers["authorization"] == "Bearer x"


async def test_redirects_without_end() -> None:
    redirect = Redirect()
    async with hosted("socket", App({"/": redirect})) as to:
        with pytest.raises(HandshakeError) as raised:
            async with to("/?to="):  # to itself
                raise AssertionError
    assert (raised.value.status, raised.value.body) == (302, b"over there")
    assert len(redirect.seen) == 11


@pytest.mark.parametrize("location", ["ftp://a/", "ws://[", "http://a:99999/"])
async def test_redirects_to_nowhere(location: str) -> None:
    async with hosted("socket", App({"/": Redirect()})) as to:
        with pytest.raises(HandshakeError) as raised:
            async with to(f"/?to={location}"):
                raise AssertionError
    assert raised.value.status == 302
    assert raised.value.__notes__


async def test_a_redirect_without_a_location() -> None:
    async def redirect(ws: WebSocket) -> None:
        await ws.reject(302)

    async with hosted("socket", App({"/": redirect})) as to:
        with pytest.raises(HandshakeError) as raised:
            async with to():
                raise AssertionError
    assert raised.value.status == 302


async def test_a_stream_that_was_given_is_not_left_for_another() -> None:
    async with hosted("memory", App({"/": Redirect(), "/there": greet})) as to:
        with pytest.raises(HandshakeError) as raised:
            async with to("/?to=/there"):
                raise AssertionError
    assert raised.value.status == 302
