"""ClientWebSocket: a WebSocket whose peer is a server.

The same WebSocket as an application has, on a connection of ws_bridge: client stands on both
wings. How it was opened is not known here. Made by connect and by reconnecting.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self
from urllib.parse import unquote

import anyio

from hubbub._tasks import create_task_group
from hubbub.client.connection import ClientConnection
from hubbub.exceptions import ClientDisconnected, is_disconnect
from hubbub.prepared import OUTLET
from hubbub.websocket import WebSocket, WebSocketState
from hubbub.wire.frames import Role
from hubbub.wire.protocol import Protocol
from hubbub.ws_bridge.caretaker import Caretaker
from hubbub.ws_bridge.channels import create_client_send
from hubbub.ws_bridge.stream_transport import StreamTransport
from hubbub.ws_bridge.streams import SocketStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from anyio.abc import ByteStream, TaskGroup

    from hubbub.client.target import Target
    from hubbub.types import Message, Scope
    from hubbub.wire.client_handshake import UpgradeResponse
    from hubbub.ws_bridge.config import Config
    from hubbub.ws_bridge.transport import Transport

__all__ = ("ClientWebSocket", "Opened")


@dataclass(frozen=True, slots=True)
class Opened:
    """The result of an opening handshake.

    Attributes:
        stream: the server's bytes from now on.
        target: where it is, after all redirects.
        subprotocols: what was offered to it.
        response: its answer.
    """

    stream: ByteStream
    target: Target
    subprotocols: Sequence[str]
    response: UpgradeResponse


class ClientWebSocket(WebSocket):
    """A connection to a server: a ``WebSocket``, and what only a client has.

    It works inside ``async with``, which ``connect`` has entered already and ``reconnecting``
    has not. On exit it is closed, as an application's is, and waits for the server's answer,
    ``close_timeout`` at most; not at all if the body was cancelled.

    Its ``headers`` are those of the server's response, its ``client`` is the server's address,
    and a ``Hub`` takes it like any other.
    """

    __slots__ = ("_config", "_connection", "_expendable", "_opened")

    def __init__(self, opened: Opened, config: Config, *, expendable: bool = False) -> None:
        """Make a WebSocket of what a handshake has opened.

        Args:
            opened: the result of the handshake.
            config: the limits; those for an opening are past.
            expendable: whether the block ends quietly when the server has gone.
        """
        super().__init__(_build_scope(opened), _not_entered, _not_entered)
        self._opened = opened
        self._config = config
        self._expendable = expendable
        self._connection: ClientConnection | None = None
        self._url = opened.target.url

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("Cannot enter: this WebSocket has been entered already")
        self._entered = True
        self._session = self._converse()
        await self._session.__aenter__()
        return self

    @asynccontextmanager
    async def _converse(self) -> AsyncGenerator[None]:
        async with create_task_group() as tasks:
            connection = self._begin(tasks)
            error: BaseException | None = None
            try:
                yield
            except BaseException as raised:
                error = raised
                self._learn(connection.end)
                if not (self._expendable and self.loss and is_disconnect(raised)):
                    raise
            finally:
                try:
                    self._learn(connection.end)
                    await self._leave(error)
                    await connection.part()
                finally:
                    connection.transport.close()
                    tasks.cancel_scope.cancel()

    def _begin(self, tasks: TaskGroup) -> ClientConnection:
        """Set the connection up; nothing is awaited, so that nothing is left half done."""
        response = self._opened.response
        protocol = Protocol(
            Role.CLIENT,
            max_message_size=self._config.max_message_size,
            deflate=response.deflate,
        )
        protocol.receive_data(response.trailing_data)
        caretaker = Caretaker(self._config, tasks)
        transport = _transport(self._opened.stream, tasks)
        connection = self._connection = ClientConnection(
            transport, protocol, self._config, caretaker
        )
        caretaker.admit(connection)
        self._scope["client"] = transport.client
        self._scope["extensions"] = {OUTLET: connection}
        self._direct = True
        self._receive = connection.receive
        self._send = create_client_send(connection)
        self._accepted_subprotocol = response.subprotocol
        self._connection_state = WebSocketState.CONNECTED
        return connection

    def _learn(self, end: ClientDisconnected | None) -> None:
        """Note an end that no receive and no send has met."""
        if end is not None:
            self._end(end.code, end.reason)

    async def abandon(self) -> None:
        """Close what was opened, if it was never entered."""
        if not self._entered:
            self._entered = True
            await anyio.aclose_forcefully(self._opened.stream)

    @property
    def latency(self) -> float | None:
        """The round trip of the last ping that was answered, in seconds; None before."""
        return None if self._connection is None else self._connection.latency

    async def ping(self) -> float:
        """Send a ping, and wait for its pong.

        Returns:
            The round trip, in seconds.

        Raises:
            RuntimeError: if the connection is not CONNECTED.
            WebSocketDisconnect: if the connection ends before.
        """
        self._require_connected("ping")
        assert self._connection is not None
        try:
            return await self._connection.measure()
        except ClientDisconnected as error:
            self._end(error.code, error.reason)
            raise self._disconnected() from error

    def _require_connected(self, action: str) -> None:
        if self._connection_state is WebSocketState.CONNECTING:
            raise RuntimeError(
                f"Cannot {action}: connection in CONNECTING state; use it inside `async with`"
            )
        super()._require_connected(action)


def _build_scope(opened: Opened) -> Scope:
    target = opened.target
    path, _, query = target.resource.partition("?")
    return {
        "type": "websocket",
        "scheme": "wss" if target.secure else "ws",
        "path": unquote(path),
        "query_string": query.encode(),
        "headers": opened.response.headers,
        "subprotocols": list(opened.subprotocols),
    }


def _transport(stream: ByteStream, tasks: TaskGroup) -> Transport:
    if isinstance(stream, SocketStream):
        return stream.transport
    transport = StreamTransport(stream)
    tasks.start_soon(_run_to_its_end, transport)
    return transport


async def _run_to_its_end(transport: StreamTransport) -> None:
    # The block's cancellation must not stop it before the close frame has left; the block closes
    # the transport as the last thing it does.
    with anyio.CancelScope(shield=True):
        await transport.run()


async def _not_entered(message: Message | None = None) -> NoReturn:
    raise RuntimeError("Expected `async with` around the use of a client's WebSocket")
