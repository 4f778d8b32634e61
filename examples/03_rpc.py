"""Typed messages, replies, a stream, errors, and a question back: ``hubbub serve 03_rpc:app``.

Connect to ``/game?nick=ann``; say ``{"type": "say", "payload": {"text": "hi"}, "id": 1}``. The
messages are as docs/contract.md says.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta, Struct

from hubbub import App, Hub, Member, Router, RouterError, WebSocket

hub = Hub()
router = Router(join=lambda ws: hub.join("lobby", ws, data=ws.state.nick))


class Say(Struct):
    text: Annotated[str, Meta(min_length=1, max_length=500)]


@router.on_connect
async def authenticate(ws: WebSocket) -> None:
    if "nick" not in ws.query_params:
        raise RouterError("no_nick", "Say who you are")  # the page sees 1008 and this reason
    ws.state.nick = ws.query_params["nick"]


@router.on("say")
async def say(me: Member, payload: Say) -> int:  # the reply: how many there are to hear it
    said = {"type": "said", "payload": {"nick": me.data, "text": payload.text}}
    return (await hub.broadcast_json("lobby", said)).members


@router.on("count", mode="concurrent")  # others need not wait for it
async def count(payload: Annotated[int, Meta(ge=1, le=1000)]) -> AsyncIterator[int]:
    for number in range(payload):
        yield number


@router.on("leave")
async def leave(ws: WebSocket) -> None:
    if await ws.request("confirm", {"text": "Really?"}, timeout=60.0) is not True:
        raise RouterError("stayed", "You are still here")
    await ws.close()


app = App({"/game": router}, lifespan=hub)
