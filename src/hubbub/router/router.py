"""Router: message type -> handler; it is itself the handler of a connection.

Registration, and the beginning and the end of a connection that it serves. What happens in
between is Session's business. Made by applications.
"""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from types import EllipsisType, MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, get_args

import anyio

from hubbub._tasks import create_task_group
from hubbub.codecs.envelope import CODECS
from hubbub.exceptions import RouterError
from hubbub.router import asyncapi
from hubbub.router.contract import Sent, describe
from hubbub.router.routes import Mode, Route, Signature, check_type
from hubbub.router.session import Limits, Session
from hubbub.websocket import WebSocketState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from anyio.abc import TaskStatus

    from hubbub.member import Member
    from hubbub.router.connection import Connection
    from hubbub.router.limits import RateLimit
    from hubbub.router.routes import Handler, Key, Middleware
    from hubbub.websocket import WebSocket

    Hook: TypeAlias = Callable[[WebSocket], Awaitable[None]]
    Join: TypeAlias = Callable[[WebSocket], AbstractAsyncContextManager[Member]]

__all__ = ("Router",)

H = TypeVar("H", bound="Handler")
M = TypeVar("M", bound="Middleware")
K = TypeVar("K", bound="Hook")

_logger = logging.getLogger("hubbub")
_POLICY_VIOLATION: Final = 1008  # RFC 6455 §7.4.1
_MAX_REASON: Final = 123  # bytes of a close frame


