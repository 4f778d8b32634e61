"""Outboxes: what the demo shows of every member's outbox, a few times a second.

It goes over a connection of its own, which is in no room of the chat: watching does not change
what is watched. No message of the chat lives here. Made by the demo's application.

    outboxes -> peer:  outboxes {members, hidden, disconnected}

``members`` is a list of {nick, policy, waiting, capacity, bytes, max_bytes, dropped},
``hidden`` the number of members that are left out of it, ``disconnected`` a list of
{nick, policy, reason}: those of the last ten seconds, and without a reason those whose
connections the hub is still trying to close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from hubbub.codecs import json
from hubbub.demo.chat import Guest

if TYPE_CHECKING:
    from hubbub.demo.chat import Chat
    from hubbub.hub import Hub
    from hubbub.member import Member
    from hubbub.websocket import WebSocket

__all__ = ("Outboxes",)

_WATCHERS = ""  # the room of those who watch: a name that nobody can choose
_INTERVAL = 0.25  # seconds
_MAX_MEMBERS = 30
_REMEMBERED = 10.0  # seconds


class Outboxes:
    """The handler of connections that watch a chat's outboxes."""

    def __init__(self, hub: Hub, chat: Chat) -> None:
        """Make one for the members of a hub, who are a chat's guests."""
        self._hub = hub
        self._chat = chat

    async def __call__(self, ws: WebSocket) -> None:
        """Tell a peer how things stand, until it leaves."""
        # A member, so that the hub closes it as it does everybody. One message waits at most: how
        # things stood a while ago is of no interest.
        async with ws, self._hub.join(_WATCHERS, ws, capacity=1) as me:
            while True:
                await me.send(json.encode({"type": "outboxes", "payload": self._look()}))
                await anyio.sleep(_INTERVAL)

    def _look(self) -> dict[str, Any]:
        members = [each for each in self._hub.connections if isinstance(each.data, Guest)]
        ending = self._chat.guests.difference(member.data for member in members)
        since = anyio.current_time() - _REMEMBERED
        gone = [departure for departure in self._chat.departures if departure.at >= since]
        return {
            "members": [_describe(member) for member in members[:_MAX_MEMBERS]],
            "hidden": len(members[_MAX_MEMBERS:]),
            "disconnected": [
                *({**guest._asdict(), "reason": ""} for guest in sorted(ending)),
                *({**each.guest._asdict(), "reason": each.reason} for each in gone),
            ],
        }


def _describe(member: Member) -> dict[str, Any]:
    now = member.statistics()
    return {
        **member.data._asdict(),
        "waiting": now.waiting,
        "capacity": now.capacity,
        "bytes": now.waiting_bytes,
        "max_bytes": now.max_bytes,
        "dropped": now.dropped,
    }
