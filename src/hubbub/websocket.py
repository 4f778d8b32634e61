"""WebSocket: one peer, seen through ASGI.

The state machine of a connection as an application sees it, with the same behaviour over
every server: what servers do differently, or do wrong, is evened out here and nowhere else.
No framing and no rooms live here. Made by App, or by an ASGI application itself.

    CONNECTING ──accept()──> CONNECTED ──close(), or the peer left──> DISCONNECTED
         └────────────────── reject(), or the peer left ──────────────────^
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from hubbub._tasks import create_task_group
from hubbub.calls import CALL_TIMEOUT
from hubbub.close_codes import ABNORMAL, NO_STATUS, check_close
from hubbub.codecs import json, typed
from hubbub.codecs.json import HAS_ORJSON
from hubbub.codecs.typed import HAS_TYTX
from hubbub.datastructures import (
    URL,
    Address,
    Headers,
    HeadersLike,
    QueryParams,
    State,
    client_from_scope,
    encode_headers,
    headers_from_scope,
    join_repeated,
    query_params_from_scope,
    state_from_scope,
    url_from_scope,
)
from hubbub.exceptions import ClientDisconnected, WebSocketDisconnect
from hubbub.inbox import Inbox
from hubbub.prepared import OUTLET

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from hubbub.calls import Calls
    from hubbub.prepared import Outlet
    from hubbub.types import Data, Message, Receive, Scope, Send


__all__ = ("HAS_ORJSON", "HAS_TYTX", "WebSocket", "WebSocketDisconnect", "WebSocketState")

T = TypeVar("T")

_CLOSE_TIMEOUT = 5.0  # seconds for a close frame to be sent, before we give up on it
_SENDS_PER_CHECKPOINT = 64
_GONE = (  # how errors begin by which a server's send says that the peer has gone
    "Unexpected ASGI message",  # uvicorn's older engine, once it has seen a close frame
    "Attempt to send on a closed protocol",  # Daphne, between close frame and end of TCP
    "ASGI flow error",  # Granian, when the peer left during the handshake
)


class WebSocketState(IntEnum):
    """Where a connection is in its life. There is no way back."""

    CONNECTING = 0
    CONNECTED = 1
    DISCONNECTED = 2


_CONNECTED = WebSocketState.CONNECTED  # looking it up in an enum is slow before Python 3.12


class WebSocket:
    """One peer's connection.

    Inside ``async with ws`` the connection is accepted on enter and closed on exit (1000;
    1011 when the body raised, 1001 when it was cancelled), and a reader that the block owns
    notices when the peer goes, so that a send raises even where the server says nothing. On
    hubbub's own server there is no such reader, because the server notices.
    Outside such a block, ``accept``, ``receive_*``, ``send_*`` and ``close`` go to the server
    one by one, and only a receive learns that the peer has gone.

    When the connection is over, whoever ended it, ``close_code`` and ``close_reason`` say how.
    After ``close()`` or ``reject()`` further use is a ``RuntimeError``; when the peer left, or
    somebody called ``disconnect()``, every send raises ``WebSocketDisconnect``, and so does
    every receive, after the messages that were read ahead.

    Attributes:
        calls: the requests that wait for the peer's answers; None unless there is a router.
    """

    __slots__ = (
        "__weakref__",
        "_accepted_subprotocol",
        "_close_code",
        "_close_reason",
        "_closing",
        "_connect_seen",
        "_connection_state",
        "_direct",
        "_ended_here",
        "_entered",
        "_headers",
        "_inbox",
        "_query_params",
        "_receive",
        "_scope",
        "_send",
        "_sending",
        "_sends",
        "_session",
        "_state",
        "_turn",
        "_url",
        "calls",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wrap the arguments with which an ASGI server calls an application.

        Args:
            scope: the connection scope; its type must be ``websocket``.
            receive: the server's receive callable.
            send: the server's send callable.

        Raises:
            ValueError: if the scope is of another type.
        """
        if scope.get("type") != "websocket":
            raise ValueError(f"Expected scope type 'websocket', got '{scope.get('type')}'")
        self._scope = scope
        self._receive = receive
        self._send = send
        self._connection_state = WebSocketState.CONNECTING
        self._connect_seen = False
        # A server with an outlet, ours, notices by itself when the peer goes, and its send raises
        # then; several tasks may send at once, and a send that is cancelled sends nothing.
        self._direct = OUTLET in (scope.get("extensions") or ())
        self._ended_here = False
        self._entered = False
        self._close_code: int | None = None
        self._close_reason: str | None = None
        self._accepted_subprotocol: str | None = None
        self._headers: Headers | None = None
        self._query_params: QueryParams | None = None
        self._url: URL | None = None
        self._state: State | None = None
        self._closing: anyio.Event | None = None  # set when the close frame has been sent
        self._sends = 0
        self._sending = False
        self._turn: anyio.Event | None = None  # set when the send that is under way is done
        self._inbox: Inbox | None = None
        self._session: AbstractAsyncContextManager[None] | None = None
        self.calls: Calls | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} {self._connection_state.name}>"

    # -- What the scope says ------------------------------------------------------------

    @property
    def scope(self) -> Scope:
        """The ASGI scope, as the server gave it."""
        return self._scope

    @property
    def connection_state(self) -> WebSocketState:
        """Where the connection is in its life."""
        return self._connection_state

    @property
    def path(self) -> str:
        """The path, percent-decoded; ``/`` when the server gave none."""
        path: str = self._scope.get("path") or "/"
        return path

    @property
    def scheme(self) -> str:
        """``ws`` or ``wss``."""
        scheme: str = self._scope.get("scheme") or "ws"
        return scheme

    @property
    def url(self) -> URL:
        """The URL that the peer asked for."""
        if self._url is None:
            self._url = url_from_scope(self._scope)
        return self._url

    @property
    def headers(self) -> Headers:
        """The headers of the handshake, names without regard to case."""
        if self._headers is None:
            self._headers = headers_from_scope(self._scope)
        return self._headers

    @property
    def query_params(self) -> QueryParams:
        """The parameters of the query string."""
        if self._query_params is None:
            self._query_params = query_params_from_scope(self._scope)
        return self._query_params

    @property
    def state(self) -> State:
        """What the lifespan and the application attached to this connection."""
        if self._state is None:
            self._state = state_from_scope(self._scope)
        return self._state

    @property
    def client(self) -> Address | None:
        """The peer's address; None when the server does not know it."""
        return client_from_scope(self._scope)

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the peer offers, in its order of preference."""
        return tuple(self._scope.get("subprotocols") or ())

    @property
    def accepted_subprotocol(self) -> str | None:
        """The subprotocol that was accepted, if any."""
        return self._accepted_subprotocol

    @property
    def close_code(self) -> int | None:
        """The code that the connection ended with; None while it lasts.

        It is the code of whoever ended the connection. 1005: the peer gave none; 1006: the peer
        left without a close frame, or was rejected. Some servers report 1006 whenever the peer
        ends the connection.
        """
        return self._close_code

    @property
    def close_reason(self) -> str | None:
        """The reason that the connection ended with; None while it lasts."""
        return self._close_reason

    @property
    def loss(self) -> WebSocketDisconnect | None:
        """What receives and sends raise since the peer left, or somebody called ``disconnect()``.

        None while the connection lasts, and after ``close()`` or ``reject()``.
        """
        over = self._connection_state is WebSocketState.DISCONNECTED
        return self._disconnected() if over and not self._ended_here else None

    @property
    def outlet(self) -> Outlet | None:
        """The short way to the socket, where the server offers one: hubbub's own does."""
        outlet: Outlet | None = (self._scope.get("extensions") or {}).get(OUTLET)
        return outlet

    # -- Beginning and end --------------------------------------------------------------

    async def accept(
        self, subprotocol: str | None = None, headers: HeadersLike | None = None
    ) -> None:
        """Accept the connection.

        Args:
            subprotocol: one of those that the peer offered.
            headers: headers for the answer, as a mapping or as pairs. Granian and Daphne
                leave them out.

        Raises:
            RuntimeError: if the connection is not CONNECTING.
            ValueError: if the subprotocol was not offered, or a header is not valid.
            WebSocketDisconnect: if the peer left during the handshake.
        """
        if self._connection_state is not WebSocketState.CONNECTING:
            raise RuntimeError(f"Cannot accept: connection in {self._connection_state.name} state")
        message: Message = {"type": "websocket.accept"}
        if subprotocol is not None:
            # Some servers would send it, and the peer would fail the handshake (RFC 6455 §4.1);
            # others crash.
            if subprotocol not in self.subprotocols:
                raise ValueError(
                    f"Expected one of the subprotocols {list(self.subprotocols)}, "
                    f"got {subprotocol!r}"
                )
            message["subprotocol"] = subprotocol
        if headers is not None:
            message["headers"] = encode_headers(headers)
        await self._receive_connect()
        await self._transmit(message)
        self._accepted_subprotocol = subprotocol
        self._connection_state = WebSocketState.CONNECTED

    async def reject(
        self, status: int = 403, headers: HeadersLike | None = None, body: bytes = b""
    ) -> None:
        """Refuse the connection with an HTTP response.

        Where the server has no ``websocket.http.response`` extension (Daphne) the response
        is its plain 403.

        Args:
            status: the HTTP status, 300-599.
            headers: headers of the response, as a mapping or as pairs. Repeated ones are joined,
                because they crash Granian's worker; two cookies, which cannot be joined, still do.
            body: the body of the response.

        Raises:
            RuntimeError: if the connection is not CONNECTING.
            ValueError: if the status is outside of that range, or a header is not valid.
            WebSocketDisconnect: if the peer left during the handshake.
        """
        if self._connection_state is not WebSocketState.CONNECTING:
            raise RuntimeError(f"Cannot reject: connection in {self._connection_state.name} state")
        if not 300 <= status <= 599:
            raise ValueError(f"Expected a status of 300-599 to reject with, got {status}")
        pairs = join_repeated(encode_headers(headers or ()))
        if not any(name == b"content-length" for name, _ in pairs):
            pairs.append((b"content-length", b"%d" % len(body)))
        await self._receive_connect()
        self._end(ABNORMAL, "", here=True)
        try:
            if "websocket.http.response" in (self._scope.get("extensions") or ()):
                await self._transmit(
                    {"type": "websocket.http.response.start", "status": status, "headers": pairs}
                )
                # One part: Granian refuses a second.
                await self._transmit({"type": "websocket.http.response.body", "body": body})
            else:
                await self._transmit({"type": "websocket.close"})
        except WebSocketDisconnect:
            self._ended_here = False  # the peer was faster
            raise

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection. Closing one that is over does nothing.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 §7.4). Daphne sends only 1000
                and codes from 3000 on: there 1011 becomes 4011, and so on.
            reason: at most 123 bytes of UTF-8.

        Raises:
            RuntimeError: if the connection was not accepted yet: see ``reject``.
            ValueError: if the code or the reason must not be sent.
        """
        check_close(code, reason)
        if self._connection_state is WebSocketState.CONNECTING:
            raise RuntimeError(
                "Cannot close: connection not accepted yet; use reject() to refuse it"
            )
        if self._connection_state is WebSocketState.CONNECTED:
            # First, so that a close that is cancelled halfway is never sent twice.
            self._end(code, reason, here=True)
            await self._send_close(code, reason)

    async def disconnect(self, code: int, reason: str = "") -> None:
        """Close the connection from outside its handler, as a hub or an administrator does.

        For the connection's handler it is as if the peer had left: its receives and sends
        raise ``WebSocketDisconnect`` with this code. Does nothing when it is over already.

        Args:
            code: as for ``close``.
            reason: as for ``close``.

        Raises:
            ValueError: if the code or the reason must not be sent.
        """
        check_close(code, reason)
        if self._connection_state is WebSocketState.CONNECTED:
            self._end(code, reason)
            await self._send_close(code, reason)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("Cannot enter: this WebSocket has been entered already")
        if self._connection_state is WebSocketState.CONNECTING:
            await self.accept()
        if not self._direct:
            session = self._read_ahead()
            await session.__aenter__()
            self._session = session
        self._entered = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._session is None:
            await self._leave(exc)
            return None
        return await self._session.__aexit__(exc_type, exc, traceback)

    @asynccontextmanager
    async def _read_ahead(self) -> AsyncGenerator[None]:
        with Inbox() as self._inbox:
            async with create_task_group() as tasks:
                tasks.start_soon(self._inbox.fill, self._next_event)
                error: BaseException | None = None
                try:
                    yield
                except BaseException as raised:
                    error = raised
                    raise
                finally:
                    await self._leave(error)
                    tasks.cancel_scope.cancel()

    async def _leave(self, error: BaseException | None) -> None:
        if self._connection_state is _CONNECTED:
            code = 1000
            if error is not None:
                code = 1001 if isinstance(error, anyio.get_cancelled_exc_class()) else 1011
            end = self.close(code)
        elif self._closing is not None:
            # Another task may still be sending the close frame, and servers drop what is not
            # sent when the application returns.
            end = self._closing.wait()
        else:
            return  # the peer has left: a cancel scope would be a fifth of the remaining work
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            await end

    # -- Receiving ----------------------------------------------------------------------

    async def receive(self) -> Data:
        """Receive a message of either kind.

        Returns:
            ``str`` for a text message, ``bytes`` for a binary one.

        Raises:
            RuntimeError: if the connection is not CONNECTED.
            WebSocketDisconnect: if the peer left.
        """
        message = await self._receive_message()
        data: Data | None = message.get("text")
        return data if data is not None else message.get("bytes") or b""

    async def receive_text(self) -> str:
        """Receive a text message.

        Raises:
            RuntimeError: if the connection is not CONNECTED.
            TypeError: if a binary message came. It is consumed; the connection goes on.
            WebSocketDisconnect: if the peer left.
        """
        message = await self._receive_message()
        if message.get("bytes") is not None:
            raise TypeError("Received binary message. Use receive_bytes() for binary data.")
        return message.get("text") or ""

    async def receive_bytes(self) -> bytes:
        """Receive a binary message.

        Raises:
            RuntimeError: if the connection is not CONNECTED.
            TypeError: if a text message came. It is consumed; the connection goes on.
            WebSocketDisconnect: if the peer left.
        """
        message = await self._receive_message()
        if message.get("text") is not None:
            raise TypeError("Received text message. Use receive_text() for text data.")
        return message.get("bytes") or b""

    async def receive_json(self) -> Any:
        """Receive a text message and decode it as JSON.

        Raises:
            RuntimeError: if the connection is not CONNECTED.
            TypeError: if a binary message came.
            json.JSONDecodeError: if the text is not JSON. It is consumed; the connection
                goes on.
            WebSocketDisconnect: if the peer left.
        """
        return json.decode(await self.receive_text())

    async def receive_typed(self) -> Any:
        """Receive a text message of typed JSON (TYTX); needs the ``tytx`` extra.

        Only a text that ends in ``::TYTX`` or ``::JS`` is hydrated; any other is plain JSON,
        which does not need the extra.

        Raises:
            RuntimeError: if the connection is not CONNECTED.
            ImportError: if a marked message came and genro-tytx is not installed.
            TypeError: if a binary message came.
            json.JSONDecodeError: if the text, without its marker, is not JSON.
            DecodeError: if a value in it is not of the type that it names.
            WebSocketDisconnect: if the peer left.
        """
        text = await self.receive_text()
        if text.endswith(typed.MARKERS):
            _require_tytx("receive_typed")
        return typed.decode(text)

    async def _receive_connect(self) -> None:
        """Consume ``websocket.connect``, once: a cancelled accept may be tried again."""
        if self._connect_seen:
            return
        await self._next_event("websocket.connect")
        self._connect_seen = True

    def _receive_message(self) -> Awaitable[Message]:
        if self._inbox is not None and not self._ended_here:
            return self._receive_ahead(self._inbox)
        if self._connection_state is not _CONNECTED:
            self._require_connected("receive")
        return self._next_event()

    async def _receive_ahead(self, inbox: Inbox) -> Message:
        try:
            return await inbox.receive()
        except anyio.EndOfStream:
            raise self._disconnected() from None

    async def _next_event(self, expected: str = "websocket.receive") -> Message:
        try:
            message = await self._receive()
        except OSError as error:
            self._end(ABNORMAL, "")
            raise self._disconnected() from error
        if message["type"] == expected:
            return message
        if message["type"] == "websocket.disconnect":
            code = message.get("code")
            self._end(NO_STATUS if code is None else code, message.get("reason") or "")
            raise self._disconnected()
        raise RuntimeError(f"Expected {expected}, got {message['type']}")

    # -- Sending ------------------------------------------------------------------------

    async def send(self, data: Data) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary.

        A send that is cancelled before it began leaves no trace. One that is cancelled while
        the server is sending (the peer does not read) ends the connection: half of the message
        may be out, and nothing can follow that. On hubbub's own server, it sends all of the
        message or nothing, and the connection goes on.

        Raises:
            RuntimeError: if the connection is not CONNECTED.
            TypeError: if the data is neither ``str`` nor ``bytes``.
            WebSocketDisconnect: if the peer left.
        """
        if isinstance(data, str):
            await self._send_message({"type": "websocket.send", "text": data})
        elif isinstance(data, bytes):
            await self._send_message({"type": "websocket.send", "bytes": data})
        else:
            raise TypeError(
                f"Expected a message of str or bytes, got {type(data).__name__}; see send_json"
            )

    async def send_text(self, data: str) -> None:
        """Send a text message. Raises as ``send`` does."""
        if not isinstance(data, str):
            raise TypeError(f"Expected text of str, got {type(data).__name__}")
        await self._send_message({"type": "websocket.send", "text": data})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message. Raises as ``send`` does."""
        if not isinstance(data, bytes):
            raise TypeError(f"Expected binary data of bytes, got {type(data).__name__}")
        await self._send_message({"type": "websocket.send", "bytes": data})

    async def send_json(self, data: Any) -> None:
        """Encode a value as JSON and send it as text.

        Raises:
            RuntimeError: if the connection is not CONNECTED.
            TypeError: if the value has no JSON form.
            WebSocketDisconnect: if the peer left.
        """
        await self.send_text(json.encode(data))

    async def send_typed(self, data: Any, marker: str = "::TYTX") -> None:
        """Encode a value as typed JSON (TYTX) and send it; needs the ``tytx`` extra.

        Args:
            data: JSON values, ``Decimal``, ``date``, ``datetime``, ``time`` and ``bytes``,
                nested at will.
            marker: ``::TYTX``, or ``::JS`` for one of genro's own peers.

        Raises:
            ImportError: if genro-tytx is not installed.
            RuntimeError: if the connection is not CONNECTED.
            TypeError: if something in the data has no typed form.
            ValueError: if the marker is neither of the two.
            WebSocketDisconnect: if the peer left.
        """
        _require_tytx("send_typed")
        await self.send_text(typed.encode(data, marker))

    async def request(
        self, type: str, payload: Any, *, timeout: float | None = CALL_TIMEOUT
    ) -> Any:
        """Ask the peer, and wait for its answer; a router has to serve the connection.

            name = await ws.request("prompt", {"question": "What is your name?"})

        A router's handlers can do this, and so can a client inside ``router.serving(ws)``.

        Args:
            type: the type of the envelope that is sent.
            payload: its payload.
            timeout: seconds to wait for the answer; None: as long as the connection lasts.

        Returns:
            The payload of the reply, in JSON values; of several replies (``stream``), the
            first one's.

        Raises:
            DecodeError: if the answer cannot be decoded.
            RouterError: if the peer answered with an error, or not in time; the latter is a
                ``TimeoutError`` too.
            RuntimeError: if no router serves the connection.
            TypeError: if the payload cannot be encoded.
            WebSocketDisconnect: if the connection is over, or ends before the answer comes.
        """
        return await self._require_calls().request(type, payload, timeout=timeout)

    def stream(
        self, type: str, payload: Any, *, timeout: float | None = CALL_TIMEOUT
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        """Ask the peer, and take its replies one by one: as many as an async generator yields.

            async with ws.stream("count", 10) as numbers:
                async for number in numbers:
                    ...

        Up to 16 replies wait to be taken; then the connection is not read, so that the peer has
        to wait. But while another request waits for its answer, reading goes on, and one more
        reply ends the iteration with ``too_busy``. When the block is left early, the peer is not
        told, and later replies are ignored.

        Args:
            type: as for ``request``.
            payload: as for ``request``.
            timeout: seconds to wait for each reply; None: as long as the connection lasts.

        Raises:
            RuntimeError: if no router serves the connection.
        """
        return self._require_calls().stream(type, payload, timeout=timeout)

    def _require_calls(self) -> Calls:
        if self.calls is None:
            raise RuntimeError("Cannot request: no router serves this connection")
        return self.calls

    def deliver(self, data: Data) -> Awaitable[None]:
        """Send a message as ``send`` does, but without a checkpoint of its own.

        For a hub's senders, which have one checkpoint for many sends, and await this at once.
        To them the end is a ``WebSocketDisconnect``, even if the handler has closed.
        """
        kind = "text" if isinstance(data, str) else "bytes"
        message: Message = {"type": "websocket.send", kind: data}
        if self._sending and not self._direct:
            return self._deliver_in_turn(message)
        if self._connection_state is not _CONNECTED:
            raise self._disconnected()
        return self._send_directly(message) if self._direct else self._transmit(message)

    def _send_message(self, message: Message) -> Awaitable[None]:
        # Not a coroutine: one more would be a tenth of all that is done for a message.
        return self._send_directly(message) if self._direct else self._send_fairly(message)

    async def _send_fairly(self, message: Message) -> None:
        # Some servers never wait in a send. Without a checkpoint of our own, a handler that
        # only sends would starve the reader which tells it that the peer has gone.
        self._sends += 1
        if self._sends % _SENDS_PER_CHECKPOINT == 0:
            await checkpoint()
        else:
            await checkpoint_if_cancelled()
        await self._pass(message)

    async def _send_directly(self, message: Message) -> None:
        """Send on a server with an outlet, which sees to checkpoints and order itself."""
        if self._connection_state is not _CONNECTED:
            self._require_connected("send")
        try:
            await self._send(message)
        except ClientDisconnected as error:
            self._end(error.code, error.reason)
            raise self._disconnected() from error

    async def _pass(self, message: Message) -> None:
        if self._sending:
            await self._wait_for_turn()
        self._require_connected("send")  # only now: it may have ended while we waited
        await self._transmit(message)

    async def _deliver_in_turn(self, message: Message) -> None:
        await self._wait_for_turn()
        if self._connection_state is not _CONNECTED:  # only now, as above
            raise self._disconnected()
        await self._transmit(message)

    async def _send_close(self, code: int, reason: str) -> None:
        message: Message = {"type": "websocket.close", "code": code, "reason": reason}
        self._closing = anyio.Event()
        try:
            await self._stop_reading()  # Granian lets no close out while a receive waits
            await self._wait_for_turn()
            await self._transmit(message)
        except WebSocketDisconnect:
            pass  # the peer was faster
        except Exception as error:
            # Daphne sends 1000 and the codes from 3000 on; it refuses others like this.
            if "invalid close code" not in str(error):
                raise
            await self._transmit({**message, "code": 3000 + code})
        finally:
            self._closing.set()

    async def _stop_reading(self) -> None:
        if self._inbox is not None:
            await self._inbox.stop()

    async def _wait_for_turn(self) -> None:
        while self._sending:
            if self._turn is None:
                self._turn = anyio.Event()
            await self._turn.wait()

    async def _transmit(self, message: Message) -> None:
        """Hand a message to the server; the only place that calls its ``send``.

        Servers garble what two tasks send at once: hence the turns. They also garble what
        follows a send that was cancelled midway: hence such a send ends the connection.
        """
        self._sending = True  # a flag: a lock would cost as much as a server's whole send
        try:
            await self._send(message)
        except Exception as error:
            if not _means_gone(error):
                raise
            self._end(ABNORMAL, "")
            raise self._disconnected() from error
        except anyio.get_cancelled_exc_class():
            self._end(ABNORMAL, "a send was cancelled")
            raise
        finally:
            self._sending = False
            if self._turn is not None:
                self._turn.set()
                self._turn = None

    # -- Iterating ----------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[str]:
        """Iterate over text messages: the same as ``iter_text``."""
        return self.iter_text()

    def iter_text(self) -> AsyncIterator[str]:
        """Iterate over text messages until the connection ends; a binary one raises.

        ``close_code`` and ``close_reason`` say afterwards how it ended.
        """
        return _Messages(self, self.receive_text)

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over binary messages until the connection ends; a text one raises."""
        return _Messages(self, self.receive_bytes)

    def iter_messages(self) -> AsyncIterator[Data]:
        """Iterate over messages of either kind until the connection ends."""
        return _Messages(self, self.receive)

    def iter_json(self) -> AsyncIterator[Any]:
        """Iterate over text messages, decoded as JSON, until the connection ends; others raise."""
        return _Messages(self, self.receive_json)

    # -- The end ------------------------------------------------------------------------

    def _end(self, code: int, reason: str, *, here: bool = False) -> None:
        """Note the end of the connection; only the first call counts."""
        if self._connection_state is WebSocketState.DISCONNECTED:
            return
        self._connection_state = WebSocketState.DISCONNECTED
        self._close_code, self._close_reason, self._ended_here = code, reason, here
        if self._inbox is not None:
            self._inbox.end()

    def _disconnected(self) -> WebSocketDisconnect:
        assert self._close_code is not None
        assert self._close_reason is not None
        return WebSocketDisconnect(self._close_code, self._close_reason)

    def _require_connected(self, action: str) -> None:
        if self._connection_state is _CONNECTED:
            return
        if (loss := self.loss) is not None:
            raise loss
        raise RuntimeError(f"Cannot {action}: connection in {self._connection_state.name} state")


class _Messages(Generic[T]):
    """Iterates over what a WebSocket receives.

    Not an async generator: one that a ``break`` leaves behind is finalised by the garbage
    collector, and trio warns about that.
    """

    __slots__ = ("_receive", "_ws")

    def __init__(self, ws: WebSocket, receive: Callable[[], Awaitable[T]]) -> None:
        self._ws = ws
        self._receive = receive

    def __aiter__(self) -> _Messages[T]:
        return self

    async def __anext__(self) -> T:
        if self._ws._ended_here:  # by the loop's own body
            raise StopAsyncIteration
        try:
            return await self._receive()
        except WebSocketDisconnect:
            raise StopAsyncIteration from None


def _means_gone(error: Exception) -> bool:
    """Tell whether what a server's send raised says that the peer has gone."""
    return (
        isinstance(error, OSError)  # as ASGI has it
        # Hypercorn's trio worker, whose own closing of the stream collides with the send. By
        # name, because trio may not be installed.
        or type(error).__name__ == "BusyResourceError"
        or str(error).startswith(_GONE)
    )


def _require_tytx(method: str) -> None:
    if not HAS_TYTX:
        raise ImportError(
            f"genro-tytx package required for {method}(). Install with: pip install genro-tytx"
        )
