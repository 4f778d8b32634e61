"""Lifespan: an application's startup and shutdown around a test, whose errors come out in it.

The events and their order are the server's (``ws_bridge.lifespan``). Used by both clients.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from hubbub._tasks import create_task_group
from hubbub.app import RAISE_ERRORS
from hubbub.testing.failures import settle
from hubbub.ws_bridge.lifespan import Lifespan, StartupFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractContextManager

    from hubbub.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ("run_lifespan",)


@asynccontextmanager
async def run_lifespan(
    app: ASGIApp, patience: Callable[[str], AbstractContextManager[None]], *, raises: bool
) -> AsyncGenerator[dict[str, Any] | None]:
    """Run an application's lifespan for as long as the block.

    Args:
        app: the ASGI application.
        patience: limits the time that startup and shutdown may take.
        raises: whether what the application raises comes out of the block.

    Yields:
        Its state; None when it has no lifespan.

    Raises:
        StartupFailed: if it says that it cannot start, and does not raise why.
        RuntimeError: if it says that it failed to shut down, and does not raise why.
        TimeoutError: if it takes longer than ``patience`` allows.
    """
    watched = _Watched(app, raises=raises)
    lifespan = Lifespan(watched)
    async with create_task_group() as tasks:
        tasks.start_soon(lifespan.run)
        with patience("end of the startup"):
            await _start(lifespan, watched)
        error: Exception | None = None
        try:
            yield lifespan.state
        except Exception as raised:
            error = raised
        try:
            with patience("end of the shutdown"):
                await lifespan.stop()
                await watched.over.wait()
        except TimeoutError as late:
            error = error or late
        tasks.cancel_scope.cancel()
    settle(error, watched.error if raises else None)


async def _start(lifespan: Lifespan, watched: _Watched) -> None:
    try:
        await lifespan.start()
    except StartupFailed:
        await watched.over.wait()  # frameworks raise the error after they have reported it
        if watched.error is not None:
            raise watched.error from None
        raise
    if lifespan.state is None:
        watched.error = None  # that is how an application says that it has no lifespan


class _Watched:
    """An application, and what its lifespan has raised."""

    def __init__(self, app: ASGIApp, *, raises: bool) -> None:
        self.error: Exception | None = None
        self.over = anyio.Event()
        self._app = app
        self._raises = raises

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(event: Message) -> None:
            if event["type"] == "lifespan.shutdown.failed":
                self.error = RuntimeError(event.get("message") or "The shutdown failed")
            await send(event)

        if self._raises:
            scope["extensions"] = {RAISE_ERRORS: {}}
        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            self.error = error
            raise
        finally:
            self.over.set()
