"""Conversing: an application called for one peer, whose errors come out in the test.

The life of a client and of each of its connections, whatever is between peer and application.
Used by the two clients, which say what that is.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from anyio import AsyncContextManagerMixin

from hubbub._tasks import create_task_group
from hubbub.testing.failures import patience, settle
from hubbub.testing.lifespan import run_lifespan
from hubbub.testing.peer import Peer
from hubbub.testing.transcript import Transcript
from hubbub.testing.watching import Watched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
    from contextlib import AbstractContextManager

    from hubbub.testing.link import Link
    from hubbub.types import ASGIApp

__all__ = ("Client",)


class Client(AsyncContextManagerMixin):
    """An application's peers, and its lifespan for as long as the block.

    Attributes:
        timeout: seconds that anything waited for may take, on connections made from now on.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        timeout: float | None,
        raises: bool,
        lifespan: bool = True,
    ) -> None:
        self.timeout = timeout
        self._app: ASGIApp = app
        self._raises = raises
        self._lifespan = lifespan
        self._state: dict[str, Any] | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if not self._lifespan:
            yield self
            return
        lifespan = run_lifespan(self._app, self._patience, raises=self._raises)
        async with lifespan as self._state:
            yield self

    def _patience(self, what: str) -> AbstractContextManager[None]:
        return patience(self.timeout, what)

    @asynccontextmanager
    async def _converse(
        self,
        title: str,
        subprotocols: Sequence[str],
        link: Link,
        serve: Callable[[ASGIApp], Coroutine[Any, Any, None]],
    ) -> AsyncGenerator[Peer]:
        """Run one connection.

        Args:
            title: what the transcript calls it.
            subprotocols: what the peer offers.
            link: the connection; ``serve`` looks after the end that is not the peer's.
            serve: calls the application, and returns when that has.
        """
        transcript = Transcript(title)
        offers = f", and offers {list(subprotocols)}" if subprotocols else ""
        transcript.peer(f"connects{offers}")
        app = Watched(self._app, transcript, raises=self._raises)
        peer = Peer(link, transcript, self.timeout)
        error: Exception | None = None
        async with create_task_group() as tasks:
            tasks.start_soon(serve, app)
            with link:
                try:
                    await peer.wait_accepted()
                    yield peer
                except Exception as raised:
                    error = raised
                try:
                    await peer.close()
                    with peer.patience("return of the application, whose peer has gone"):
                        await app.over.wait()
                except TimeoutError as late:
                    error = error or late
            tasks.cancel_scope.cancel()
        settle(error, app.error, transcript)
