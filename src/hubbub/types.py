"""The names of the ASGI interface (https://asgi.readthedocs.io), and of a message.

No behaviour lives here. Every module may import this one; it imports none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ("ASGIApp", "Data", "Message", "Receive", "Scope", "Send")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
"""Called with Scope, Receive and Send, for which every framework has types of its own."""

Data: TypeAlias = str | bytes
"""One WebSocket message: text or binary (RFC 6455 §5.6)."""
