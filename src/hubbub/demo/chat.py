"""Chat: the messages of the demo's chat, and the handler that serves one peer.

What a peer may say, what it is told, and who is told of it. No page, no server and no
outbox lives here. Made by the demo's application.

    peer -> chat:  chat.join {room}    chat.leave {room}    chat.say {room, text}
    chat -> peer:  chat.welcome {nick, room}    chat.members {room, members}
                   chat.joined {room, nick}     chat.left {room, nick}
                   chat.said {room, nick, text} error {code, message}

Each is JSON text, ``{"type": …, "payload": {…}}``.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from hubbub.codecs import json
from hubbub.exceptions import HubbubError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubbub.hub import Hub
    from hubbub.member import Member
    from hubbub.types import Data
    from hubbub.websocket import WebSocket

__all__ = ("Chat",)

_LOBBY = "lobby"
_MAX_NAME = 32
_MAX_ROOMS = 20
_MAX_TEXT = 2000
_POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1


class _Envelope(msgspec.Struct):
    type: str
    payload: msgspec.Raw


class _InRoom(msgspec.Struct):
    room: str

    def __post_init__(self) -> None:
        self.room = _clean_name("room", self.room)


class _Say(_InRoom):
    text: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=_MAX_TEXT)]


_envelopes = msgspec.json.Decoder(_Envelope)
_payloads: dict[str, msgspec.json.Decoder[_InRoom]] = {
    "chat.join": msgspec.json.Decoder(_InRoom),
    "chat.leave": msgspec.json.Decoder(_InRoom),
    "chat.say": msgspec.json.Decoder(_Say),
}


class _Refused(HubbubError):
    """The peer sent what cannot be done; it is told so, and the connection goes on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Chat:
    """The handler of the chat's connections.

        app = App({"/chat": Chat(hub)}, lifespan=hub)

    A peer gives its nick, and the room that it begins in, as parameters of the query:
    ``/chat?nick=ann&room=lobby``. A bad message is answered with an error and does not end
    the connection. Nothing that was said is kept.
    """

    def __init__(self, hub: Hub) -> None:
        """Make a chat whose rooms are the hub's."""
        self._hub = hub
        self._nicks: set[str] = set()

    async def __call__(self, ws: WebSocket) -> None:
        """Serve one peer, for as long as it stays."""
        try:
            wanted = _clean_name("nick", ws.query_params.get("nick", ""))
            room = _clean_name("room", ws.query_params.get("room", _LOBBY))
        except ValueError as error:
            await ws.accept()
            await ws.close(_POLICY_VIOLATION, str(error))
            return
        # The nick is given back last: whoever takes it next comes after the notes that its
        # former owner has left.
        with self._reserve(wanted) as nick:
            async with ws, self._hub.join(room, ws, data=nick) as me:
                await _Visit(self._hub, me).run(ws, room)

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
        # A member that the hub has ended is in no room any more, and notes are still due.
        self._noted: set[str] = set()

    async def run(self, ws: WebSocket, first_room: str) -> None:
        try:
            self._note_joined(first_room)
            welcome = _encode("chat.welcome", nick=self._me.data, room=first_room)
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
            said = _encode("chat.said", room=payload.room, nick=self._me.data, text=payload.text)
            await self._hub.broadcast(payload.room, said)
        else:
            self._leave(payload.room)

    async def _join(self, room: str) -> None:
        if room not in self._me.rooms:
            if len(self._me.rooms) >= _MAX_ROOMS:
                raise _Refused("too_many_rooms", f"Expected at most {_MAX_ROOMS} rooms")
            self._me.join(room)
            self._note_joined(room)
        await self._list_members(room)

    def _note_joined(self, room: str) -> None:
        self._noted.add(room)
        joined = _encode("chat.joined", room=room, nick=self._me.data)
        self._hub.broadcast_nowait(room, joined, exclude=self._me)

    def _leave(self, room: str) -> None:
        self._noted.remove(room)
        self._me.leave(room)
        self._hub.broadcast_nowait(room, _encode("chat.left", room=room, nick=self._me.data))

    async def _list_members(self, room: str) -> None:
        # Through the room, not straight to the peer: so the list stands in order with the
        # notes of who comes and goes, and no peer keeps a ghost.
        nicks = sorted(member.data for member in self._hub.rooms[room].members)
        members = _encode("chat.members", room=room, members=nicks)
        await self._hub.broadcast(room, members, exclude=self._others(room))

    def _others(self, room: str) -> list[Member]:
        return [member for member in self._hub.rooms[room].members if member is not self._me]


def _clean_name(what: str, name: str) -> str:
    name = name.strip()
    if not (1 <= len(name) <= _MAX_NAME and name.isprintable()):
        raise ValueError(f"Expected a {what} of 1 to {_MAX_NAME} printable characters")
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
