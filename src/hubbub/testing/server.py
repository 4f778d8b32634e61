"""Server: calls an application for one peer, as the server of a profile does.

It makes the scope, and the ``receive`` and ``send`` of hubbub's own server over a link; what
another server does differently is done here and in link, and nowhere else. Used by client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

from hubbub.close_codes import ABNORMAL, NO_STATUS
from hubbub.exceptions import ClientDisconnected
from hubbub.wire.handshake import Refusal, ServerHandshake
from hubbub.ws_bridge import build_ws_scope, create_ws_receive, create_ws_send

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubbub.testing.link import Link
    from hubbub.testing.profiles import Profile
    from hubbub.types import ASGIApp, Message, Scope

__all__ = ("CLIENT", "SERVER", "Server", "build_scope")

CLIENT: Final = ("127.0.0.1", 50_000)
SERVER: Final = ("127.0.0.1", 8000)


def build_scope(
    request: bytes,
    profile: Profile,
    *,
    secure: bool,
    state: Mapping[str, Any] | None,
) -> Scope:
    """Build the scope of a peer's request, as the server of a profile does.

    Raises:
        ValueError: if the request is not one that a server would pass on.
    """
    parsed = ServerHandshake().receive_data(request)
    if parsed is None or isinstance(parsed, Refusal):
        raise ValueError(f"Expected a request for a WebSocket, got {parsed}")
    scope = build_ws_scope(parsed, client=CLIENT, server=SERVER, secure=secure, state=state)
    scope["asgi"] = {"version": "3.0"}
    if profile.spec_version is not None:
        scope["asgi"]["spec_version"] = profile.spec_version
    if profile.joins_headers:
        joined: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            joined[name] = joined[name] + b"," + value if name in joined else value
        scope["headers"] = list(joined.items())
    if not profile.denial:
        del scope["extensions"]["websocket.http.response"]
    return scope


class Server:
    """One call of an application."""

    def __init__(self, scope: Scope, link: Link, profile: Profile) -> None:
        self._scope = scope
        self._link = link
        self._profile = profile
        self._receive = create_ws_receive(link)
        self._send = create_ws_send(link, scope["subprotocols"])
        self._told: Message | None = None  # the disconnect
        self._closed = False

    async def run(self, app: ASGIApp) -> None:
        """Call the application, and end what it leaves unfinished."""
        failed = False
        try:
            await app(self._scope, self.receive, self.send)
        except Exception:  # the border to the application
            failed = True
        finally:
            self._finish(failed=failed)

    def _finish(self, *, failed: bool) -> None:
        link, profile = self._link, self._profile
        status = profile.failed_early if failed else profile.returned_early
        code = profile.failed if failed else profile.returned
        if link.answer is None or link.answer.status != 101:
            if link.answer is None and link.ending is None and status is not None:
                link.refuse(status)
            link.end(ABNORMAL, "", "application")
        elif code is not None:
            link.end(None if code == NO_STATUS else code, "", "application")

    async def receive(self) -> Message:
        """Be the application's ``receive``."""
        if self._told is not None:
            return await self._receive_again(self._told)
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self._told = event
        return event

    async def _receive_again(self, event: Message) -> Message:
        profile, ending = self._profile, self._link.ending
        lost = ending is not None and ending.code == ABNORMAL
        if profile.second_receive == "blocks" or (lost and profile.blocks_after_abort):
            await anyio.sleep_forever()
        await checkpoint()
        if profile.second_receive == "same":
            return {**event}
        return {"type": "websocket.disconnect", "code": NO_STATUS, "reason": ""}

    async def send(self, event: Message) -> None:
        """Be the application's ``send``."""
        if self._is_ignored(event):
            return await checkpoint()
        kind = event["type"]
        if kind == "websocket.accept" and not self._profile.accept_headers:
            event = {**event, "headers": []}
        elif kind == "websocket.close":
            event = self._check_close(event)
        elif event.get("more_body") and not self._profile.denial_in_parts:
            self._link.answer = None
            raise RuntimeError("Unsupported ASGI message")
        self._closed = kind == "websocket.close"
        try:
            await self._send(event)
        except ClientDisconnected:
            if self._profile.tells_senders:
                raise
        return None

    def _is_ignored(self, event: Message) -> bool:
        profile, kind = self._profile, event["type"]
        if kind == "websocket.close":
            return self._closed and not profile.second_close
        if kind == "websocket.send":
            empty = not event.get("text") and not event.get("bytes")
            return (empty and not profile.empty_messages) or (
                self._closed and not profile.send_after_close
            )
        return kind.startswith("websocket.http.response.") and not profile.denial

    def _check_close(self, event: Message) -> Message:
        code = event.get("code") or 1000
        accepted = self._link.answer is not None
        if not self._profile.sends_1xxx and 1000 < code < 3000 and accepted:
            raise RuntimeError(f"invalid close code {code} (must be 1000 or from 3000 to 4999)")
        return event if self._profile.sends_reason else {**event, "reason": ""}
