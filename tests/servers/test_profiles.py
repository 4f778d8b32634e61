"""Each profile of the testing kit is its server: the same probes find the same in both."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Response

from hubbub import WebSocketDisconnect
from hubbub.testing import Peer, Profile, Rejected, TestClient
from hubbub.types import Receive, Scope, Send

from . import raw
from .conftest import RawPeer, RunningServer, wait_until

pytestmark = pytest.mark.servers

Report: TypeAlias = dict[str, Any]
HEADERS = [("X-Probe", "1"), ("X-Probe", "2")]
CLOSES = pytest.param("/raw/listen", ("closes", 4321, "why"), id="peer-closes")
CLOSES_BARE = pytest.param("/raw/listen", ("closes", None, ""), id="peer-closes-without-a-code")
ABORTS = pytest.param("/raw/listen", ("aborts",), id="peer-aborts")
OTHERS = [
    pytest.param(path, ("listens",), id=path[5:]) for path in raw.ROUTES if path != "/raw/listen"
]
GRACE = 3  # seconds for a connection to end that a server might leave open


@pytest.mark.parametrize(("path", "act"), [CLOSES, CLOSES_BARE, ABORTS, *OTHERS])
@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["kit"])
async def test_profile(
    raw_server: RunningServer, path: str, act: tuple[Any, ...], key: str
) -> None:
    real = observe(raw_server, path, act, key)
    assert await simulate(raw_server.profile, path, act) == real


# -- The real server ----------------------------------------------------------------------


def observe(server: RunningServer, path: str, act: tuple[Any, ...], key: str) -> Report:
    """Connect, act, and report what either side has seen."""
    with RawPeer(server, path, headers=HEADERS, key=key) as peer:
        if path == "/raw/close" and not server.facts.close_waits:
            # The answer to the close would race with what is sent after it.
            wait_until(lambda: "send" in server.report(f"{key} so far"), "what is sent too late")
        while not peer.events and not peer.over:
            peer.read_some()
        seen = describe_response(peer.events.pop(0) if peer.events else None)
        if seen["status"] == 101:
            meet(peer, act, seen)
    return {"peer": seen, "application": server.report(key)}


def describe_response(response: Any) -> Report:
    if response is None:
        return {"status": None}
    assert isinstance(response, Response)
    if response.status_code == 401:
        return {"status": 401, "body": response.body}
    if response.status_code == 101:
        return {"status": 101, "x-probe": response.headers.get("X-Probe"), "heard": []}
    return {"status": response.status_code}


def meet(peer: RawPeer, act: tuple[Any, ...], seen: Report) -> None:
    if act[0] != "listens":
        peer.send("hello")
        while not peer.events:
            peer.read_some()
    if act[0] == "closes":
        peer.send_close(*act[1:])
    while act[0] == "closes" and not peer.over:
        peer.read_some()
    if act[0] == "listens":
        seen["end"] = listen(peer, seen["heard"])


def listen(peer: RawPeer, heard: list[str | bytes]) -> str:
    peer.socket.settimeout(GRACE)
    while True:
        while peer.events:
            frame = peer.events.pop(0)
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                return str(Close.parse(frame.data))
            data = bytes(frame.data)
            heard.append(data.decode() if frame.opcode is Opcode.TEXT else data)
        if peer.over:
            return str(Close(CloseCode.ABNORMAL_CLOSURE, ""))
        try:
            peer.read_some()
        except TimeoutError:
            return "none"


# -- The testing kit ----------------------------------------------------------------------


async def simulate(profile: Profile, path: str, act: tuple[Any, ...]) -> Report:
    """Do the same with a client that behaves like the server."""
    report: Report = {}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await raw.serve(scope, receive, send, report)
        else:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    client = TestClient(application, server=profile, raise_app_exceptions=False)
    async with client:
        try:
            async with client.connect(path, headers=HEADERS) as ws:
                probe = ws.headers.get("X-Probe")
                seen: Report = {"status": 101, "x-probe": probe, "heard": []}
                await meet_simulated(ws, act, seen)
        except Rejected as rejected:
            seen = {"status": rejected.status}
            if rejected.status == 401:
                seen["body"] = rejected.body
        except WebSocketDisconnect:
            seen = {"status": None}
    return {"peer": seen, "application": report}


async def meet_simulated(ws: Peer, act: tuple[Any, ...], seen: Report) -> None:
    if act[0] != "listens":
        await ws.send("hello")
        assert await ws.receive() == "heard"
    if act[0] == "closes":
        await ws.close(*act[1:])
    elif act[0] == "aborts":
        ws.abort()
    else:
        seen["end"] = await listen_simulated(ws, seen["heard"])


async def listen_simulated(ws: Peer, heard: list[str | bytes]) -> str:
    ws.timeout = GRACE
    try:
        heard.extend([message async for message in ws.iter_messages()])
    except TimeoutError:
        return "none"
    assert ws.close_code is not None
    return str(Close(ws.close_code, ws.close_reason or ""))
