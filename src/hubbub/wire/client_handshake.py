"""The client's side of the opening handshake, over h11 (RFC 6455 §4.1).

No URL, no redirect and no proxy lives here. Used by the client, which feeds bytes until the
server has opened the WebSocket or said why not.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import h11

from hubbub.exceptions import HandshakeError
from hubbub.wire.deflate import OFFER, PerMessageDeflate, check_answer
from hubbub.wire.headers import (
    Headers,
    accept_key,
    field_values,
    parse_extensions,
    parse_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("ClientHandshake", "UpgradeResponse")

_MAX_SIZE: Final = 64 * 1024  # bytes of the response's head, and of its body as far as it is kept
_MAX_HEADERS: Final = 128


@dataclass(frozen=True, slots=True)
class UpgradeResponse:
    """A server's valid answer: the WebSocket is open.

    Attributes:
        headers: names (in lower case) and values in the order of the wire.
        subprotocol: the one that the server chose, or None.
        deflate: what was agreed on, or None.
        trailing_data: the first bytes for the protocol.
    """

    headers: Headers
    subprotocol: str | None
    deflate: PerMessageDeflate | None
    trailing_data: bytes


class ClientHandshake:
    """One connection's HTTP, until it is a WebSocket or closed.

    Args:
        host: the value of Host: a name or an address, with the port unless it is the default.
        target: path and query, percent-encoded.
        subprotocols: what to offer, in order of preference.
        deflate: whether to offer permessage-deflate.
        headers: more fields for the request.
    """

    def __init__(
        self,
        host: str,
        target: str,
        *,
        subprotocols: Sequence[str] = (),
        deflate: bool = True,
        headers: Headers = (),
    ) -> None:
        self._host = host
        self._target = target
        self._subprotocols = parse_tokens(subprotocols)
        self._deflate = deflate
        self._headers = headers
        self._key = base64.b64encode(os.urandom(16))
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_SIZE)
        self._response: h11.Response | None = None  # one that is not 101, while its body arrives
        self._body = b""

    def request(self) -> bytes:
        """Build the request.

        Raises:
            ValueError: if host, target or a field may not stand in a request.
        """
        headers = [
            (b"host", self._host.encode()),
            (b"upgrade", b"websocket"),
            (b"connection", b"upgrade"),
            (b"sec-websocket-key", self._key),
            (b"sec-websocket-version", b"13"),
        ]
        if self._subprotocols:
            headers.append((b"sec-websocket-protocol", ", ".join(self._subprotocols).encode()))
        if self._deflate:
            headers.append((b"sec-websocket-extensions", str(OFFER).encode()))
        try:
            request = h11.Request(
                method="GET", target=self._target, headers=[*headers, *self._headers]
            )
        except h11.LocalProtocolError as error:
            raise ValueError(f"Expected a valid target and header fields: {error}") from error
        return (self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")

    def receive_data(self, data: bytes) -> UpgradeResponse | None:
        """Take received bytes; empty when there will be no more.

        Returns:
            The response; None while it is not whole.

        Raises:
            HandshakeError: if the server did not open the WebSocket, or not correctly.
        """
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        return self._check_response(event)
                elif isinstance(event, h11.Response):
                    self._response = event
                elif isinstance(event, h11.Data):
                    self._body += bytes(event.data)
                    if len(self._body) > _MAX_SIZE:
                        raise self.refusal()
                else:
                    raise self.refusal()
        except h11.RemoteProtocolError as error:
            why = str(error) if data else "the server closed the connection"
            raise self.refusal(why) from error

    @property
    def is_refused(self) -> bool:
        """Whether the answer is not 101; its body may still be coming."""
        return self._response is not None

    def refusal(self, why: str = "") -> HandshakeError:
        """Make an error of what was received of a refusal so far."""
        response = self._response
        if response is None:
            return HandshakeError(f"Expected an HTTP response: {why}")
        return HandshakeError(
            f"Expected status 101, got {response.status_code}",
            status=response.status_code,
            headers=list(response.headers),
            body=self._body[:_MAX_SIZE],
        )

    def _check_response(self, response: h11.InformationalResponse) -> UpgradeResponse:
        headers = list(response.headers)
        try:
            return self._read_response(headers, response.http_version)
        except ValueError as error:
            raise HandshakeError(
                f"Expected a valid response 101: {error}", status=101, headers=headers
            ) from error

    def _read_response(self, headers: Headers, http_version: bytes) -> UpgradeResponse:
        """Check what RFC 6455 §4.1 has a client check, in its order."""
        if http_version < b"1.1":
            raise ValueError(f"Expected HTTP/1.1, got {http_version.decode()}")
        if len(headers) > _MAX_HEADERS:
            raise ValueError(f"Expected at most {_MAX_HEADERS} header fields, got {len(headers)}")
        upgrade = field_values(headers, b"upgrade")
        if [value.lower() for value in upgrade] != ["websocket"]:
            raise ValueError(f"Expected Upgrade: websocket, got {upgrade}")
        connection = parse_tokens(field_values(headers, b"connection"))
        if "upgrade" not in (token.lower() for token in connection):
            raise ValueError(f"Expected Connection: upgrade, got {connection}")
        accept = field_values(headers, b"sec-websocket-accept")
        if accept != [accept_key(self._key).decode()]:
            raise ValueError(f"Expected Sec-WebSocket-Accept to match the key, got {accept}")
        extensions = parse_extensions(field_values(headers, b"sec-websocket-extensions"))
        if extensions and not self._deflate:
            raise ValueError(f"Expected no extension, got {extensions[0].name}")
        deflate = check_answer(extensions)
        chosen = field_values(headers, b"sec-websocket-protocol")
        if len(chosen) > 1 or not set(chosen) <= set(self._subprotocols):
            raise ValueError(f"Expected a subprotocol of {self._subprotocols}, got {chosen}")
        subprotocol = chosen[0] if chosen else None
        return UpgradeResponse(headers, subprotocol, deflate, self._http.trailing_data[0])
