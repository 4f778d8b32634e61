"""What is said to every server that echoes, whoever has made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from hubbub import WebSocketDisconnect, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubbub.types import Data

MESSAGES: list[Data] = ["", "hé", b"", bytes(range(256)), "x" * 100_000, b"y" * 500_000]


async def talk(url: str, reach: Callable[..., connect] = connect, **options: Any) -> None:
    """Talk to a server that echoes at ``/`` and closes with 4000 at ``/close``."""
    with anyio.fail_after(30):
        async with reach(f"{url}/", subprotocols=["chat"], **options) as ws:
            assert ws.accepted_subprotocol == "chat"
            for data in MESSAGES:
                await ws.send(data)
                assert await ws.receive() == data
            async with anyio.create_task_group() as tasks:

                async def flood() -> None:
                    for number in range(200):
                        await ws.send_text(f"{number}" * 200)

                tasks.start_soon(flood)
                for number in range(200):
                    assert await ws.receive_text() == f"{number}" * 200
            assert await ws.ping() > 0
            await ws.close(3000, "enough")
        async with reach(f"{url}/close", subprotocols=["chat"], **options) as ws:
            with pytest.raises(WebSocketDisconnect) as raised:
                await ws.receive()
            assert (raised.value.code, raised.value.reason) == (4000, "bye")
