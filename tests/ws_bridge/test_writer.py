from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from hubbub.ws_bridge.socket_transport import socket_transport
from hubbub.ws_bridge.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Idle:
    """A helper that has other things to do."""

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        pass

    def mark(self, writer: Writer) -> None:
        pass


async def test_what_is_corked_is_bounded() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        transport = socket_transport(ours)
        writer = Writer(transport, Idle())
        for sent in (0, 0, 90_000, 90_000, 90_000, 180_000):
            writer.cork(bytes(30_000))
            assert writer.sent == sent
        transport.close()
