"""Inbox: a connection's events, read ahead of its handler.

So the end of a connection is known before the handler asks for it. The bound is in messages;
when it is full, the server has to wait. What an event means is not known here. Used by
WebSocket, inside ``async with``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import anyio

from hubbub.exceptions import WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from hubbub.types import Message

__all__ = ("Inbox",)

_CAPACITY = 16  # messages


class Inbox:
    """A bounded stream of events, and the reader that fills it."""

    __slots__ = ("_feed", "_reader", "_stopped", "_stream")

    def __init__(self) -> None:
        self._feed, self._stream = anyio.create_memory_object_stream["Message"](_CAPACITY)
        self._reader = anyio.CancelScope()
        self._stopped = anyio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._feed.close()
        self._stream.close()

    async def fill(self, read: Callable[[], Awaitable[Message]]) -> None:
        """Be the reader: read events until the connection ends, or ``stop`` is called.

        Args:
            read: returns the next event, and raises ``WebSocketDisconnect`` at the end.
        """
        try:
            with self._reader:
                while True:
                    await self._feed.send(await read())
        except (WebSocketDisconnect, anyio.ClosedResourceError):
            self.end()
        finally:
            self._stopped.set()

    async def receive(self) -> Message:
        """Take the next event.

        Raises:
            anyio.EndOfStream: if there is no further one.
        """
        try:
            return await self._stream.receive()
        except anyio.ClosedResourceError:
            raise anyio.EndOfStream from None

    def end(self) -> None:
        """Let nothing more in; a ``receive`` that waits learns of it now."""
        self._feed.close()

    async def stop(self) -> None:
        """Stop the reader, and wait until it reads no more."""
        self._reader.cancel()
        await self._stopped.wait()
