"""Several rooms, and a message to one: ``hubbub serve 07_rooms:app``.

Connect to ``/rooms?nick=ann``; say ``+tea`` to enter a room and ``-tea`` to leave it,
``tea: hi`` to speak in it, ``@bob psst`` to tell bob alone.
"""

from hubbub import App, Hub, Member, WebSocket

hub = Hub()


def find(nick: str) -> Member | None:
    return next((member for member in hub.connections if member.data == nick), None)


async def obey(me: Member, line: str) -> str | None:
    match line[:1], line[1:]:
        case "+", room:
            me.join(room)  # one outbox, however many rooms: each peer hears one order
            return f"you are in {', '.join(sorted(me.rooms))}"
        case "-", room:
            me.leave(room)  # leaving every room is not disconnecting
            return f"you are in {', '.join(sorted(me.rooms)) or 'no room'}"
        case "@", told if (other := find(told.partition(" ")[0])) is not None:
            await other.send(f"{me.data} to you: {told.partition(' ')[2]}")
            return None
    room, colon, text = line.partition(": ")
    if not colon or room not in me.rooms:
        return "expected +room, -room, @nick text, or room: text in a room that you are in"
    delivery = await hub.broadcast(room, f"{me.data} in {room}: {text}", exclude=me)
    return f"told {delivery.sent}"


async def rooms(ws: WebSocket) -> None:
    nick = ws.query_params.get("nick", "somebody")
    async with ws, hub.join("lobby", ws, data=nick) as me:
        async for line in ws:
            if answer := await obey(me, line):
                await me.send(answer)


app = App({"/rooms": rooms}, lifespan=hub)