class Router:
    """Handlers of typed messages, as the handler of a connection.

        router = Router()

        @router.on("add")
        async def add(ws: WebSocket, payload: Add) -> int:
            return payload.a + payload.b

        app = App({"/rpc": router})

    A handler is an async function, or an async generator. It is given what its parameters'
    annotations ask for: the ``WebSocket``, the ``Member`` (or ``Member | None``), the
    ``Envelope``; a parameter with any other annotation, or none, is the payload, which has to
    be of that type. What it returns is the reply; None is sent only to a message that has an
    ``id``. A generator replies as often as it yields. A ``RouterError`` is sent as an error
    envelope; any other exception is logged, and the peer is told no more than ``internal``.

    The wire contract is in docs/contract.md.
    """

    def __init__(
        self,
        *,
        join: Join | None = None,
        mode: Mode = "ordered",
        key: Key | None = None,
        timeout: float | None = 30.0,
        max_running: int = 16,
        refuse_when_busy: bool = False,
        max_bad_messages: int | None = 16,
        rate: RateLimit | None = None,
        grace: float = 5.0,
    ) -> None:
        """Make a router without handlers.

        Args:
            join: makes each connection a member of a hub: ``lambda ws: hub.join("lobby", ws)``.
                Replies then go through the member's outbox, in order with broadcasts.
            mode: which messages of a connection wait for which. ``ordered``: each for the one
                before. ``concurrent``: none. ``keyed``: for those of the same key.
            key: for ``keyed``: returns the key of a decoded payload.
            timeout: seconds that a handler may take until its reply is sent, and a generator
                for each reply. Then it is cancelled, late by at most an eighth of the router's
                shortest timeout, and its message is answered with ``timeout``. None: as long as
                the connection lasts.
            max_running: how many messages of a connection may have been read and not be done.
                At that number no more are read, so that the peer has to wait.
            refuse_when_busy: read on instead, and answer ``too_busy``.
            max_bad_messages: how many messages in a row may be refused; then the connection is
                closed with 1008. None: any number, each of which costs an answer.
            rate: how much a connection may send in a second; the rest is ``rate_limited``. None:
                as much as it likes, as long as it reads its replies and handlers keep up.
            grace: seconds that handlers may go on after their connection has ended, before they
                are cancelled; and the same for ``on_disconnect``.

        Raises:
            ValueError: if ``max_running`` or ``max_bad_messages`` is not at least 1, the timeout
                is not above 0, or the key does not fit the mode.
        """
        for name, value in (("max_running", max_running), ("max_bad_messages", max_bad_messages)):
            if value is not None and value < 1:
                raise ValueError(f"Expected {name} of at least 1, got {value}")
        _check_mode(mode, key)
        self._join = join
        self._mode: Mode = mode
        self._key = key
        self._timeout = _check_timeout(timeout)
        self._limits = Limits(max_running, refuse_when_busy, max_bad_messages, rate, grace)
        self._routes: dict[str, Route] = {}  # as they were registered
        self._table: dict[str, Route] | None = None  # the same, with all their middleware
        self._sent: dict[str, Sent] = {}
        self._middleware: list[Middleware] = []
        self._on_connect: list[Hook] = []
        self._on_disconnect: list[Hook] = []

    # -- Registration -------------------------------------------------------------------

    def on(
        self,
        type: str,
        *,
        mode: Mode | None = None,
        key: Key | None = None,
        timeout: float | EllipsisType | None = ...,
    ) -> Callable[[H], H]:
        """Register a handler of messages of a type; a decorator.

        Args:
            type: the type of the messages; ``include`` may put a prefix before it.
            mode: as for ``Router``; mode and key are the router's when neither is given.
            key: as for ``Router``.
            timeout: as for ``Router``; the router's when it is not given.

        Raises:
            TypeError: if the type is no string, or the handler is no async function or asks for
                what cannot be given.
            ValueError: if the type has a handler already, or is not allowed, the timeout is
                not above 0, or the key does not fit the mode.
        """
        if not isinstance(type, str):
            raise TypeError(f'Expected @router.on("type"), got {type!r} as the type')
        if mode is None and key is None:
            lane, lane_key = self._mode, self._key
        else:
            lane, lane_key = _check_mode(mode, key), key
        limit = self._timeout if isinstance(timeout, EllipsisType) else _check_timeout(timeout)

        def register(handler: H) -> H:
            self._add(Route(type, handler, Signature.of(handler), lane, lane_key, limit))
            return handler

        return register

    def include(self, router: Router, *, prefix: str = "") -> None:
        """Take over the handlers that another router has so far, and its hooks.

        They keep their modes, timeouts and middleware, inside this router's middleware.

        Args:
            router: the other router.
            prefix: what their types begin with from now on: ``game.``.

        Raises:
            ValueError: if a type has a handler already, or is not allowed.
        """
        for route in router.routes.values():
            self._add(replace(route, type=prefix + route.type))
        for sent in router.sent.values():
            self.sends(prefix + sent.type, sent.payload, reply=sent.reply)
        self._on_connect += router._on_connect
        self._on_disconnect += router._on_disconnect

    def middleware(self, middleware: M) -> M:
        """Put something around every message that has a handler; a decorator.

            @router.middleware
            async def log(context: Context, proceed: Proceed) -> Any:
                reply = await proceed(context)
                logger.info("%s: %r", context.envelope.type, reply)
                return reply

        The first one is the outermost. What it raises counts as raised by the handler.
        """
        self._middleware.append(middleware)
        self._table = None
        return middleware

    def on_connect(self, hook: K) -> K:
        """Call something for each connection, before it is accepted; a decorator.

        It may ``reject`` the connection; or ``accept`` it, and then ``close`` it or not. If it
        raises a ``RouterError``, the connection is accepted and closed with 1008 and the message
        as the reason, which a browser's page can read.
        """
        self._on_connect.append(hook)
        return hook

    def on_disconnect(self, hook: K) -> K:
        """Call something for each connection that was let in, after its end; a decorator.

        ``ws.close_code`` and ``ws.close_reason`` say how it ended. What it raises is logged.
        """
        self._on_disconnect.append(hook)
        return hook

    @property
    def routes(self) -> Mapping[str, Route]:
        """The routes, by message type, as they are now."""
        if self._table is None:
            outer = tuple(self._middleware)
            self._table = {
                type: replace(route, middleware=outer + route.middleware)
                for type, route in self._routes.items()
            }
        return MappingProxyType(self._table)

    def _add(self, route: Route) -> None:
        check_type(route.type)
        if route.type in self._routes:
            raise ValueError(f"Expected one handler of {route.type!r}, got another")
        self._routes[route.type] = route
        self._table = None

    def sends(self, type: str, payload: Any = Any, *, reply: Any = None) -> None:
        """Declare that the application sends messages of a type by itself.

        It only adds them to the AsyncAPI document and to the TypeScript types.

        Args:
            type: the type.
            payload: the type of the payload, as an annotation.
            reply: the same for the peer's reply, when it is asked with ``ws.request``.

        Raises:
            ValueError: if the type is not allowed.
        """
        check_type(type)
        self._sent[type] = Sent(type, payload, reply)

    @property
    def sent(self) -> Mapping[str, Sent]:
        """What was declared with ``sends``, by type."""
        return MappingProxyType(self._sent)

    def asyncapi(self, *, title: str = "Messages", version: str = "0.1.0") -> dict[str, Any]:
        """Write an AsyncAPI 3.0 document of the messages, as JSON values.

        Args:
            title: the application's name.
            version: the application's version.
        """
        return asyncapi.document(describe({"": self}), title=title, version=version)

    # -- Connections --------------------------------------------------------------------

    async def __call__(self, ws: WebSocket) -> None:
        """Serve a connection, from its handshake to its end.

        Raises:
            WebSocketDisconnect: if the peer left during the handshake, or the hub is closing.
        """
        if not await self._let_in(ws):
            return
        try:
            async with ws, self._join(ws) if self._join else nullcontext() as member:
                await self.run(ws, member)
        finally:
            with anyio.move_on_after(self._limits.grace, shield=True):
                await self._say_goodbye(ws)

    async def run(
        self,
        connection: Connection,
        member: Member | None = None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Handle the messages of an open connection until it ends; no hook is called.

        For a connection that somebody else has opened; for a client's, ``serving`` is handier.

        Args:
            connection: the connection, from which nobody else may receive.
            member: the member through whose outbox the replies go, if any.
            task_status: told when the connection is served.
        """
        await Session(self.routes, self._limits, connection, member).run(task_status)

    @asynccontextmanager
    async def serving(self, connection: Connection) -> AsyncGenerator[None]:
        """Handle the messages of an open connection while a block does something with it.

            async with connect(url) as ws, router.serving(ws):
                total = await ws.request("add", {"a": 1, "b": 2})

        For clients: the router's handlers, if any, answer what the server asks. The end of the
        connection does not end the block, but every request in it. Handlers that are not done
        when the block is left are cancelled.

        Args:
            connection: the connection, from which nobody else may receive.
        """
        try:
            async with create_task_group() as tasks:
                await tasks.start(self.run, connection)
                yield
                tasks.cancel_scope.cancel()
        finally:
            connection.calls = None

    async def _let_in(self, ws: WebSocket) -> bool:
        try:
            for hook in self._on_connect:
                await hook(ws)
                if ws.connection_state is WebSocketState.DISCONNECTED:
                    return False
        except RouterError as error:
            await _accept(ws)
            reason = (error.message or error.code).encode()[:_MAX_REASON].decode(errors="ignore")
            await ws.close(_POLICY_VIOLATION, reason)
            return False
        await _accept(ws)
        return True

    async def _say_goodbye(self, ws: WebSocket) -> None:
        for hook in self._on_disconnect:
            try:
                await hook(ws)
            except Exception:  # the application's own: the other hooks are called all the same
                _logger.exception("on_disconnect failed")


async def _accept(ws: WebSocket) -> None:
    """Accept, with the first of the peer's subprotocols that stands for a codec, if any."""
    if ws.connection_state is WebSocketState.CONNECTING:
        await ws.accept(next(filter(CODECS.__contains__, ws.subprotocols), None))


def _check_mode(mode: Mode | None, key: Key | None) -> Mode:
    if mode not in (None, *get_args(Mode)):
        raise ValueError(f"Expected a mode of {', '.join(get_args(Mode))}; got {mode!r}")
    if mode is None or (mode == "keyed") != (key is not None):
        raise ValueError(f"Expected a key with mode='keyed' and only there, got mode={mode!r}")
    return mode


def _check_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"Expected a timeout above 0, got {timeout}")
    return timeout
