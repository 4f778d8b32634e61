"""A client of a router: it says envelopes and hears envelopes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub import App
from tests.peer import Peer, eventually, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hubbub import Router

NOTHING: Any = object()


class Client(Peer):
    """A peer that talks JSON, or MessagePack when it says ``msgpack``."""

    def __init__(self, *, msgpack: bool = False, **scope: Any) -> None:
        super().__init__(**scope)
        self._codec: Any = msgspec.msgpack if msgpack else msgspec.json
        self._msgpack = msgpack

    def tell_router(self, type: str, payload: Any = NOTHING, id: Any = None) -> None:
        message = {"type": type}
        if payload is not NOTHING:
            message["payload"] = payload
        if id is not None:
            message["id"] = id
        encoded = self._codec.encode(message)
        self.say(encoded if self._msgpack else encoded.decode())

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [self._codec.decode(data) for data in self.heard]

    async def hear(self, number: int) -> list[dict[str, Any]]:
        """All that came so far: that many messages, once they are there."""
        await eventually(lambda: len(self.heard) >= number)
        messages = self.messages
        assert len(messages) == number
        return messages

    async def hear_payloads(self, number: int) -> list[Any]:
        return [message["payload"] for message in await self.hear(number)]

    async def hear_codes(self, number: int) -> list[str]:
        """The codes of the errors, with the types of what is no error."""
        return [
            message["payload"]["code"] if message["type"] == "error" else message["type"]
            for message in await self.hear(number)
        ]


@asynccontextmanager
async def connected(router: Router, *clients: Client) -> AsyncGenerator[Client]:
    """Serve some clients, one if none is given, until they have left."""
    clients = clients or (Client(),)
    async with running(App({"/": router}), *clients):
        yield clients[0]
        for client in clients:
            client.leave()
