"""Target: where a URL leads, and what of it goes into the request (RFC 6455 §3, §4.1).

Nothing is looked up or connected here. Used by connect, and by dialing and proxy, which go
there.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from yarl import URL

__all__ = ("Target", "follow_redirect", "parse_target")

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_UNIX: Final = "ws+unix"


@dataclass(frozen=True, slots=True)
class Target:
    """One place to connect to.

    Attributes:
        url: what was asked for, without user and password.
        secure: whether TLS is spoken there.
        host: a name or an address; the name that a certificate has to be for.
        port: the port.
        path: of the UNIX socket, instead of host and port.
        authority: the value of ``Host``.
        resource: path and query, percent-encoded.
        authorization: the value of ``Authorization``, made of user and password.
    """

    url: URL
    secure: bool
    host: str
    port: int
    path: str | None
    authority: str
    resource: str
    authorization: str | None = None

    @property
    def origin(self) -> tuple[bool, str, int, str | None]:
        """What two targets share when they are one server: no other one gets its secrets."""
        return self.secure, self.host, self.port, self.path


def parse_target(url: str | URL) -> Target:
    """Read a URL: ``ws://``, ``wss://``, or ``ws+unix:///path/of.sock:/path/of/resource``.

    Raises:
        ValueError: if it is none of them.
    """
    url = URL(url)
    if url.fragment:  # RFC 6455 §3
        raise ValueError(f"Expected a URL without a fragment, got {url}")
    if url.scheme == _UNIX:
        return _parse_unix(url)
    if url.scheme not in ("ws", "wss") or not url.raw_host or url.port is None:
        raise ValueError(f"Expected ws://host/path, wss:// or ws+unix://, got {url}")
    bare = url.with_user(None)
    return Target(
        url=bare,
        secure=url.scheme == "wss",
        host=url.raw_host,
        port=url.port,
        path=None,
        authority=url.host_port_subcomponent or "",
        resource=url.raw_path_qs,
        authorization=_basic(url.user, url.password or "") if url.user else None,
    )


def _parse_unix(url: URL) -> Target:
    path, _, resource = url.raw_path.partition(":")
    if url.raw_host or not path.startswith("/"):
        raise ValueError(f"Expected ws+unix:///path/of.sock:/path, got {url}")
    query = f"?{url.raw_query_string}" if url.raw_query_string else ""
    return Target(
        url=url,
        secure=False,
        host="localhost",
        port=80,
        path=unquote(path),
        authority="localhost",
        resource=(resource or "/") + query,
    )


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def follow_redirect(target: Target, location: str) -> Target:
    """Read where a response of ``target`` sends us.

    Raises:
        ValueError: if no WebSocket may be opened there: another scheme, no TLS after TLS, a
            server elsewhere after a UNIX socket.
    """
    base = URL(f"ws://{target.authority}{target.resource}", encoded=True)
    url = (base if target.path else target.url).join(URL(location)).with_fragment(None)
    scheme = _SCHEMES.get(url.scheme)
    if scheme is None or (target.secure and scheme == "ws"):
        raise ValueError(f"Expected a redirect to {target.url.scheme}://, got {location!r}")
    if target.path is None:
        return parse_target(url.with_scheme(scheme))
    if url.authority != base.authority:
        raise ValueError(f"Expected a redirect within {target.path}, got {location!r}")
    return parse_target(f"{_UNIX}://{quote(target.path)}:{url.raw_path_qs}")
