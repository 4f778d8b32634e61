"""Server: what calls an application for one peer, with the manners of a profile.

It makes the scope, and the ``receive`` and ``send`` of hubbub's own server over a link; what
another server does differently is done here and in link, and nowhere else. Used by client.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

from hubbub.close_codes import ABNORMAL, NO_STATUS
from hubbub.exceptions import ClientDisconnected
from hubbub.testing.transcript import describe
from hubbub.wire.handshake import Refusal, ServerHandshake
from hubbub.ws_bridge import build_ws_scope, create_ws_receive, create_ws_send

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hubbub.testing.link import Link
    from hubbub.testing.profiles import Profile
    from hubbub.testing.transcript import Transcript
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
        ValueError: if the request is none that a server would pass on.
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
    """One call of an application.

    Attributes:
        error: what it raised, other than that its peer had gone.
        over: set when it has returned or raised.
    """

    def __init__(self, scope: Scope, link: Link, profile: Profile, transcript: Transcript) -> None:
        self.error: Exception | None = None
        self.over = anyio.Event()
        self._scope = scope
        self._link = link
        self._profile = profile
        self._transcript = transcript
        self._receive = create_ws_receive(link)
        self._send = create_ws_send(link, scope["subprotocols"])
        self._told: Message | None = None  # the disconnect
        self._closed = False

    async def run(self, app: ASGIApp) -> None:
        """Call the application, and end what it leaves unfinished."""
        self._transcript.application = "is running"
        try:
            await app(self._scope, self.receive, self.send)
        except Exception as error:  # the border to the application
            self._transcript.application = f"raised {error!r}"
            if self._link.ending is None or not _is_disconnect(error):
                self.error = error
        else:
            self._transcript.application = "returned"
        finally:
            self._finish()
            self.over.set()

    def _finish(self) -> None:
        link, profile = self._link, self._profile
        status = profile.returned_early if self.error is None else profile.failed_early
        code = profile.returned if self.error is None else profile.failed
        if link.answer is None or link.answer.status != 101:
            if link.answer is None and link.ending is None and status is not None:
                link.refuse(status)
            link.end(ABNORMAL, "", "application")
        elif code is not None:
            link.end(None if code == NO_STATUS else code, "", "application")

    async def receive(self) -> Message:
        """Be the application's ``receive``."""
        with self._waiting("receive()"):
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
        self._transcript.app(_describe_event(event))
        with self._waiting("send()"):
            try:
                await self._send_as_profile_has_it(event)
            except ClientDisconnected:
                if self._profile.tells_senders:
                    raise

    async def _send_as_profile_has_it(self, event: Message) -> None:
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
        await self._send(event)
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

    @contextmanager
    def _waiting(self, where: str) -> Iterator[None]:
        self._transcript.waiting.append(where)
        try:
            yield
        finally:
            self._transcript.waiting.remove(where)


def _is_disconnect(error: BaseException) -> bool:
    """Tell whether this is the peer's leaving, which an application may let pass.

    That of Starlette and Litestar is known by its name: neither need be here.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_disconnect, error.exceptions))
    return isinstance(error, ClientDisconnected) or any(
        kind.__name__ == "WebSocketDisconnect" for kind in type(error).__mro__
    )


def _describe_event(event: Message) -> str:
    kind = event["type"]
    if kind == "websocket.send":
        text, data = event.get("text"), event.get("bytes")
        return f"sends {describe(text if text is not None else data or b'')}"
    if kind == "websocket.accept":
        subprotocol = event.get("subprotocol")
        return f"accepts with subprotocol {subprotocol!r}" if subprotocol else "accepts"
    if kind == "websocket.close":
        return f"closes with {event.get('code', 1000)} {event.get('reason') or ''!r}"
    if kind == "websocket.http.response.start":
        return f"refuses with {event.get('status')}"
    return f"sends the event {kind}"
