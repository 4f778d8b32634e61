"""Chat: the messages of the demo's chat, and the handler that serves one peer.

What a peer may say, what it is told, and who is told of it. No page and no server lives
here, and nothing of how outboxes are looked at. Made by the demo's application.

    peer -> chat:  chat.join {room}    chat.leave {room}    chat.say {room, text}
                   chat.flood {room}
    chat -> peer:  chat.welcome {nick, room}    chat.members {room, members}
                   chat.joined {room, nick}     chat.left {room, nick}
                   chat.said {room, nick, text} error {code, message, details}
                   chat.flooded {room, nick, number, of, ballast}

Each is an envelope of the message contract (``hubbub.router``).
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from itertools import count
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import anyio
import msgspec

from hubbub.codecs import json
from hubbub.codecs.envelope import JSON
from hubbub.exceptions import RouterError
from hubbub.member import Member  # noqa: TC001 - the router reads it at run time
from hubbub.policies import Block, Coalesce, Disconnect, DropNewest, DropOldest
from hubbub.router import Router

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubbub.hub import Hub
    from hubbub.outbox import Policy
    from hubbub.types import Data
    from hubbub.websocket import WebSocket

__all__ = ("Chat", "Departure", "Guest")

_LOBBY = "lobby"
_MAX_NAME = 32
_MAX_ROOMS = 20
_MAX_TEXT = 2000
_POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1
_TRY_AGAIN_LATER = 1013  # by IANA's registry of close codes: for slow consumers
_CAPACITY = 64  # messages: few, so that anybody can watch an outbox get full
_FLOOD = 400  # messages
_FLOOD_INTERVAL = 0.01  # seconds
_BALLAST = 6144  # random bytes in each, which no compression reduces: as text, 8 KiB
_DEPARTURES = 8  # that are remembered


class _InRoom(msgspec.Struct):
    room: str

    def __post_init__(self) -> None:
        self.room = _clean_name("room", self.room)


class _Say(_InRoom):
    text: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=_MAX_TEXT)]


class _Spoken(_InRoom):
    nick: str


_spoken = msgspec.json.Decoder(_Spoken)


def _speaker(message: Data) -> tuple[str, ...] | None:
    """Who said it, and where: what somebody said last takes the place of what they said before."""
    news = JSON.decode(message)
    if news.type not in ("chat.said", "chat.flooded"):
        return None
    spoken = _spoken.decode(news.payload)
    return news.type, spoken.room, spoken.nick


_POLICIES: dict[str, Policy] = {
    "disconnect": Disconnect(),
    "drop-oldest": DropOldest(),
    "drop-newest": DropNewest(),
    "coalesce": Coalesce(_speaker),
    "block": Block(),
}


class Guest(NamedTuple):
    """Who a member of the chat is: its data."""

    nick: str
    policy: str


class Departure(NamedTuple):
    """A guest whom the hub has disconnected."""

    guest: Guest
    reason: str
    at: float
    """The loop's time."""


class Chat:
    """The handler of the chat's connections.

        app = App({"/chat": Chat(hub)}, lifespan=hub)

    A peer gives its nick, the room that it begins in and its policy as parameters of the
    query: ``/chat?nick=ann&room=lobby&policy=drop-oldest``. A bad message is answered with an
    error and does not end the connection. Nothing that was said is kept.

    Attributes:
        guests: those who are being served.
        departures: the last guests that the hub has disconnected because they did not keep up.
    """

    def __init__(self, hub: Hub) -> None:
        """Make a chat whose rooms are the hub's."""
        self._hub = hub
        self._nicks: set[str] = set()
        self._visits: dict[Member, _Visit] = {}
        router = self._router = Router(grace=0.0)  # whoever has left has nothing more to say
        router.on("chat.join")(self._join)
        router.on("chat.leave")(self._leave)
        router.on("chat.say")(self._say)
        router.on("chat.flood", mode="concurrent", timeout=None)(self._flood)
        self.guests: set[Guest] = set()
        self.departures: deque[Departure] = deque(maxlen=_DEPARTURES)

    async def __call__(self, ws: WebSocket) -> None:
        """Serve one peer, for as long as it stays."""
        try:
            wanted = _clean_name("nick", ws.query_params.get("nick", ""))
            room = _clean_name("room", ws.query_params.get("room", _LOBBY))
            policy = _check_policy(ws.query_params.get("policy", "disconnect"))
        except ValueError as error:
            await ws.accept()
            await ws.close(_POLICY_VIOLATION, str(error))
            return
        # The nick is given back last: whoever takes it next comes after the notes that its
        # former owner has left.
        with self._reserve(wanted) as nick:
            await self._serve(ws, room, Guest(nick, policy))

    async def _serve(self, ws: WebSocket, room: str, guest: Guest) -> None:
        joined = self._hub.join(
            room, ws, policy=_POLICIES[guest.policy], capacity=_CAPACITY, data=guest
        )
        self.guests.add(guest)
        try:
            async with ws, joined as me:
                visit = self._visits[me] = _Visit(self._hub, me)
                try:
                    await visit.begin(room)
                    await self._router.run(ws, me)
                finally:
                    visit.end()
                    del self._visits[me]
        finally:
            self.guests.remove(guest)
            if ws.close_code == _TRY_AGAIN_LATER:
                reason = ws.close_reason or ""
                self.departures.append(Departure(guest, reason, anyio.current_time()))

    async def _join(self, me: Member, payload: _InRoom) -> None:
        await self._visits[me].join(payload.room)

    async def _leave(self, me: Member, payload: _InRoom) -> None:
        self._visit_in(payload.room, me).leave(payload.room)

    async def _say(self, me: Member, payload: _Say) -> None:
        await self._visit_in(payload.room, me).say(payload.room, payload.text)

    async def _flood(self, me: Member, payload: _InRoom) -> None:
        await self._visit_in(payload.room, me).flood(payload.room)

    def _visit_in(self, room: str, me: Member) -> _Visit:
        if room not in me.rooms:
            raise RouterError("not_in_room", "Expected a room that you are in")
        return self._visits[me]

    @contextmanager
    def _reserve(self, wanted: str) -> Iterator[str]:
        others = (f"{wanted}{number}" for number in count(2))
        nick = wanted
        while nick in self._nicks:
            nick = next(others)
        self._nicks.add(nick)
        try:
            yield nick
        finally:
            self._nicks.remove(nick)


