"""What an ASGI scope says about a connection, as values that are pleasant to use.

Address, Headers, QueryParams, State and URL, and how each is read from a scope (the
``*_from_scope`` functions). Multi-valued mappings are multidict's, URLs are yarl's. No
state of a connection lives here. Used by the WebSocket wrapper and by App.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, quote

from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy
from yarl import URL

if TYPE_CHECKING:
    from hubbub.types import Scope

__all__ = (
    "URL",
    "Address",
    "Headers",
    "HeadersLike",
    "QueryParams",
    "State",
    "client_from_scope",
    "encode_headers",
    "headers_from_scope",
    "join_repeated",
    "query_params_from_scope",
    "route_path_from_scope",
    "state_from_scope",
    "url_from_scope",
)

Headers: TypeAlias = CIMultiDictProxy[str]
"""Case-insensitive, read-only; ``getall(name)`` for headers that came more than once."""

QueryParams: TypeAlias = MultiDictProxy[str]
"""Read-only; ``getall(name)`` for parameters that came more than once."""

HeadersLike: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers to send: a mapping, or pairs where a name repeats (two ``Set-Cookie``)."""

_PATH_SAFE = "/:@!$&'()*+,;=~"  # RFC 3986 §3.3: what a path may hold as it is
_QUERY_SAFE = _PATH_SAFE + "?%"  # the query comes percent-encoded already
# RFC 3986 §3.2, without user names and whatever else no Host header needs.
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_FORBIDDEN_IN_VALUE = re.compile(r"[\r\n\0]")  # RFC 9110 §5.5: they would end the header


class Address(NamedTuple):
    """A peer's address; ``host`` is a path and ``port`` 0 for a UNIX socket."""

    host: str
    port: int


class State(MutableMapping[str, Any]):
    """A namespace for what an application attaches to a connection.

    Attributes and items are the same: ``state.user`` is ``state["user"]``. It is a view:
    changes are made in the mapping that it was made of.
    """

    __slots__ = ("_items",)
    _items: MutableMapping[str, Any]

    def __init__(self, items: MutableMapping[str, Any] | None = None) -> None:
        """Show ``items``, or a new dict."""
        object.__setattr__(self, "_items", {} if items is None else items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._items[name] = value

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._items[name]
        except KeyError:
            raise AttributeError(f"State has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._items[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self._items[name]
        except KeyError:
            raise AttributeError(f"State has no attribute {name!r}") from None

    def __repr__(self) -> str:
        return f"State({self._items!r})"


def headers_from_scope(scope: Scope) -> Headers:
    """Read the headers of a scope, names without regard to case, values as Latin-1."""
    return CIMultiDictProxy(
        CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope.get("headers") or ()
        )
    )


def query_params_from_scope(scope: Scope) -> QueryParams:
    """Read the query parameters of a scope; parameters without a value are kept."""
    query = (scope.get("query_string") or b"").decode("latin-1")
    return MultiDictProxy(MultiDict(parse_qsl(query, keep_blank_values=True)))


def client_from_scope(scope: Scope) -> Address | None:
    """Read the peer's address; None when the server does not know it.

    Some servers give ports as strings, and None for UNIX sockets: both become integers here.
    """
    client = scope.get("client")
    if not client:
        return None
    host, port = client[0], client[1]
    return Address(host or "", int(port or 0))


def state_from_scope(scope: Scope) -> State:
    """View the ``state`` of a scope, which is created if the server gave none."""
    if scope.get("state") is None:
        scope["state"] = {}
    return State(scope["state"])


def route_path_from_scope(scope: Scope) -> str:
    """Read the path below ``root_path``, by which an application routes.

    A framework that mounts an application, and a server told of a prefix, put the prefix
    both into ``root_path`` and in front of ``path``; some leave ``path`` bare.
    """
    path: str = scope.get("path") or "/"
    root: str = (scope.get("root_path") or "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def url_from_scope(scope: Scope) -> URL:
    """Build the URL that the peer asked for.

    The host is the server's address, else the ``Host`` header, else ``localhost``; a
    default port is left out; the path has ``root_path`` in front; the query is as received.
    """
    root: str = (scope.get("root_path") or "").rstrip("/")
    path = quote(root + route_path_from_scope(scope), safe=_PATH_SAFE)
    query = quote((scope.get("query_string") or b"").decode("latin-1"), safe=_QUERY_SAFE)
    origin = _origin_from_scope(scope)
    return URL(f"{origin}{path}?{query}" if query else f"{origin}{path}", encoded=True)


def _origin_from_scope(scope: Scope) -> str:
    scheme: str = scope.get("scheme") or "ws"
    host, port = scope.get("server") or (None, None)
    if host is not None and port is not None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    else:  # unknown to the server, or a UNIX socket
        authority = headers_from_scope(scope).get("host", "localhost")
    if _AUTHORITY.fullmatch(authority):  # a peer can put anything into its Host header
        with suppress(ValueError):  # a port above 65535, an invalid address
            return str(URL.build(scheme=scheme, authority=authority))
    return f"{scheme}://localhost"


def encode_headers(headers: HeadersLike) -> list[tuple[bytes, bytes]]:
    """Turn headers into the pairs of bytes that ASGI wants, names in lower case.

    Raises:
        ValueError: if a name is not a token (RFC 9110 §5.6.2) or begins with ``sec-websocket-``
            (those are the server's own), or if a value holds CR, LF, NUL or a character
            beyond Latin-1. None of them may reach the wire: they would inject headers.
    """
    pairs = CIMultiDict(headers).items()
    return [(_encode_name(name), _encode_value(name, value)) for name, value in pairs]


def join_repeated(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Join headers of the same name (RFC 9110 §5.3), except cookies (RFC 6265 §3)."""
    joined: dict[bytes, bytes] = {}
    cookies = [header for header in headers if header[0] == b"set-cookie"]
    for name, value in headers:
        if name != b"set-cookie":
            joined[name] = joined[name] + b", " + value if name in joined else value
    return [*joined.items(), *cookies]


def _encode_name(name: str) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"Expected a header name that is a token (RFC 9110), got {name!r}")
    if name.lower().startswith("sec-websocket-"):
        raise ValueError(f"Expected a header that is not the server's own, got {name!r}")
    return name.lower().encode("ascii")


def _encode_value(name: str, value: str) -> bytes:
    if _FORBIDDEN_IN_VALUE.search(value):
        raise ValueError(f"Expected header {name!r} without CR, LF and NUL, got {value!r}")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"Expected header {name!r} in Latin-1, got {value!r}") from None
