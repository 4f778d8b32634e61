"""Chat: the messages of the demo's chat, and the handler that serves one peer.

What a peer may say, what it is told, and who is told of it. No page and no server lives
here, and nothing of how outboxes are looked at. Made by the demo's application.

    peer -> chat:  chat.join {room}    chat.leave {room}    chat.say {room, text}
                   chat.flood {room}
    chat -> peer:  chat.welcome {nick, room}    chat.members {room, members}
                   chat.joined {room, nick}     chat.left {room, nick}
                   chat.said {room, nick, text} error {code, message}
                   chat.flooded {room, nick, number, of, ballast}

Each is JSON text, ``{"type": …, "payload": {…}}``.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from itertools import count
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import anyio
import msgspec

from hubbub._tasks import create_task_group
from hubbub.codecs import json
from hubbub.exceptions import HubbubError
from hubbub.policies import Block, Coalesce, Disconnect, DropNewest, DropOldest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import TaskGroup

    from hubbub.hub import Hub
    from hubbub.member import Member
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
_BALLAST = 6144  # random bytes of each, which no compression takes away, as 8 KiB of text
_DEPARTURES = 8  # that are remembered


class _Envelope(msgspec.Struct):
    type: str
    payload: msgspec.Raw


class _InRoom(msgspec.Struct):
    room: str

    def __post_init__(self) -> None:
        self.room = _clean_name("room", self.room)


class _Flood(_InRoom):
    pass


class _Say(_InRoom):
    text: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=_MAX_TEXT)]


class _Spoken(_InRoom):
    nick: str


_spoken = msgspec.json.Decoder(_Spoken)
_envelopes = msgspec.json.Decoder(_Envelope)
_payloads: dict[str, msgspec.json.Decoder[_InRoom]] = {
    "chat.flood": msgspec.json.Decoder(_Flood),
    "chat.join": msgspec.json.Decoder(_InRoom),
    "chat.leave": msgspec.json.Decoder(_InRoom),
    "chat.say": msgspec.json.Decoder(_Say),
}


def _speaker(message: Data) -> tuple[str, ...] | None:
    """Who said it, and where: what somebody said last takes the place of what he said before."""
    news = _envelopes.decode(message)
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


class _Refused(HubbubError):
    """The peer sent what cannot be done; it is told so, and the connection goes on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Chat:
    """The handler of the chat's connections.

        app = App({"/chat": Chat(hub)}, lifespan=hub)

    A peer gives its nick, the room that it begins in and its policy as parameters of the
    query: ``/chat?nick=ann&room=lobby&policy=drop-oldest``. A bad message is answered with an
    error and does not end the connection. Nothing that was said is kept.

    Attributes:
        guests: those who are being served.
        departures: the last whom the hub has disconnected, because they did not keep up.
    """

    def __init__(self, hub: Hub) -> None:
        """Make a chat whose rooms are the hub's."""
        self._hub = hub
        self._nicks: set[str] = set()
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
            async with ws, joined as me, create_task_group() as tasks:
                await _Visit(self._hub, me, tasks).run(ws, room)
                tasks.cancel_scope.cancel()
        finally:
            self.guests.remove(guest)
            if ws.close_code == _TRY_AGAIN_LATER:
                reason = ws.close_reason or ""
                self.departures.append(Departure(guest, reason, anyio.current_time()))

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

    def __init__(self, hub: Hub, me: Member, tasks: TaskGroup) -> None:
        self._hub = hub
        self._me = me
        self._nick: str = me.data.nick
        self._tasks = tasks
        self._floods = False
        # A member that the hub has ended is in no room any more, and notes are still due.
        self._noted: set[str] = set()

    async def run(self, ws: WebSocket, first_room: str) -> None:
        try:
            self._note_joined(first_room)
            welcome = _encode("chat.welcome", nick=self._nick, room=first_room)
            self._hub.broadcast_nowait(first_room, welcome, exclude=self._others(first_room))
            await self._list_members(first_room)
            async for message in ws.iter_messages():
                try:
                    await self._handle(message)
                except _Refused as refusal:
                    await self._me.send(_encode("error", code=refusal.code, message=str(refusal)))
        finally:
            for room in sorted(self._noted):
                self._leave(room)

    async def _handle(self, message: Data) -> None:
        kind, payload = _decode(message)
        if kind == "chat.join":
            await self._join(payload.room)
        elif payload.room not in self._me.rooms:
            raise _Refused("not_in_room", "Expected a room that you are in")
        elif isinstance(payload, _Say):
            said = _encode("chat.said", room=payload.room, nick=self._nick, text=payload.text)
            await self._hub.broadcast(payload.room, said)
        elif isinstance(payload, _Flood):
            if self._floods:
                raise _Refused("busy", "Expected your flood to be over")
            self._floods = True
            self._tasks.start_soon(self._flood, payload.room)
        else:
            self._leave(payload.room)

    async def _flood(self, room: str) -> None:
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

    async def _join(self, room: str) -> None:
        if room not in self._me.rooms:
            if len(self._me.rooms) >= _MAX_ROOMS:
                raise _Refused("too_many_rooms", f"Expected at most {_MAX_ROOMS} rooms")
            self._me.join(room)
            self._note_joined(room)
        await self._list_members(room)

    def _note_joined(self, room: str) -> None:
        self._noted.add(room)
        joined = _encode("chat.joined", room=room, nick=self._nick)
        self._hub.broadcast_nowait(room, joined, exclude=self._me)

    def _leave(self, room: str) -> None:
        self._noted.remove(room)
        self._me.leave(room)
        self._hub.broadcast_nowait(room, _encode("chat.left", room=room, nick=self._nick))

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


def _decode(message: Data) -> tuple[str, _InRoom]:
    if isinstance(message, bytes):
        raise _Refused("bad_json", "Expected JSON text, got a binary message")
    code = "bad_envelope"
    try:
        envelope = _envelopes.decode(message)
        if envelope.type not in _payloads:
            raise _Refused("unknown_type", f"Expected one of the types {', '.join(_payloads)}")
        code = "invalid_payload"
        return envelope.type, _payloads[envelope.type].decode(envelope.payload)
    except msgspec.ValidationError as error:
        raise _Refused(code, str(error)) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _Refused("bad_json", f"Expected JSON text: {error}") from error


def _encode(kind: str, **payload: Any) -> str:
    return json.encode({"type": kind, "payload": payload})
