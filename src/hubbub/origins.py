"""OriginCheck: keeps pages of other sites from connecting in their visitors' names.

Browsers let any page open a WebSocket to any host, cookies included, and say in ``Origin``
whose page it is (RFC 6455 §10.2). Nothing else lives here. Called for a connection that is not
accepted yet: by App, or as a router's ``on_connect`` hook.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Collection

    from hubbub.websocket import WebSocket

__all__ = ("SAME_HOST", "OriginCheck", "Origins")

_logger = logging.getLogger("hubbub")

SAME_HOST: Final = "same-host"

Origins: TypeAlias = "Collection[str] | Literal['same-host']"
"""Whose pages may connect: a list of origins, or those of the host that they connect to."""


class OriginCheck:
    """A hook that rejects connections of other sites' pages with 403.

    A connection that names no origin is let in: a browser always names one.
    """

    def __init__(self, origins: Origins = SAME_HOST) -> None:
        """Make a check.

        Args:
            origins: scheme, host and port (unless it is the scheme's default), as browsers write
                them: ``["https://example.org"]``. Or ``SAME_HOST``: those whose host and port
                are in the ``Host`` header; behind a proxy that changes it, none are.

        Raises:
            TypeError: if it is a single string.
            ValueError: if one of the list is not as browsers write it, so that it never matches.
        """
        if isinstance(origins, str):
            if origins != SAME_HOST:
                raise TypeError(f"Expected a list of origins, or {SAME_HOST!r}; got {origins!r}")
        else:
            for origin in origins:
                _check_origin(origin)
        self._origins = origins

    async def __call__(self, ws: WebSocket) -> None:
        """Reject the connection, or do nothing."""
        origins = _header(ws, b"origin")
        if not origins or (len(origins) == 1 and self._allows(origins[0], ws)):
            return
        _logger.warning(
            "A page of %s may not connect to %s: see App(origins=...)",
            ", ".join(map(repr, origins)),
            ws.path,
        )
        await ws.reject(403, {"content-type": "text/plain"}, b"Expected another Origin")

    def _allows(self, origin: str, ws: WebSocket) -> bool:
        if self._origins != SAME_HOST:
            return origin in self._origins
        try:
            page = URL(origin)
            [host] = _header(ws, b"host")
            here = URL(f"{page.scheme}://{host}")
        except ValueError:
            return False
        return bool(page.host) and (page.host, page.port) == (here.host, here.port)


def _check_origin(origin: str) -> None:
    if origin == "null":  # that of a file, or of a sandbox
        return
    try:
        written = str(URL(origin.replace("*", "www")).origin())
    except ValueError:
        written = "https://example.org"
    if origin != written:
        raise ValueError(
            f"Expected an origin as browsers write it, such as {written}, got {origin!r}; "
            "origins=None is for everybody's pages"
        )


def _header(ws: WebSocket, name: bytes) -> list[str]:
    """Read headers without ``ws.headers``, a kilobyte that would last as long as the connection."""
    return [value.decode("latin-1") for key, value in ws.scope["headers"] if key == name]
