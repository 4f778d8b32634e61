"""Connection: what a router needs of a connection, at either end of it.

A server's WebSocket has it, and so has a client's. Nothing else lives here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from hubbub.calls import Calls
    from hubbub.types import Data

__all__ = ("Connection", "is_connection")


class Connection(Protocol):
    """An open connection to one peer.

    Attributes:
        calls: where the router puts the requests that wait for the peer's answers.
    """

    calls: Calls | None

    @property
    def accepted_subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, if any."""
        ...

    @property
    def close_code(self) -> int | None:
        """The code that it ended with; None while it lasts."""
        ...

    @property
    def close_reason(self) -> str | None:
        """The reason that it ended with; None while it lasts."""
        ...

    def iter_messages(self) -> AsyncIterator[Data]:
        """Iterate over messages of either kind until the connection ends, whoever ends it."""
        ...

    async def send(self, data: Data) -> None:
        """Send a message; raises ``WebSocketDisconnect`` when the connection is over."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close; does nothing when the connection is over."""
        ...

    async def request(self, type: str, payload: Any, *, timeout: float | None = ...) -> Any:
        """Ask the peer through ``calls``, and wait for its answer."""
        ...

    def stream(
        self, type: str, payload: Any, *, timeout: float | None = ...
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        """Ask the peer through ``calls``, and take its replies one by one."""
        ...


def is_connection(annotation: Any) -> bool:
    """Tell whether an annotation is a class of connections."""
    methods = ("iter_messages", "send", "close", "request")
    return isinstance(annotation, type) and all(hasattr(annotation, name) for name in methods)
