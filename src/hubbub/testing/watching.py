"""Watched: an application, with a note of what it does, and what it raises.

It changes nothing for the application, nor for the server that calls it. Used by both clients.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from hubbub.app import RAISE_ERRORS
from hubbub.exceptions import ClientDisconnected
from hubbub.testing.transcript import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubbub.testing.transcript import Transcript
    from hubbub.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ("Watched",)


class Watched:
    """An application, for one connection.

    Attributes:
        error: what it raised, unless that only says that its peer has gone.
        over: set when it has returned or raised.
    """

    def __init__(self, app: ASGIApp, transcript: Transcript, *, raises: bool) -> None:
        """Watch an application.

        Args:
            app: the ASGI application.
            transcript: where to note what it does.
            raises: whether to ask it for its exceptions, and to keep them.
        """
        self.error: Exception | None = None
        self.over = anyio.Event()
        self._app = app
        self._transcript = transcript
        self._raises = raises

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the application."""
        told = False  # that the peer has gone

        async def watched_receive() -> Message:
            nonlocal told
            with self._waiting("receive()"):
                event = await receive()
            told = told or event["type"] == "websocket.disconnect"
            return event

        async def watched_send(event: Message) -> None:
            nonlocal told
            self._transcript.app(_describe_event(event))
            try:
                with self._waiting("send()"):
                    await send(event)
            except ClientDisconnected:
                told = True
                raise

        if self._raises:
            scope["extensions"][RAISE_ERRORS] = {}
        self._transcript.application = "is running"
        try:
            await self._app(scope, watched_receive, watched_send)
        except Exception as error:
            self._transcript.application = f"raised {error!r}"
            if self._raises and not (told and _is_disconnect(error)):
                self.error = error
            raise
        else:
            self._transcript.application = "returned"
        finally:
            self.over.set()

    @contextmanager
    def _waiting(self, where: str) -> Iterator[None]:
        self._transcript.waiting.append(where)
        try:
            yield
        finally:
            self._transcript.waiting.remove(where)


def _is_disconnect(error: BaseException) -> bool:
    """Tell whether an error only says that the peer has left, which may propagate.

    Starlette's and Litestar's are known by name: neither may be installed.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_disconnect, error.exceptions))
    return isinstance(error, ClientDisconnected) or any(
        kind.__name__ == "WebSocketDisconnect" for kind in type(error).__mro__
    )


def _describe_event(event: Message) -> str:
    kind = event["type"]
    if kind == "websocket.send":
        text, data = event.get("text"), event.get("bytes")
        return f"sends {describe(text if text is not None else data or b'')}"
    if kind == "websocket.accept":
        subprotocol = event.get("subprotocol")
        return f"accepts with subprotocol {subprotocol!r}" if subprotocol else "accepts"
    if kind == "websocket.close":
        return f"closes with {event.get('code', 1000)} {event.get('reason') or ''!r}"
    if kind == "websocket.http.response.start":
        return f"refuses with {event.get('status')}"
    return f"sends the event {kind}"
