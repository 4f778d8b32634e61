"""The ASGI connection scope of a WebSocket request (ASGI 3.0, WebSocket spec version 2.5).

Only what a request and its socket say becomes a scope here; no request is judged. Called by
server_connection, once the request is found valid.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubbub.types import Scope
    from hubbub.wire.handshake import UpgradeRequest

__all__ = ("Endpoint", "build_ws_scope", "endpoint")

Endpoint = tuple[str, int | None] | None
"""An address as ASGI has it; the port is None for the path of a UNIX socket."""


def build_ws_scope(
    request: UpgradeRequest,
    *,
    client: Endpoint = None,
    server: Endpoint = None,
    secure: bool = False,
    root_path: str = "",
    state: Mapping[str, Any] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> Scope:
    """Build the scope that an application is called with.

    Args:
        request: the valid request.
        client: the peer's address.
        server: our own address.
        secure: whether the stream itself is TLS.
        root_path: the prefix that the application is mounted at; the request's path includes it.
        state: the lifespan's; the connection gets a shallow copy. None when the application
            has no lifespan.
        extensions: those besides the denial response, which is always there.
    """
    raw_path, _, query = request.target.partition(b"?")
    scope: Scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "wss" if secure else "ws",
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": request.headers,
        "client": client,
        "server": server,
        "subprotocols": list(request.subprotocols),
        "extensions": {"websocket.http.response": {}, **(extensions or {})},
    }
    if state is not None:
        scope["state"] = dict(state)
    return scope


def endpoint(address: object) -> Endpoint:
    """Read what a socket says about one of its ends.

    Args:
        address: ``(host, port)`` for IPv4, with two more items for IPv6, a path for a UNIX
            socket (in bytes for an abstract one, empty for a client's), or None.
    """
    if isinstance(address, tuple):
        host, port = address[:2]
        return _unmap(host.partition("%")[0]), port
    if isinstance(address, bytes):
        address = address.decode("utf-8", "replace")
    return (address, None) if isinstance(address, str) and address else None


def _unmap(host: str) -> str:
    """Turn an IPv4-mapped IPv6 address into the IPv4 address (RFC 4291 §2.5.5.2)."""
    if not host.startswith("::ffff:"):
        return host
    mapped = IPv6Address(host).ipv4_mapped
    return host if mapped is None else str(mapped)
