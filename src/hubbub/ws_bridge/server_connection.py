"""ServerConnection: one peer from its first byte to its last, and the application that serves it.

The opening, the call of the application, and the end of what it leaves unfinished; the messages
in between are connection's. Made by server, for each peer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import anyio

from hubbub.close_codes import ABNORMAL
from hubbub.exceptions import is_disconnect
from hubbub.prepared import OUTLET
from hubbub.wire.handshake import Refusal, UpgradeRequest
from hubbub.ws_bridge.channels import create_ws_receive, create_ws_send
from hubbub.ws_bridge.connection import Connection, Phase, is_over
from hubbub.ws_bridge.opening import Opening
from hubbub.ws_bridge.scope import build_ws_scope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubbub.types import ASGIApp, Scope
    from hubbub.ws_bridge.config import Config
    from hubbub.ws_bridge.transport import Transport
    from hubbub.ws_bridge.writer import Helper

__all__ = ("ServerConnection",)

_logger = logging.getLogger("hubbub.ws_bridge")

_GOING_AWAY: Final = 1001
_INTERNAL_ERROR: Final = 1011


class ServerConnection(Connection):
    """One peer of a server. To its application it is the responder, too.

    Attributes:
        request_line: the request's first line, without its query; None until it is known.
        status: the status of the answer; None until there is one.
    """

    __slots__ = ("_app", "_opening", "_scope", "request_line", "status")

    def __init__(self, app: ASGIApp, transport: Transport, config: Config, helper: Helper) -> None:
        super().__init__(transport, config, helper)
        self.request_line: str | None = None
        self.status: int | None = None
        self._app = app
        self._opening: Opening | None = Opening(config)
        self._scope = anyio.CancelScope()

    async def run(self, state: Mapping[str, Any] | None, *, full: bool = False) -> None:
        """Serve the peer from its first byte to its last.

        Args:
            state: the lifespan's.
            full: whether there are too many connections, so that it is refused with 503.
        """
        try:
            await self._read_request()
            if self.phase is Phase.ANSWER:
                if full:
                    self._refuse(Refusal(503, "Expected fewer connections"))
                else:
                    await self._call(state)
            await self.conclude()
        finally:
            if self.phase is Phase.OPEN:  # cancelled: the peer may as well know
                self._close(_GOING_AWAY, "")
            self.transport.close()

    # -- The opening ---------------------------------------------------------------------

    async def _read_request(self) -> None:
        self._take_in(self.transport.try_receive())  # often it is there already
        while self.phase is Phase.REQUEST:
            await self._read()
        self.reading = False

    def _open(self, data: bytes) -> None:
        """Feed the opening, and do what it decides."""
        assert self._opening is not None
        answer = self._opening.receive_data(data)
        self.request_line = self._opening.request_line
        if isinstance(answer, UpgradeRequest):
            self.phase = Phase.ANSWER
        elif answer is not None:
            self._refuse(answer)

    def _refuse(self, refusal: Refusal, code: int = ABNORMAL) -> None:
        assert self._opening is not None
        if self._opening.responding:  # half an answer cannot be taken back
            self.writer.finish(self.transport.finish)
        else:
            self.status = refusal.status
            self.writer.write(self._opening.refuse(refusal))
            self.writer.finish(self.transport.send_eof)
        self._end(code, "")

    async def _call(self, state: Mapping[str, Any] | None) -> None:
        """Call the application, and end what it leaves unfinished."""
        scope = self._build_scope(state)
        code = _INTERNAL_ERROR
        try:
            with self._scope:
                await self._app(
                    scope, create_ws_receive(self), create_ws_send(self, scope["subprotocols"])
                )
            if self.phase is Phase.ANSWER:
                _logger.error("The application returned without an answer to %s", scope["path"])
            code = 1000
        except Exception as error:  # the border to the application
            if not is_disconnect(error):
                _logger.exception("The application failed on %s", scope["path"])
        if self.phase is Phase.ANSWER:
            self._refuse(Refusal(500, "Internal server error"))
        elif self.phase is Phase.OPEN:
            self._close(code, "")

    def _build_scope(self, state: Mapping[str, Any] | None) -> Scope:
        assert self._opening is not None
        transport = self.transport
        return build_ws_scope(
            self._opening.request,
            client=transport.client,
            server=transport.server,
            secure=transport.secure,
            root_path=self._config.root_path,
            state=state,
            extensions={OUTLET: self},
        )

    async def accept(self, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the 101 (the responder's part)."""
        opening = self._require_opening()
        response, protocol = opening.accept(subprotocol, headers)
        self.writer.write(response)
        self._opening = None
        self.status = 101
        self._begin(protocol)

    async def start_response(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin a response of the application's own (the responder's part)."""
        self.writer.write(self._require_opening().start_response(status, headers))
        self.status = status

    async def send_body(self, data: bytes, *, more: bool) -> None:
        """Send a part of that response's body (the responder's part)."""
        if not self.writer.has_room:
            await self.writer.wait_room()
        self.writer.write(self._require_opening().send_body(data, more=more))
        if not more:
            self.writer.finish(self.transport.send_eof)
            self._end(ABNORMAL, "")

    def _require_opening(self) -> Opening:
        if self.phase is not Phase.ANSWER:
            raise self._disconnected()
        assert self._opening is not None
        return self._opening

    # -- What caretaker does about it ----------------------------------------------------

    def meet_deadline(self, elapsed: float) -> None:
        """Do what is due after so many seconds in this phase."""
        super().meet_deadline(elapsed)
        config = self._config
        if self.phase is Phase.CLOSING:
            if is_over(elapsed, config.grace_timeout):
                self._scope.cancel()
        elif is_over(elapsed, config.handshake_timeout):
            self._expire()

    def _expire(self) -> None:
        """Refuse: the opening took too long."""
        if self.phase is Phase.REQUEST:
            self._refuse(Refusal(408, "Expected the request sooner"))
        else:
            self._refuse(Refusal(503, "The application did not answer in time"))

    def shut_down(self, code: int, reason: str) -> None:
        """Begin to close, whatever the application is doing."""
        if self.phase is Phase.REQUEST:
            self.transport.close()
        elif self.phase is Phase.ANSWER:
            self._refuse(Refusal(503, "The server is shutting down"), code)
        else:
            super().shut_down(code, reason)
