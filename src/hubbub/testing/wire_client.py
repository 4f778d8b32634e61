"""WireClient: an ASGI application behind hubbub's own server, reached by bytes.

Between the peer and the application are the real client and the real server, frames and all,
over a stream in memory that may have faults. Called by tests.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
from yarl import URL

from hubbub._tasks import create_task_group
from hubbub.client import connect
from hubbub.close_codes import ABNORMAL
from hubbub.exceptions import HandshakeError, WebSocketDisconnect
from hubbub.testing.conversing import Client
from hubbub.testing.link import Answer, Link
from hubbub.testing.profiles import PROFILES
from hubbub.testing.streams import FaultyStream, MemoryStream, memory_streams
from hubbub.ws_bridge import Config, serve_connection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from hubbub.client import ClientWebSocket
    from hubbub.datastructures import HeadersLike
    from hubbub.testing.peer import Peer
    from hubbub.types import ASGIApp

__all__ = ("WireClient",)

_BASE: Final = URL("ws://testserver/")
_DEFAULTS: Final = Config()


class WireClient(Client):
    """Talks to an ASGI application through the whole of hubbub's server, in memory.

        async with WireClient(app) as client, client.connect("/chat", split=1) as ws:
            await ws.send_text("hi")
            assert await ws.receive_text() == "hi"

    Everything else is as with ``TestClient``.
    """

    __test__ = False  # pytest: this is no test

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: Config = _DEFAULTS,
        timeout: float | None = 5.0,
        raise_app_exceptions: bool = True,
    ) -> None:
        """Make a client of an application.

        Args:
            app: the ASGI application, made with any framework.
            config: limits and choices of the server.
            timeout: seconds that anything waited for may take; None for no limit.
            raise_app_exceptions: whether what the application raises comes out in the test;
                otherwise its peer sees what the server makes of it.
        """
        super().__init__(app, timeout=timeout, raises=raise_app_exceptions)
        self._config = config

    def connect(
        self,
        url: str,
        *,
        headers: HeadersLike = (),
        subprotocols: Sequence[str] = (),
        capacity: int = 64 * 1024,
        split: int | None = None,
        delay: float = 0,
        cut_after: int | None = None,
    ) -> AbstractAsyncContextManager[Peer]:
        """Connect a peer; at the end of the block it closes, and the application returns.

        Args:
            url: a path with its query, or a whole URL.
            headers: headers of the request, as a mapping or as pairs.
            subprotocols: what the peer offers, in its order of preference.
            capacity: how many bytes may be on their way, in each direction, before whoever
                sends has to wait.
            split: how many bytes pass at once; for this and the next two see ``FaultyStream``.
            delay: seconds before each such piece passes.
            cut_after: how many bytes the peer receives before the connection breaks.

        Raises:
            Rejected: if the application, or the server, refuses.
            TimeoutError: if there is no answer in time, or no return at the end.
            ValueError: if the URL, a header or a fault is not valid.
            WebSocketDisconnect: if it ends without an answer.
        """
        whole_url = _BASE.join(URL(url))
        ours, theirs = memory_streams(capacity)
        faulty = FaultyStream(ours, split=split, delay=delay, cut_after=cut_after)
        link = Link(PROFILES["asgi"], 1, faulty.pace)
        opening = connect(
            whole_url,
            headers=headers,
            subprotocols=subprotocols,
            proxy=False,
            open_timeout=None,
            ping_interval=None,
            stream=faulty,
        )

        async def serve(app: ASGIApp) -> None:
            async with create_task_group() as tasks:
                tasks.start_soon(
                    partial(serve_connection, app, theirs, self._config, state=self._state)
                )
                await _converse(opening, link, ours)

        return self._converse(whole_url.path_qs, subprotocols, link, serve)


async def _converse(opening: connect, link: Link, stream: MemoryStream) -> None:
    """Carry messages between a peer's link and its WebSocket, until both have ended."""
    try:
        async with opening as ws, create_task_group() as tasks:
            headers = [
                (name.encode(), value.encode("latin-1")) for name, value in ws.headers.items()
            ]
            link.open(Answer(101, headers, ws.accepted_subprotocol))
            tasks.start_soon(_hear, ws, link)
            await _talk(ws, link)
            await link.ended.wait()
            await _leave(ws, link, stream)
            tasks.cancel_scope.cancel()
    except HandshakeError as refusal:
        if refusal.status is not None:
            link.open(Answer(refusal.status, refusal.headers, body=refusal.body))
        link.end(ABNORMAL, "", "application")


async def _hear(ws: ClientWebSocket, link: Link) -> None:
    async for message in ws.iter_messages():
        await link.outgoing.put(message)
    link.end(ws.close_code, ws.close_reason or "", "application")


async def _talk(ws: ClientWebSocket, link: Link) -> None:
    with suppress(anyio.EndOfStream, WebSocketDisconnect):
        while True:
            await ws.send(await link.incoming.take())


async def _leave(ws: ClientWebSocket, link: Link, stream: MemoryStream) -> None:
    ending = link.ending
    assert ending is not None
    if ending.by == "application":
        return
    if link.aborted:
        stream.abort()
    elif ending.code == ABNORMAL:
        await stream.send_eof()
    else:
        await ws.close(1000 if ending.code is None else ending.code, ending.reason)
