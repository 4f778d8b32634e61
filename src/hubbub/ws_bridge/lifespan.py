"""Lifespan: an application's startup and shutdown (ASGI lifespan spec 2.0).

The events and their order live here; the server decides when they are due. Used by server.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from hubbub._tasks import is_cancelled

if TYPE_CHECKING:
    from hubbub.types import ASGIApp, Message, Scope

__all__ = ("Lifespan", "StartupFailed")

_logger = logging.getLogger("hubbub.ws_bridge")


class StartupFailed(RuntimeError):
    """An application said that it cannot start; the text is its own."""


class Lifespan:
    """One run of an application's lifespan: ``run`` is a task, the rest talks to it.

    Attributes:
        state: what the application gives to its connections; None when it has no lifespan.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] | None = {}
        self._app = app
        self._stopping = anyio.Event()
        self._asked = False
        self._answered = anyio.Event()
        self._started = False
        self._failure: str | None = None
        self._over = False

    async def run(self) -> None:
        """Call the application; if it raises or returns at once, it has no lifespan."""
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:  # the border to the application
            self._note(error)
        except anyio.get_cancelled_exc_class() as error:
            if is_cancelled():
                raise
            self._note(error)
        finally:
            self._over = True
            if not self._started:
                self.state = None
            self._answered.set()

    def _note(self, error: BaseException) -> None:
        if self._started or self._failure is not None:
            _logger.error("The application's lifespan failed", exc_info=error)
        else:
            _logger.info("The application has no lifespan: %r", error)

    async def start(self) -> None:
        """Wait until the application has started, or turns out to have no lifespan.

        Raises:
            StartupFailed: if it says that it cannot start.
        """
        await self._answered.wait()
        if self._failure is not None:
            raise StartupFailed(self._failure or "The application failed to start")

    async def stop(self) -> None:
        """Wait until the application has shut down."""
        if self._over:
            return
        self._answered = anyio.Event()
        self._stopping.set()
        await self._answered.wait()
        if self._failure is not None:
            _logger.error("The application failed to shut down: %s", self._failure)

    async def _receive(self) -> Message:
        if not self._asked:
            await checkpoint()
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        await checkpoint()
        phase = "shutdown" if self._stopping.is_set() else "startup"
        kind = message["type"]
        if self._answered.is_set() or kind not in (
            f"lifespan.{phase}.complete",
            f"lifespan.{phase}.failed",
        ):
            raise RuntimeError(f"Expected one answer to lifespan.{phase}, got {kind!r}")
        if kind.endswith("failed"):
            self._failure = message.get("message") or ""
        else:
            self._started = True
        self._answered.set()
