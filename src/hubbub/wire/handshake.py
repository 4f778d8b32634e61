"""The server's side of the opening handshake, over h11 (RFC 6455 §4.2, RFC 9112).

No frame lives here, and no decision on who may connect: that is the application's. Used by the
server's opening, which feeds bytes until there is a request to accept or to refuse.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

import h11

from hubbub.wire.headers import (
    Extension,
    Headers,
    accept_key,
    group_fields,
    parse_extensions,
    parse_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hubbub.wire.deflate import PerMessageDeflate

__all__ = (
    "DEFAULT_MAX_HANDSHAKE_SIZE",
    "Refusal",
    "ServerHandshake",
    "UpgradeRequest",
    "asks_for_websocket",
)

DEFAULT_MAX_HANDSHAKE_SIZE: Final = 64 * 1024
DEFAULT_MAX_HEADERS: Final = 128

# A server must tell what it wants instead (RFC 9110 §15.5.22, RFC 6455 §4.4).
_UPGRADE_WANTED = ((b"upgrade", b"websocket"),)
_VERSION_WANTED = (*_UPGRADE_WANTED, (b"sec-websocket-version", b"13"))

# Not built by h11, which would judge these lines again for each peer: that took an eighth of an
# opening (measured).
_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"

# What the handshake sets itself, or what a 101 must not have (RFC 9110 §8.6, RFC 9112 §6.1).
_RESERVED = frozenset(
    {
        b"connection",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"transfer-encoding",
        b"upgrade",
    }
)

_STATUSES = frozenset(HTTPStatus)

# One object for all peers that send the name: a browser's names would take half a kilobyte for as
# long as its connection lasts.
_NAMES: Final = {
    name: name
    for name in (
        b"accept accept-encoding accept-language authorization cache-control connection cookie host"
        b" origin pragma sec-fetch-dest sec-fetch-mode sec-fetch-site sec-websocket-extensions"
        b" sec-websocket-key sec-websocket-protocol sec-websocket-version upgrade user-agent"
        b" x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip"
    ).split()
}

_host = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+;=:\[\]]*")  # uri-host [":" port] (RFC 9110 §7.2)
# origin-form or absolute-form, without a fragment (RFC 9112 §3.2, RFC 6455 §3)
_target = re.compile(rb"(?:(?:https?|wss?)://[^/?#]+)?(/[^#]*)", re.IGNORECASE)


class UpgradeRequest(NamedTuple):
    """A client's valid request for a WebSocket.

    Attributes:
        target: path and query as they were received, without an authority before them.
        headers: names (in lower case) and values in the order of the wire.
        key: Sec-WebSocket-Key.
        subprotocols: what the client offers, in its order of preference.
        extensions: what the client offers, in its order of preference.
    """

    target: bytes
    headers: Headers
    key: bytes
    subprotocols: Sequence[str]
    extensions: Sequence[Extension]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What to answer to a request that is no valid request for a WebSocket.

    Attributes:
        status: the status code.
        reason: one line for the body, so that the other side can find its fault.
        headers: those that the status demands.
    """

    status: int
    reason: str
    headers: Headers = ()


def asks_for_websocket(fields: Mapping[bytes, Sequence[str]]) -> bool:
    """Tell whether a request is meant to become a WebSocket, valid or not (RFC 9110 §7.8)."""
    return _has_token(fields.get(b"upgrade", ()), "websocket") and _has_token(
        fields.get(b"connection", ()), "upgrade"
    )


