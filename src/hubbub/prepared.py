"""Prepared: one message, encoded once for however many peers it goes to; and Outlet.

No queue and no connection lives here. Made by whoever sends into an outbox. Through an Outlet,
our server takes prepared messages, as a Batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from hubbub.types import Data

__all__ = ("OUTLET", "Batch", "Burst", "Outlet", "Prepared")

OUTLET = "hubbub.outlet"
"""The ASGI extension under which a server offers a connection's ``Outlet``."""


class Batch(Protocol):
    """One message or several, sent at once, with the frames that all its receivers share."""

    @property
    def messages(self) -> Sequence[Prepared]:
        """The messages, in their order."""
        ...

    @property
    def count(self) -> int:
        """How many messages there are."""
        ...

    @property
    def size(self) -> int:
        """Their payload in bytes (text counts as UTF-8), by which outboxes are bounded."""
        ...

    @property
    def frames(self) -> dict[int | None, bytes]:
        """Their frames as servers send them, joined, by the window bits of their compression.

        0 stands for no compression. The first receiver that needs some has them built.
        """
        ...

    def build_frames(self, key: int, build: Callable[[Data], bytes]) -> bytes:
        """Build the ``frames`` of one key, with a function that builds a message's frame."""
        ...


class Prepared:
    """One message: a batch of itself.

    Attributes:
        data: the message.
        count: 1.
        size: as ``Batch.size``.
        frames: as ``Batch.frames``.
    """

    __slots__ = ("_keys", "count", "data", "frames", "size")

    def __init__(self, data: Data) -> None:
        """Prepare a message.

        Raises:
            TypeError: if it is neither ``str`` nor ``bytes``.
        """
        if isinstance(data, str):
            self.size = len(data) if data.isascii() else len(data.encode())
        elif isinstance(data, bytes):
            self.size = len(data)
        else:
            raise TypeError(f"Expected a message of str or bytes, got {type(data).__name__}")
        self.data = data
        self.count = 1
        self.frames: dict[int | None, bytes] = {}
        self._keys: dict[Callable[[Data], Hashable], Hashable] | None = None

    @property
    def messages(self) -> Sequence[Prepared]:
        """Just this one."""
        return (self,)

    def build_frames(self, key: int, build: Callable[[Data], bytes]) -> bytes:
        """As ``Batch.build_frames``."""
        frame = self.frames[key] = build(self.data)
        return frame

    def key(self, function: Callable[[Data], Hashable]) -> Hashable:
        """Compute a key of the message, once for each function."""
        if self._keys is None:
            self._keys = {}
        try:
            return self._keys[function]
        except KeyError:
            key = self._keys[function] = function(self.data)
            return key


class Burst:
    """Several messages.

    Attributes:
        messages: as ``Batch.messages``.
        count: as ``Batch.count``.
        size: as ``Batch.size``.
        frames: as ``Batch.frames``.
    """

    __slots__ = ("count", "frames", "messages", "size")

    def __init__(self, messages: Sequence[Prepared]) -> None:
        self.messages = messages
        self.count = len(messages)
        self.size = sum([message.size for message in messages])
        self.frames: dict[int | None, bytes] = {}

    def build_frames(self, key: int, build: Callable[[Data], bytes]) -> bytes:
        """As ``Batch.build_frames``; a frame that a message has already is reused."""
        frames = self.frames[key] = b"".join(
            [
                message.frames.get(key) or message.build_frames(key, build)
                for message in self.messages
            ]
        )
        return frames


class Outlet(Protocol):
    """The short way to a connection's socket, past ASGI's events.

    It may be used once the application has accepted the connection.
    """

    @property
    def closed(self) -> bool:
        """Whether nothing can ever be sent again."""
        ...

    def try_send(self, batch: Batch) -> bool:
        """Send messages now, all of them or none.

        Returns:
            False when older messages still wait for the peer to read, or when it is closed.
        """
        ...

    async def writable(self) -> None:
        """Wait until ``try_send`` is worth trying again, or until it is closed."""
        ...
