"""TestClient: an ASGI application in a test, called as ASGI servers call it.

What a server does is in server, what a test does with a connection in peer, and how both come
together in conversing. Called by tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from yarl import URL

from hubbub.datastructures import encode_headers
from hubbub.testing.conversing import Client
from hubbub.testing.link import Link
from hubbub.testing.profiles import PROFILES, Profile
from hubbub.testing.server import Server, build_scope
from hubbub.wire.client_handshake import ClientHandshake

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from hubbub.datastructures import HeadersLike
    from hubbub.testing.peer import Peer
    from hubbub.types import ASGIApp, Scope

__all__ = ("TestClient",)

_BASE: Final = URL("ws://testserver/")


class TestClient(Client):
    """Talks to an ASGI application as any number of peers, inside a test's own event loop.

        async with TestClient(app) as client, client.connect("/chat") as ws:
            await ws.send_text("hi")
            assert await ws.receive_text() == "hi"

    The lifespan runs for as long as the block. What the application raises comes out of the
    block of the connection that it raised on, as itself.

    Attributes:
        timeout: seconds that anything waited for may take, on connections made from now on.
    """

    __test__ = False  # pytest: this is no test

    def __init__(
        self,
        app: ASGIApp,
        *,
        server: str | Profile = "asgi",
        timeout: float | None = 5.0,
        raise_app_exceptions: bool = True,
    ) -> None:
        """Make a client of an application.

        Args:
            app: the ASGI application, made with any framework.
            server: the server to behave like: a name in ``PROFILES``, or a profile of your
                own. By default one that follows the specification.
            timeout: seconds that anything waited for may take; None for no limit.
            raise_app_exceptions: whether what the application raises comes out in the test;
                otherwise its peer sees what a server makes of it.

        Raises:
            ValueError: if there is no such profile.
        """
        if isinstance(server, str):
            if server not in PROFILES:
                raise ValueError(f"Expected a server of {sorted(PROFILES)}, got {server!r}")
            server = PROFILES[server]
        super().__init__(
            app, timeout=timeout, raises=raise_app_exceptions, lifespan=server.lifespan
        )
        self._profile = server

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
            ValueError: if the URL, a header or the capacity is not valid.
            WebSocketDisconnect: if it ends without an answer.
        """
        whole_url = _BASE.join(URL(url))
        link = Link(self._profile, capacity)
        scope = self._build_scope(whole_url, headers, subprotocols)
        server = Server(scope, link, self._profile)
        return self._converse(whole_url.path_qs, subprotocols, link, server.run)

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