class _Visit:
    """One peer's time in the chat."""

    def __init__(self, hub: Hub, me: Member) -> None:
        self._hub = hub
        self._me = me
        self._nick: str = me.data.nick
        self._floods = False
        # The rooms to tell of its leaving: a member that the hub has ended is in none any more.
        self._noted: set[str] = set()

    async def begin(self, room: str) -> None:
        self._note_joined(room)
        welcome = _encode("chat.welcome", nick=self._nick, room=room)
        self._hub.broadcast_nowait(room, welcome, exclude=self._others(room))
        await self._list_members(room)

    def end(self) -> None:
        for room in sorted(self._noted):
            self.leave(room)

    async def join(self, room: str) -> None:
        if room not in self._me.rooms:
            if len(self._me.rooms) >= _MAX_ROOMS:
                raise RouterError("too_many_rooms", f"Expected at most {_MAX_ROOMS} rooms")
            self._me.join(room)
            self._note_joined(room)
        await self._list_members(room)

    def leave(self, room: str) -> None:
        self._noted.remove(room)
        self._me.leave(room)
        self._hub.broadcast_nowait(room, _encode("chat.left", room=room, nick=self._nick))

    async def say(self, room: str, text: str) -> None:
        await self._hub.broadcast(room, _encode("chat.said", room=room, nick=self._nick, text=text))

    async def flood(self, room: str) -> None:
        if self._floods:
            raise RouterError("busy", "Expected your flood to be over")
        self._floods = True
        for number in range(1, _FLOOD + 1):
            if room not in self._me.rooms:
                break
            wave = _encode(
                "chat.flooded",
                room=room,
                nick=self._nick,
                number=number,
                of=_FLOOD,
                ballast=token_urlsafe(_BALLAST),
            )
            await self._hub.broadcast(room, wave)
            await anyio.sleep(_FLOOD_INTERVAL)
        self._floods = False

    def _note_joined(self, room: str) -> None:
        self._noted.add(room)
        joined = _encode("chat.joined", room=room, nick=self._nick)
        self._hub.broadcast_nowait(room, joined, exclude=self._me)

    async def _list_members(self, room: str) -> None:
        # Through the room, not straight to the peer: so the list stands in order with the
        # notes of who comes and goes, and no peer keeps a ghost.
        nicks = sorted(member.data.nick for member in self._hub.rooms[room].members)
        members = _encode("chat.members", room=room, members=nicks)
        await self._hub.broadcast(room, members, exclude=self._others(room))

    def _others(self, room: str) -> list[Member]:
        return [member for member in self._hub.rooms[room].members if member is not self._me]


def _clean_name(what: str, name: str) -> str:
    name = name.strip()
    if not (1 <= len(name) <= _MAX_NAME and name.isprintable()):
        raise ValueError(f"Expected a {what} of 1 to {_MAX_NAME} printable characters")
    return name


def _check_policy(name: str) -> str:
    if name not in _POLICIES:
        raise ValueError(f"Expected one of the policies {', '.join(_POLICIES)}")
    return name


def _encode(kind: str, **payload: Any) -> str:
    return json.encode({"type": kind, "payload": payload})
