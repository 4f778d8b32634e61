"""Socket: what a member needs of its connection, and adapters for other libraries'.

What Starlette, trio-websocket and websockets raise, and how each of them closes, is known
here and nowhere else; none of them is imported. No outbox lives here. Used by the hub.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import anyio

from hubbub.exceptions import WebSocketDisconnect
from hubbub.websocket import WebSocket, WebSocketState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.websockets import WebSocket as StarletteWebSocket
    from trio_websocket import WebSocketConnection
    from websockets.asyncio.connection import Connection as AsyncioConnection
    from websockets.trio.connection import Connection as TrioConnection

    from hubbub.prepared import Outlet
    from hubbub.types import Data, Message

__all__ = ("AnyConnection", "Socket", "adapt")

AnyConnection: TypeAlias = (
    "Socket | StarletteWebSocket | WebSocketConnection | AsyncioConnection | TrioConnection"
)
"""What can join a hub: see ``adapt``."""


@runtime_checkable
class Socket(Protocol):
    """What a member needs of its connection."""

    @property
    def outlet(self) -> Outlet | None:
        """The short way to the socket, if there is one."""
        ...

    def deliver(self, data: Data) -> Awaitable[None]:
        """Send a message; raises ``WebSocketDisconnect`` when the peer has gone.

        It is awaited at once, by one task at a time, and cancelled only after ``disconnect``.
        """
        ...

    async def disconnect(self, code: int, reason: str = "") -> None:
        """Close, and end every receive from the connection.

        A ``deliver`` may be stuck at that time. When this is cancelled, because the peer
        does not read, the connection is given up.
        """
        ...


def adapt(connection: AnyConnection) -> Socket:
    """Make a socket of a connection, whichever library's it is.

    Sockets of the same connection are equal, so that a hub recognises it.

    Args:
        connection: a ``WebSocket`` of ours or of Starlette's, a connection of trio-websocket,
            or one of websockets, on asyncio or trio; established.

    Raises:
        TypeError: if it is none of these.
        RuntimeError: if it is not accepted yet; or Starlette's, and closed.
    """
    if isinstance(connection, WebSocket) and (
        connection.connection_state is WebSocketState.CONNECTING
    ):
        raise RuntimeError("Expected an accepted connection: `async with ws, hub.join(room, ws)`")
    if isinstance(connection, WebSocket | Socket):  # a protocol is slow before Python 3.12
        return connection
    for base in type(connection).__mro__:
        make = _FOREIGN.get(f"{base.__module__}.{base.__qualname__}")
        if make is not None:
            return make(connection)
    raise TypeError(
        "Expected a connection: a WebSocket of hubbub, Starlette or FastAPI, or a connection of "
        f"trio-websocket or websockets; got {type(connection).__name__}"
    )


# -- Starlette --------------------------------------------------------------------------


class _StarletteSocket(WebSocket):
    """A Starlette connection whose receive and send go through this object from now on.

    So it is as good as a WebSocket of ours: the sends of its handler and of a hub take turns,
    the end is known as soon as anybody sees it, and the handler gets it as the event that the
    server would have sent, whoever ended it.
    """

    __slots__ = ("_idle", "_waiting")

    def __init__(self, connection: StarletteWebSocket) -> None:
        states = (connection.client_state.name, connection.application_state.name)
        if states != ("CONNECTED", "CONNECTED"):
            raise RuntimeError(f"Expected an accepted connection, got one that is {states[1]}")
        super().__init__(connection.scope, connection._receive, connection._send)
        self._connection_state = WebSocketState.CONNECTED
        self._waiting = anyio.CancelScope()
        self._idle = anyio.Event()  # set unless the handler receives
        self._idle.set()
        connection._receive, connection._send = self.pass_event, self.take_message

    async def pass_event(self) -> Message:
        """Be the connection's receive."""
        if self.connection_state is WebSocketState.CONNECTED:
            self._idle = anyio.Event()
            try:
                with anyio.CancelScope() as self._waiting, suppress(WebSocketDisconnect):
                    return await self._next_event()
            finally:
                self._idle.set()
        if self._closing is not None:
            await self._closing.wait()  # the close frame is lost if the handler returns before
        return {
            "type": "websocket.disconnect",
            "code": self.close_code,
            "reason": self.close_reason,
        }

    async def take_message(self, message: Message) -> None:
        """Be the connection's send."""
        try:
            if message["type"] == "websocket.close":
                await self.close(message["code"], message["reason"])
            else:
                await self._send_message(message)
        except WebSocketDisconnect as end:
            raise ConnectionResetError(str(end)) from end  # Starlette turns it into its own

    def _end(self, code: int, reason: str, *, here: bool = False) -> None:
        super()._end(code, reason, here=here)
        self._waiting.cancel()

    async def _stop_reading(self) -> None:
        await self._idle.wait()


def _adapt_starlette(connection: StarletteWebSocket) -> _StarletteSocket:
    known = getattr(connection._send, "__self__", None)
    return known if isinstance(known, _StarletteSocket) else _StarletteSocket(connection)


# -- Libraries that speak the protocol themselves ---------------------------------------


class _Foreign:
    """A connection that lets several tasks send, one after the other, and has no outlet."""

    __slots__ = ()

    @property
    def outlet(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _TrioWebSocket(_Foreign):
    connection: WebSocketConnection

    async def deliver(self, data: Data) -> None:
        try:
            await self.connection.send_message(data)
        except Exception as error:
            end = self.connection.closed
            if end is None:
                raise
            raise WebSocketDisconnect(int(end.code), end.reason or "") from error

    async def disconnect(self, code: int, reason: str = "") -> None:
        # When cancelled, it closes the stream, which ends a stuck send, and every receive.
        await self.connection.aclose(code, reason)


@dataclass(frozen=True, slots=True)
class _Websockets(_Foreign):
    connection: AsyncioConnection | TrioConnection

    async def deliver(self, data: Data) -> None:
        try:
            await self.connection.send(data)
        except Exception as error:
            code = self.connection.close_code
            if code is None:
                raise
            raise WebSocketDisconnect(int(code), self.connection.close_reason or "") from error


@dataclass(frozen=True, slots=True)
class _WebsocketsOnAsyncio(_Websockets):
    connection: AsyncioConnection

    async def disconnect(self, code: int, reason: str = "") -> None:
        # When cancelled, close() leaves everything open; else there is nothing left to abort.
        try:
            await self.connection.close(code, reason)
        finally:
            self.connection.transport.abort()


@dataclass(frozen=True, slots=True)
class _WebsocketsOnTrio(_Websockets):
    connection: TrioConnection

    async def disconnect(self, code: int, reason: str = "") -> None:
        try:
            async with self.connection.send_lock:
                pass  # a close frame that is given up behind a stuck send is logged as an error
            await self.connection.aclose(code, reason)
        finally:
            await self.connection.stream.aclose()  # at once, when cancelled


_FOREIGN: dict[str, Callable[[Any], Socket]] = {
    "starlette.websockets.WebSocket": _adapt_starlette,
    "trio_websocket._impl.WebSocketConnection": _TrioWebSocket,
    "websockets.asyncio.connection.Connection": _WebsocketsOnAsyncio,
    "websockets.trio.connection.Connection": _WebsocketsOnTrio,
}
"""How to make a socket of a connection, by the full name of its class."""
