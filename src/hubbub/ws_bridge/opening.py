"""Opening: one connection's handshake, judged by the server's configuration.

From the request's bytes to the first frame; no I/O lives here, and no grammar of the handshake:
that is wire's. Used by server_connection, and dropped once the answer is out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubbub.wire.deflate import negotiate
from hubbub.wire.frames import Role
from hubbub.wire.handshake import Refusal, ServerHandshake, UpgradeRequest
from hubbub.wire.headers import field_values
from hubbub.wire.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubbub.ws_bridge.config import Config

__all__ = ("Opening",)


class Opening:
    """The handshake of one connection.

    Attributes:
        responding: whether a response of the application's own has begun.
    """

    __slots__ = ("_config", "_early", "_handshake", "_request", "responding")

    def __init__(self, config: Config) -> None:
        self.responding = False
        self._config = config
        self._handshake = ServerHandshake(
            max_size=config.max_handshake_size, server=config.server_header
        )
        self._request: UpgradeRequest | None = None  # once it is whole
        self._early = 0

    @property
    def request(self) -> UpgradeRequest:
        """The request, once it is whole and found valid."""
        assert self._request is not None
        return self._request

    @property
    def request_line(self) -> str | None:
        """The request's first line, once its head is received and is HTTP.

        Its query is left out: that is where browsers have to put a WebSocket's credentials.
        """
        request = self._handshake.request
        if request is None:
            return None
        path = request.target.partition(b"?")[0]
        return b" ".join((request.method, path, b"HTTP/" + request.http_version)).decode("ascii")

    def receive_data(self, data: bytes) -> UpgradeRequest | Refusal | None:
        """Take bytes that were received.

        Returns:
            The request, or what to refuse it with; None while it is not whole. What follows it
            is kept for the protocol, up to ``max_handshake_size``.
        """
        if self._request is not None:
            # A client has to wait for the answer before it sends (RFC 6455 §4.1).
            self._early += len(data)
            if self._early > self._config.max_handshake_size:
                return Refusal(400, "Expected no frames before the answer")
        request = self._handshake.receive_data(data)
        if isinstance(request, UpgradeRequest):
            self._request = request
            return self._judge_origin(request) or request
        return request

    def _judge_origin(self, request: UpgradeRequest) -> Refusal | None:
        """Keep other sites' pages out: browsers say which one is asking (RFC 6455 §10.2)."""
        if self._config.origins is None:
            return None
        origins = field_values(request.headers, b"origin")
        if len(origins) < 2 and (origins[0] if origins else None) in self._config.origins:
            return None
        return Refusal(403, "Expected another Origin")

    def accept(
        self, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]]
    ) -> tuple[bytes, Protocol]:
        """Build the response 101, and the protocol that begins after it.

        Raises:
            ValueError: if a header may not stand in the response.
        """
        config = self._config
        deflate = negotiate(self.request.extensions) if config.deflate else None
        response = self._handshake.accept(
            self.request,
            subprotocol=subprotocol,
            deflate=deflate,
            headers=headers,
        )
        protocol = Protocol(Role.SERVER, max_message_size=config.max_message_size, deflate=deflate)
        protocol.receive_data(self._handshake.trailing_data)
        return response, protocol

    def refuse(self, refusal: Refusal) -> bytes:
        """Build a whole response that refuses the request, or what was sent instead of one."""
        return self._handshake.refuse(refusal)

    def start_response(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Build the head of the application's own response.

        Raises:
            ValueError: if a header may not stand in the response.
        """
        head = self._handshake.start_response(status, headers)
        self.responding = True
        return head

    def send_body(self, data: bytes, *, more: bool) -> bytes:
        """Build a part of the application's own response.

        Raises:
            RuntimeError: if it is not of the length that the headers say.
        """
        return self._handshake.send_body(data, more=more)
