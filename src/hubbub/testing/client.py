"""TestClient: an ASGI application in a test, with its lifespan and its connections.

Everything runs in the test's own event loop, without a thread and without a socket. What a
server does is in server, what a test does with a connection in peer. Called by tests.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from anyio import AsyncContextManagerMixin
from yarl import URL

from hubbub._tasks import create_task_group
from hubbub.datastructures import encode_headers
from hubbub.testing.failures import patience, settle
from hubbub.testing.lifespan import run_lifespan
from hubbub.testing.link import Link
from hubbub.testing.peer import Peer
from hubbub.testing.profiles import PROFILES, Profile
from hubbub.testing.server import Server, build_scope
from hubbub.testing.transcript import Transcript
from hubbub.testing.watching import Watched
from hubbub.wire.client_handshake import ClientHandshake

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from hubbub.datastructures import HeadersLike
    from hubbub.types import ASGIApp, Scope

__all__ = ("TestClient",)

_BASE: Final = URL("ws://testserver/")


class TestClient(AsyncContextManagerMixin):
    """Talks to an ASGI application as many peers, inside a test's own event loop.

        async with TestClient(app) as client, client.connect("/chat") as ws:
            await ws.send_text("hi")
            assert await ws.receive_text() == "hi"

    The lifespan runs for as long as the block. What the application raises comes out of the
    block of the connection that it raised on, as itself.

    Attributes:
        timeout: seconds that whatever is waited for may take; the connections to come have it.
    """

    __test__ = False  # pytest: this is no test

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        *,
        server: str | Profile = "asgi",
        timeout: float | None = 5.0,
        raise_app_exceptions: bool = True,
    ) -> None:
        """Make a client of an application.

        Args:
            app: the ASGI application, whatever it calls the types of its arguments.
            server: the server to behave like: a name in ``PROFILES``, or a profile of your
                own. By default one that is as ASGI has it.
            timeout: seconds that whatever is waited for may take; None for no limit.
            raise_app_exceptions: whether what the application raises comes out in the test;
                otherwise its peer sees what a server makes of it.

        Raises:
            ValueError: if there is no such profile.
        """
        if isinstance(server, str):
            if server not in PROFILES:
                raise ValueError(f"Expected a server of {sorted(PROFILES)}, got {server!r}")
            server = PROFILES[server]
        self._app: ASGIApp = app
        self._profile = server
        self.timeout = timeout
        self._raises = raise_app_exceptions
        self._state: dict[str, Any] | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[TestClient]:
        if not self._profile.lifespan:
            yield self
            return
        lifespan = run_lifespan(self._app, self._patience, raises=self._raises)
        async with lifespan as self._state:
            yield self

    def connect(
        self,
        url: str,
        *,
        headers: HeadersLike = (),
        subprotocols: Sequence[str] = (),
        capacity: int = 64,
    ) -> AbstractAsyncContextManager[Peer]:
        """Connect a peer; at the end of the block it closes, and the application returns.

        Args:
            url: a path with its query, or a whole URL, where ``wss`` and the host matter.
            headers: headers of the request, as a mapping or as pairs.
            subprotocols: what the peer offers, in its order of preference.
            capacity: how many messages may be on their way, in each direction, before
                whoever sends has to wait.

        Raises:
            Rejected: if the application refuses.
            TimeoutError: if it does not answer in time, or does not return at the end.
            ValueError: if the URL or a header is none.
            WebSocketDisconnect: if it ends without an answer.
        """
        return self._connect(_BASE.join(URL(url)), headers, subprotocols, capacity)

    @asynccontextmanager
    async def _connect(
        self, url: URL, headers: HeadersLike, subprotocols: Sequence[str], capacity: int
    ) -> AsyncGenerator[Peer]:
        transcript = Transcript(url.path_qs)
        transcript.peer(
            f"connects, and offers {list(subprotocols)}" if subprotocols else "connects"
        )
        link = Link(self._profile, capacity)
        peer = Peer(link, transcript, self.timeout)
        server = Server(self._build_scope(url, headers, subprotocols), link, self._profile)
        app = Watched(self._app, transcript, raises=self._raises)
        error: Exception | None = None
        async with create_task_group() as tasks:
            tasks.start_soon(server.run, app)
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

    def _patience(self, what: str) -> AbstractContextManager[None]:
        return patience(self.timeout, what)

    def _build_scope(self, url: URL, headers: HeadersLike, subprotocols: Sequence[str]) -> Scope:
        handshake = ClientHandshake(
            url.host_port_subcomponent or "",
            url.raw_path_qs,
            subprotocols=subprotocols,
            headers=encode_headers(headers),
        )
        return build_scope(
            handshake.request(), self._profile, secure=url.scheme == "wss", state=self._state
        )
