"""Chat: rooms, who is here, notes of who comes and goes: ``hypercorn -k trio 02_chat:app``.

Connect to ``/chat?nick=ann``; say ``{"type": "say", "payload": {"room": "lobby", "text": "hi"}}``.
"""

from hubbub import App, DropOldest, Hub, Member, WebSocket

hub = Hub()


async def note(kind: str, room: str, nick: str) -> None:
    here = [member.data for member in hub.connections if room in member.rooms]
    news = {"room": room, "nick": nick, "members": here}
    await hub.broadcast_json(room, {"type": kind, "payload": news})


async def obey(me: Member, rooms: set[str], message: object) -> None:
    match message:
        case {"type": "join", "payload": {"room": str(room)}} if room not in rooms:
            me.join(room)
            rooms.add(room)
            await note("joined", room, me.data)
        case {"type": "leave", "payload": {"room": str(room)}} if room in rooms:
            me.leave(room)
            rooms.remove(room)
            await note("left", room, me.data)
        case {"type": "say", "payload": {"room": str(room), "text": str(text)}} if room in rooms:
            said = {"room": room, "nick": me.data, "text": text}
            await hub.broadcast_json(room, {"type": "said", "payload": said})
        case _:
            raise ValueError("Expected join, leave or say, as fits the rooms that you are in")


async def chat(ws: WebSocket) -> None:
    nick, rooms = ws.query_params.get("nick", "somebody"), {"lobby"}
    try:
        async with ws, hub.join("lobby", ws, policy=DropOldest(), data=nick) as me:
            await note("joined", "lobby", nick)
            while True:  # until the peer leaves, which ends it with a WebSocketDisconnect
                try:
                    await obey(me, rooms, await ws.receive_json())
                except (ValueError, TypeError) as error:  # no JSON, no text, or not as expected
                    await ws.send_json({"type": "error", "payload": {"message": str(error)}})
    finally:  # by now it is in no room any more
        for room in rooms:
            await note("left", room, nick)


app = App({"/chat": chat}, lifespan=hub)
