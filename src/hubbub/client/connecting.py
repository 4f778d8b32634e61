"""connect: from a URL to an open WebSocket, with everything that may come in between.

The opening handshake, redirects, and all limits; what comes after is ClientWebSocket's. Called
by whoever wants to talk to a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

import anyio

from hubbub.client.dialing import dial, secure_stream
from hubbub.client.proxy import find_proxy
from hubbub.client.target import follow_redirect, parse_target
from hubbub.client.websocket import ClientWebSocket, Opened
from hubbub.datastructures import encode_headers
from hubbub.exceptions import HandshakeError
from hubbub.wire.client_handshake import ClientHandshake
from hubbub.wire.headers import field_values
from hubbub.wire.protocol import DEFAULT_MAX_MESSAGE_SIZE
from hubbub.ws_bridge.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ssl import SSLContext
    from types import TracebackType

    from anyio.abc import ByteStream
    from yarl import URL

    from hubbub.client.dialing import LocalAddress
    from hubbub.client.target import Target
    from hubbub.datastructures import HeadersLike
    from hubbub.wire.client_handshake import UpgradeResponse

__all__ = ("ConnectOptions", "connect")

_MAX_REDIRECTS: Final = 10
_BODY_TIMEOUT: Final = 2.0  # seconds, for the body of a refusal: its status is known by then
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SECRETS: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
_USER_AGENT: Final = "hubbub"


class ConnectOptions(TypedDict, total=False):
    """The options of ``connect``, for whoever passes them on."""

    subprotocols: Sequence[str]
    headers: HeadersLike | None
    origin: str | None
    ssl: SSLContext | None
    proxy: str | bool
    deflate: bool
    max_message_size: int | None
    open_timeout: float | None
    close_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    local_address: LocalAddress | None
    stream: ByteStream | None


class connect:
    """Connect to a WebSocket server: ``async with connect(url) as ws``.

    ``ws`` is a ``ClientWebSocket``, open. When the block is left it is closed: with 1000, with
    1011 when the body raised, with 1001 when it was cancelled.

    Times are in seconds, sizes in bytes; None means without limit.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        subprotocols: Sequence[str] = (),
        headers: HeadersLike | None = None,
        origin: str | None = None,
        ssl: SSLContext | None = None,
        proxy: str | bool = True,
        deflate: bool = True,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        open_timeout: float | None = 10.0,
        close_timeout: float | None = 5.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        local_address: LocalAddress | None = None,
        stream: ByteStream | None = None,
    ) -> None:
        """Say where to and how; nothing is sent before ``async with``.

        Entering the block raises what ``open`` does.

        Args:
            url: ``ws://``, ``wss://``, or ``ws+unix:///path/of.sock:/path/of/resource``. User
                and password in it are sent as basic authorization.
            subprotocols: what to offer, in order of preference.
            headers: further headers of the request, as a mapping or as pairs.
            origin: the value of ``Origin``, for servers that ask for it.
            ssl: the context for ``wss://``; by default one that trusts the system's certificates.
            proxy: the URL of a proxy (``http://``, ``socks4://``, ``socks4a://``,
                ``socks5://``), with user and password if it wants them; True for what the
                environment says, False for none. Needs the ``proxy`` extra.
            deflate: whether to offer permessage-deflate (RFC 7692).
            max_message_size: the limit for a message, inflated; beyond it the connection is
                closed with 1009.
            open_timeout: the time until the WebSocket is open, redirects included.
            close_timeout: the time that the server has to end the connection when the block is
                left.
            ping_interval: the silence after which the server is sent a ping.
            ping_timeout: the further silence after which the server counts as lost (1011).
            local_address: host and port to connect from; port 0 for any.
            stream: any connected byte stream, instead of a new connection. It is closed in
                the end, and no redirect is followed.

        Raises:
            ValueError: if the URL, a subprotocol or a header is not valid, or a limit is not
                above zero.
        """
        self._target = parse_target(url)
        self._subprotocols = subprotocols
        self._headers = encode_headers(headers or ())
        if origin is not None:
            self._headers += encode_headers({"Origin": origin})
        defaults = {"Authorization": self._target.authorization, "User-Agent": _USER_AGENT}
        for name, value in encode_headers({k: v for k, v in defaults.items() if v is not None}):
            if all(name != given for given, _ in self._headers):
                self._headers.append((name, value))
        self._ssl = ssl
        self._proxy = proxy
        self._local_address = local_address
        self._stream = stream
        self._open_timeout = open_timeout
        self._config = Config(
            max_message_size=max_message_size,
            deflate=deflate,
            handshake_timeout=None,
            close_timeout=close_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            grace_timeout=None,
        )
        self._handshake(self._target).request()
        self._ws: ClientWebSocket | None = None

    async def __aenter__(self) -> ClientWebSocket:
        self._ws = await self.open()
        return await self._ws.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._ws is not None
        return await self._ws.__aexit__(exc_type, exc, traceback)

    async def open(self, *, expendable: bool = False) -> ClientWebSocket:
        """Open a WebSocket that is still to be entered, with ``async with``.

        Args:
            expendable: whether its block ends quietly when the server has gone.

        Raises:
            HandshakeError: if the server does not open the WebSocket.
            ImportError: if there is a proxy, and the ``proxy`` extra is not installed.
            OSError: if nobody is there, or TLS fails.
            TimeoutError: after ``open_timeout``; an ``OSError``, too.
        """
        with anyio.move_on_after(self._open_timeout):
            return ClientWebSocket(await self._open(), self._config, expendable=expendable)
        raise TimeoutError(f"{self._target.url} did not open within {self._open_timeout} seconds")

    async def _open(self) -> Opened:
        target = self._target
        for _ in range(_MAX_REDIRECTS):
            try:
                return await self._open_at(target)
            except HandshakeError as refusal:
                target = self._follow(target, refusal)
        return await self._open_at(target)

    async def _open_at(self, target: Target) -> Opened:
        stream = self._stream
        if stream is None:
            proxy = self._find_proxy(target)
            stream = await dial(target, proxy=proxy, local=self._local_address)
        if target.secure:
            stream = await secure_stream(stream, target, self._ssl)
        try:
            response = await _shake_hands(stream, self._handshake(target))
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        return Opened(stream, target, self._subprotocols, response)

    def _find_proxy(self, target: Target) -> str | None:
        if self._proxy is True:
            return find_proxy(target)
        return self._proxy or None

    def _handshake(self, target: Target) -> ClientHandshake:
        headers = self._headers
        if target.origin != self._target.origin:
            headers = [(name, value) for name, value in headers if name not in _SECRETS]
        return ClientHandshake(
            target.authority,
            target.resource,
            subprotocols=self._subprotocols,
            deflate=self._config.deflate,
            headers=headers,
        )

    def _follow(self, target: Target, refusal: HandshakeError) -> Target:
        """Find out where a server sends us; if nowhere, its refusal stands."""
        locations = field_values(refusal.headers, b"location")
        if refusal.status not in _REDIRECTS or len(locations) != 1 or self._stream is not None:
            raise refusal
        try:
            return follow_redirect(target, locations[0])
        except ValueError as error:
            refusal.add_note(str(error))
            raise refusal from error


async def _shake_hands(stream: ByteStream, handshake: ClientHandshake) -> UpgradeResponse:
    try:
        await stream.send(handshake.request())
        while not handshake.is_refused:
            response = handshake.receive_data(await _receive(stream))
            if response is not None:
                return response
        with anyio.move_on_after(_BODY_TIMEOUT):
            while True:
                handshake.receive_data(await _receive(stream))  # raises at the end of the body
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise handshake.refusal("the connection was lost") from error
    raise handshake.refusal()


async def _receive(stream: ByteStream) -> bytes:
    try:
        return await stream.receive()
    except anyio.EndOfStream:
        return b""
