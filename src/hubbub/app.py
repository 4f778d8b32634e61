"""App: path -> handler, and one lifespan. It is itself an ASGI application.

It routes by exact path, and closes what a handler leaves open, however the handler ends.
No rooms and no messages live here. Called by an ASGI server, or by a framework that it is
mounted in.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from hubbub._tasks import is_cancelled
from hubbub.datastructures import route_path_from_scope
from hubbub.exceptions import WebSocketDisconnect, is_disconnect
from hubbub.origins import SAME_HOST, OriginCheck
from hubbub.websocket import WebSocket, WebSocketState

if TYPE_CHECKING:
    from hubbub.origins import Origins
    from hubbub.types import Receive, Scope, Send

__all__ = ("RAISE_ERRORS", "App", "Handler", "Lifespan")

Handler: TypeAlias = Callable[[WebSocket], Awaitable[None]]
"""What serves a connection, from its handshake to its end."""

Lifespan: TypeAlias = (
    AbstractAsyncContextManager[Any] | Callable[[], AbstractAsyncContextManager[Any]]
)
"""What is entered before the first connection and left after the last: a ``Hub``, say, or a
function that makes a context manager. If entering it gives a mapping, its items are in every
connection's ``ws.state``."""

RAISE_ERRORS = "hubbub.raise_errors"
"""The ASGI extension by which a server, as a test client is, asks that exceptions of handlers
and of the lifespan are raised instead of logged."""

_logger = logging.getLogger("hubbub")
_CLOSE_TIMEOUT = 5.0  # seconds for a close, or a rejection, to be sent


class App:
    """An ASGI application of WebSocket handlers.

        app = App({"/echo": echo, "/chat": chat}, lifespan=hub)

    A handler serves one connection and may end in any way: when it returns, the connection
    is closed with 1000; when it raises, that is logged, once, and the connection closed with
    1011 (rejected with 500, when it was not accepted yet); when the peer leaves, it may let the
    ``WebSocketDisconnect`` propagate, but not that of another connection, which it sends to. A
    connection that its handler did not accept is rejected with 403, one to an unknown path with
    404. An HTTP request gets 426 (RFC 9110 §15.5.22) where there is a handler, else 404.

    In a framework: mount it, and enter the lifespan (the hub) in the framework's own.
    """

    def __init__(
        self,
        routes: Mapping[str, Handler],
        *,
        lifespan: Lifespan | None = None,
        origins: Origins | None = SAME_HOST,
    ) -> None:
        """Make an application.

        Args:
            routes: path -> handler; a path is exact and begins with ``/``.
            lifespan: what is entered before the first connection and left after the last.
            origins: whose pages may connect, all others get 403: those of the same host, or of a
                list of origins (``https://example.org``). None: everybody's, in their visitors'
                names. A client that is no browser names no origin, and may always connect.

        Raises:
            TypeError: if the routes are not a mapping, a handler is not a function, or ``origins``
                is a single string.
            ValueError: if a path does not begin with ``/`` or has parameters, or an origin is not
                as browsers write it.
        """
        if not isinstance(routes, Mapping):
            raise TypeError(f"Expected routes as {{path: handler}}, got {routes!r}")
        for path, handler in routes.items():
            if not path.startswith("/"):
                raise ValueError(f"Expected a path that begins with '/', got {path!r}")
            if "{" in path:
                raise ValueError(
                    f"Expected an exact path, got {path!r}: what varies goes into the query, "
                    "see ws.query_params"
                )
            if not callable(handler):
                raise TypeError(f"Expected a function as the handler of {path}, got {handler!r}")
        self._routes = dict(routes)
        self._lifespan = lifespan
        self._check_origin = None if origins is None else OriginCheck(origins)
        self._state: Mapping[str, Any] = {}

    @property
    def routes(self) -> Mapping[str, Handler]:
        """The handlers, by path."""
        return MappingProxyType(self._routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, an HTTP request or the lifespan, for an ASGI server.

        Raises:
            RuntimeError: if the scope is of another type.
        """
        if scope["type"] == "websocket":
            await self._serve(WebSocket(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer_http(scope, send)
        else:
            raise RuntimeError(
                f"Expected scope type 'websocket', 'http' or 'lifespan', got '{scope['type']}'"
            )

    async def _serve(self, ws: WebSocket) -> None:
        handler = self._routes.get(route_path_from_scope(ws.scope))
        status, code = 500, 1011
        try:
            if handler is None:
                await ws.reject(404, {"content-type": "text/plain"}, b"Not Found")
            else:
                for name, value in self._state.items():
                    ws.state.setdefault(name, value)
                if self._check_origin is not None:
                    await self._check_origin(ws)
                if ws.connection_state is WebSocketState.CONNECTING:
                    await handler(ws)
            status, code = 403, 1000
        except anyio.get_cancelled_exc_class():
            status, code = 503, 1001
            raise
        except Exception as error:
            if not (ws.loss and is_disconnect(error)):
                if _raises_errors(ws.scope):
                    raise
                _logger.exception("The handler of %s failed", ws.path)
        finally:
            if ws.connection_state is not WebSocketState.DISCONNECTED:
                with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                    await _finish(ws, status, code)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        phase = "startup"
        try:
            async with self._enter_lifespan() as state:
                self._state = state if isinstance(state, Mapping) else {}
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except (Exception, anyio.get_cancelled_exc_class()) as error:
            if is_cancelled():
                raise
            message = f"{type(error).__name__}: {error}"
            await send({"type": f"lifespan.{phase}.failed", "message": message})
            if _raises_errors(scope) or not isinstance(error, Exception):
                raise
            _logger.exception("The lifespan failed at %s", phase)
        else:
            await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _enter_lifespan(self) -> AsyncGenerator[Any]:
        if self._lifespan is None:
            yield None
        else:
            lifespan = self._lifespan() if callable(self._lifespan) else self._lifespan
            async with lifespan as state:
                yield state

    async def _answer_http(self, scope: Scope, send: Send) -> None:
        headers = [(b"content-type", b"text/plain")]
        if route_path_from_scope(scope) in self._routes:
            status, body = 426, b"Expected a WebSocket"
            headers += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
        else:
            status, body = 404, b"Not Found"
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _finish(ws: WebSocket, status: int, code: int) -> None:
    """End a connection that is still open: servers differ in what they do with one."""
    try:
        if ws.connection_state is WebSocketState.CONNECTING:
            await ws.reject(status)
        else:
            await ws.close(code)
    except WebSocketDisconnect:
        pass  # the peer left before it was answered


def _raises_errors(scope: Scope) -> bool:
    return RAISE_ERRORS in (scope.get("extensions") or ())