class ServerHandshake:
    """One connection's HTTP, until it is a WebSocket or closed.

    Args:
        max_size: the limit for a request's head, in bytes.
        max_headers: the limit for the number of its fields.
        server: the field Server of responses that have none of their own; None for none.

    Attributes:
        http: the HTTP/1.1 connection. A server that serves pages on the same port goes on
            with it when ``asks_for_websocket`` of its fields is false.
        request: the request, once its head is received.
    """

    def __init__(
        self,
        *,
        max_size: int = DEFAULT_MAX_HANDSHAKE_SIZE,
        max_headers: int = DEFAULT_MAX_HEADERS,
        server: str | None = None,
    ) -> None:
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=max_size)
        self.request: h11.Request | None = None
        self._max_size = max_size
        self._max_headers = max_headers
        self._server = server
        self._received = 0
        self._answered = False

    @property
    def trailing_data(self) -> bytes:
        """What followed the request: the first bytes for the protocol."""
        return self.http.trailing_data[0]

    def receive_data(self, data: bytes) -> UpgradeRequest | Refusal | None:
        """Take received bytes; empty when there will be no more.

        Returns:
            The request, or what to refuse it with; None while its head is not whole (at the
            end, there is nobody to answer), and after it has been returned: what is received
            then is kept as ``trailing_data``.
        """
        self.http.receive_data(data)
        if self.request is not None:
            return None
        self._received += len(data)
        try:
            event = self.http.next_event()
        except h11.RemoteProtocolError as error:
            return _refuse_malformed(error)
        if not isinstance(event, h11.Request):
            return None
        self.request = event
        size = self._received - len(self.trailing_data)
        if size > self._max_size or len(event.headers) > self._max_headers:
            return Refusal(
                431,
                f"Expected a head of at most {self._max_size} bytes and {self._max_headers} fields",
            )
        return _check_request(event)  # one without a body: what follows is not HTTP

    def accept(
        self,
        request: UpgradeRequest,
        *,
        subprotocol: str | None = None,
        deflate: PerMessageDeflate | None = None,
        headers: Headers = (),
    ) -> bytes:
        """Build the response 101 (RFC 6455 §4.2.2). The protocol begins after it.

        Args:
            request: what ``receive_data`` returned.
            subprotocol: one of those that the client offered, or None.
            deflate: what was negotiated from the client's offers, or None.
            headers: more fields for the response.

        Raises:
            RuntimeError: if the request has been answered.
            ValueError: if the subprotocol was not offered, or if a field is malformed or
                among those that the handshake sets.
        """
        self._require_unanswered()
        fields = [(b"sec-websocket-accept", accept_key(request.key))]
        if subprotocol is not None:
            if subprotocol not in request.subprotocols:
                raise ValueError(
                    f"Expected a subprotocol of {list(request.subprotocols)}, got {subprotocol!r}"
                )
            fields.append((b"sec-websocket-protocol", subprotocol.encode()))
        if deflate is not None:
            fields.append((b"sec-websocket-extensions", str(deflate.extension()).encode()))
        if headers:
            _check_fields(headers)
        self._answered = True
        fields += self._with_server(headers)
        return _SWITCHING + b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n"

    def refuse(self, refusal: Refusal) -> bytes:
        """Build the whole response that refuses a request; the connection is closed after it."""
        body = f"{refusal.reason}\n".encode()
        headers = (
            *refusal.headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        )
        return self.start_response(refusal.status, headers) + self.send_body(body, more=False)

    def start_response(self, status: int, headers: Headers) -> bytes:
        """Build the head of a response other than 101; the connection is closed after it.

        Raises:
            ValueError: if status or headers may not stand in a response.
        """
        self._require_unanswered()
        phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
        fields = [
            field for field in self._with_server(headers) if field[0].lower() != b"connection"
        ]
        upgrades = any(name.lower() == b"upgrade" for name, _ in fields)
        fields.append((b"connection", b"upgrade, close" if upgrades else b"close"))
        try:
            response = h11.Response(status_code=status, headers=fields, reason=phrase.encode())
        except h11.LocalProtocolError as error:
            raise ValueError(f"Expected a valid status and header fields: {error}") from error
        self._answered = True
        return self._send(response)

    def send_body(self, data: bytes, *, more: bool) -> bytes:
        """Build a part of a response's body, and its end when there is no more.

        Raises:
            RuntimeError: if no response has begun, or one with a body of another length.
        """
        if self.request is not None and self.request.method == b"HEAD":
            data = b""
        sent = self._send(h11.Data(data=data))
        return sent if more else sent + self._send(h11.EndOfMessage())

    def _require_unanswered(self) -> None:
        if self._answered:
            raise RuntimeError("Expected a request that has not been answered")

    def _with_server(self, headers: Headers) -> Headers:
        if self._server is None or any(name.lower() == b"server" for name, _ in headers):
            return headers
        return [*headers, (b"server", self._server.encode())]

    def _send(self, event: h11.Event) -> bytes:
        try:
            return self.http.send(event) or b""
        except h11.LocalProtocolError as error:
            raise RuntimeError(f"Expected another order of responses: {error}") from error


def _refuse_malformed(error: h11.RemoteProtocolError) -> Refusal:
    # Of the statuses that h11 suggests, only this one is kept: 501 (an unknown
    # Transfer-Encoding) is as malformed as any other body with a handshake.
    status = 431 if error.error_status_hint == 431 else 400
    return Refusal(status, f"Malformed request: {error}"[:200])


def _check_request(request: h11.Request) -> UpgradeRequest | Refusal:
    """Judge a request of valid HTTP, as h11 has found; so it has one Host (RFC 9112 §3.2)."""
    headers = [(_NAMES.get(name, name), value) for name, value in request.headers]
    fields = group_fields(headers)
    if not asks_for_websocket(fields):
        return Refusal(
            426, "Expected Upgrade: websocket and Connection: upgrade", headers=_UPGRADE_WANTED
        )
    if request.http_version != b"1.1":
        return Refusal(400, "Expected HTTP/1.1 for a WebSocket handshake")
    if request.method != b"GET":  # RFC 6455 §4.1
        return Refusal(405, "Expected the method GET", headers=((b"allow", b"GET"),))
    if b"transfer-encoding" in fields or fields.get(b"content-length", ["0"]) != ["0"]:
        # What follows could be read as body by one side and as frames by the other.
        return Refusal(400, "Expected a WebSocket handshake without a body")
    target = _target.fullmatch(request.target)
    if target is None:
        return Refusal(400, "Expected a path as request target")
    if not _host.fullmatch(fields[b"host"][0]):
        return Refusal(400, "Expected a host, perhaps with a port, as Host")
    if fields.get(b"sec-websocket-version") != ["13"]:
        return Refusal(426, "Expected Sec-WebSocket-Version: 13", headers=_VERSION_WANTED)
    keys = fields.get(b"sec-websocket-key", ())
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal(400, "Expected one Sec-WebSocket-Key of 16 bytes in base64")
    try:
        subprotocols = parse_tokens(fields.get(b"sec-websocket-protocol", ()))
        extensions = parse_extensions(fields.get(b"sec-websocket-extensions", ()))
    except ValueError as error:
        return Refusal(400, str(error)[:200])
    return UpgradeRequest(target[1], headers, keys[0].encode(), subprotocols, extensions)


def _check_fields(headers: Headers) -> None:
    """Judge what an application adds to a response 101."""
    for name, _ in headers:
        if name.lower() in _RESERVED:
            raise ValueError(f"Expected a field that the handshake does not set, got {name!r}")
    try:
        h11.InformationalResponse(status_code=101, headers=list(headers))
    except h11.LocalProtocolError as error:
        raise ValueError(f"Expected valid header fields: {error}") from error


def _is_key(key: str) -> bool:
    try:
        return len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except ValueError:
        return False


def _has_token(values: Iterable[str], token: str) -> bool:
    try:
        return token in map(str.lower, parse_tokens(values))
    except ValueError:
        return False
