"""ASGI's ``receive`` and ``send`` (WebSocket spec 2.5), made of object streams and a responder.

The order and the form of ASGI's events live here, and nothing of how they get to the peer.
Made by server_connection, for the application that it calls, and by the client.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from hubbub.close_codes import ABNORMAL, check_close

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hubbub.types import Data, Message, Receive, Send

__all__ = (
    "Events",
    "Responder",
    "Sender",
    "create_client_send",
    "create_ws_receive",
    "create_ws_send",
)


class Events(Protocol):
    """The part of anyio's ``ObjectReceiveStream[Message]`` that is needed here."""

    async def receive(self) -> Message:
        """Return the next event; ``anyio.EndOfStream`` when the connection was lost."""
        ...


class Sender(Protocol):
    """Carries out what is sent on an open connection.

    Each raises ``ClientDisconnected`` when the peer is gone.
    """

    async def send(self, data: Data) -> None:
        """Send a message, whole; when cancelled, whole or not at all."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close the connection."""
        ...


class Responder(Sender, Protocol):
    """Carries out an application's answer to the handshake, too; called in a valid order only."""

    async def accept(self, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Accept the connection; ``ValueError`` if a header may not stand in the answer."""
        ...

    async def start_response(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin to refuse; ``ValueError`` if a header may not stand in the answer."""
        ...

    async def send_body(self, data: bytes, *, more: bool) -> None:
        """Continue to refuse, and end the response when there is no more."""
        ...


def create_ws_receive(events: Events) -> Receive:
    """Make the ``receive`` of one connection.

    The first event is ``websocket.connect``; after the first ``websocket.disconnect`` the
    stream is not used again: every further call returns that event. A call that is cancelled
    has taken no event.

    Args:
        events: the stream of ``websocket.receive`` and ``websocket.disconnect``.
    """
    connected = False
    last: Message | None = None

    async def receive() -> Message:
        nonlocal connected, last
        if not connected:
            await checkpoint_if_cancelled()  # the task has only just begun: nobody is kept waiting
            connected = True
            return {"type": "websocket.connect"}
        if last is not None:
            await checkpoint()
            return {**last}
        try:
            event = await events.receive()
        except anyio.EndOfStream:
            event = {"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""}
        if event["type"] == "websocket.disconnect":
            last = event
        return event

    return receive


def create_ws_send(responder: Responder, subprotocols: Sequence[str] = ()) -> Send:
    """Make the ``send`` of one connection.

    An event of a wrong type, form or order raises, and leaves the connection as it is.

    Args:
        responder: what carries the answers out.
        subprotocols: those that the peer offers, of which one may be accepted.
    """
    return _Answers(responder, subprotocols)


def create_client_send(connection: Sender) -> Send:
    """Make the ``send`` of a connection that a client has opened.

    Args:
        connection: what carries the events out.
    """

    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            await connection.close(message["code"], message["reason"])
        else:
            await connection.send(_read_data(message))

    return send


class _Order(Enum):
    """What an application has answered so far, and so what it may send next."""

    NOTHING = "websocket.accept, websocket.close or websocket.http.response.start"
    ACCEPTED = "websocket.send or websocket.close"
    RESPONDING = "websocket.http.response.body"
    ALL = "no further event"


_ACCEPTED = _Order.ACCEPTED  # looking it up in an enum is slow before Python 3.12


class _Answers:
    """The ``send`` of one connection: it checks each event, and has it carried out."""

    __slots__ = ("_order", "_responder", "_subprotocols")

    def __init__(self, responder: Responder, subprotocols: Sequence[str]) -> None:
        self._responder = responder
        self._subprotocols = subprotocols
        self._order = _Order.NOTHING

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if self._order is _ACCEPTED:
            if kind == "websocket.send":
                return await self._responder.send(_read_data(message))
            if kind == "websocket.close":
                return await self._close(message)
        elif self._order is _Order.NOTHING:
            if kind == "websocket.accept":
                return await self._accept(message)
            if kind == "websocket.close":
                return await self._refuse()
            if kind == "websocket.http.response.start":
                return await self._start_response(message)
        elif self._order is _Order.RESPONDING and kind == "websocket.http.response.body":
            return await self._send_body(message)
        raise RuntimeError(f"Expected {self._order.value}, got {kind!r}")

    async def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise ValueError(
                f"Expected a subprotocol of {list(self._subprotocols)}, got {subprotocol!r}"
            )
        await self._responder.accept(subprotocol, _read_headers(message))
        self._order = _Order.ACCEPTED

    async def _close(self, message: Message) -> None:
        code = message.get("code")
        code = 1000 if code is None else code
        reason = message.get("reason") or ""
        check_close(code, reason)
        self._order = _Order.ALL
        await self._responder.close(code, reason)

    async def _refuse(self) -> None:
        self._order = _Order.ALL
        body = b"Forbidden\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await self._responder.start_response(403, headers)
        await self._responder.send_body(body, more=False)

    async def _start_response(self, message: Message) -> None:
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"Expected a status of 200-599, got {status!r}")
        await self._responder.start_response(int(status), _read_headers(message))
        self._order = _Order.RESPONDING

    async def _send_body(self, message: Message) -> None:
        body, more = message.get("body", b""), bool(message.get("more_body", False))
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"Expected a body of bytes, got {type(body).__name__}")
        await self._responder.send_body(bytes(body), more=more)
        if not more:
            self._order = _Order.ALL


def _read_data(message: Message) -> Data:
    """Read ``text`` or ``bytes``, whichever is not None: both keys may be there."""
    text, data = message.get("text"), message.get("bytes")
    if (text is None) is (data is None):
        raise ValueError("Expected either text or bytes in websocket.send, not both or neither")
    if text is not None:
        if not isinstance(text, str):
            raise TypeError(f"Expected text of str, got {type(text).__name__}")
        return text
    if isinstance(data, bytes):
        return data
    if not isinstance(data, bytearray | memoryview):
        raise TypeError(f"Expected bytes, got {type(data).__name__}")
    return bytes(data)


def _read_headers(message: Message) -> list[tuple[bytes, bytes]]:
    headers: Iterable[Iterable[bytes]] = message.get("headers") or ()
    pairs = [(bytes(name), bytes(value)) for name, value in headers]
    for name, _ in pairs:
        if name.lower() == b"sec-websocket-protocol" or name.startswith(b":"):
            raise ValueError(f"Expected a header that is not the server's own, got {name!r}")
    return pairs
