"""A room's flush, and what happens while it is on its way from member to member."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from unittest.mock import patch

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Hub
from tests.peer import Peer, eventually

PEERS = 4
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("turn")),
        st.tuples(st.just("publish"), st.none() | st.integers(0, PEERS - 1)),
        st.tuples(st.just("send"), st.integers(0, PEERS - 1)),
        st.tuples(st.just("leave"), st.integers(0, PEERS - 1)),
        st.tuples(st.just("join"), st.integers(0, PEERS - 1)),
    ),
    max_size=40,
)


@dataclass
class Stay:
    """A member's time in the room: what was published for it, and whether it stayed."""

    published: list[str] = field(default_factory=list)
    ended: bool = False


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, members_at_once=st.integers(1, 3))
async def test_each_hears_what_was_published_while_it_was_there_once_and_in_order(
    steps: list[tuple[Any, ...]], members_at_once: int
) -> None:
    hub, peers, numbers = Hub(), [Peer() for _ in range(PEERS)], count()
    stays = [[Stay()] for _ in peers]
    own: list[list[str]] = [[] for _ in peers]
    with patch("hubbub.room._MESSAGES_PER_CHECKPOINT", 8 * members_at_once):
        async with hub, AsyncExitStack() as stack:
            members = []
            for peer in peers:
                ws = await stack.enter_async_context(peer.websocket())
                members.append(await stack.enter_async_context(hub.join("r", ws)))

            for action, *arguments in steps:
                match action, *arguments:
                    case ("turn",):
                        await anyio.lowlevel.checkpoint()
                    case "publish", exclude:
                        text = f"r{next(numbers)}"
                        hub.broadcast_nowait(
                            "r", text, exclude=() if exclude is None else members[exclude]
                        )
                        for number, its in enumerate(stays):
                            if number != exclude and not its[-1].ended:
                                its[-1].published.append(text)
                    case "send", int(number):
                        text = f"s{next(numbers)}"
                        members[number].send_nowait(text)
                        own[number].append(text)
                        if not stays[number][-1].ended:
                            stays[number][-1].published.append(text)  # in this very place
                    case "leave", int(number):
                        members[number].leave("r")
                        stays[number][-1].ended = True
                    case "join", int(number) if stays[number][-1].ended:
                        members[number].join("r")
                        stays[number].append(Stay())

            await hub.broadcast_all("end")
            await eventually(lambda: all(peer.heard[-1:] == ["end"] for peer in peers))
            for peer, its, mine in zip(peers, stays, own, strict=True):
                heard = peer.heard[:-1]
                assert [text for text in heard if text in mine] == mine
                for stay in its:
                    its_part = [text for text in heard if text in stay.published]
                    if stay.ended:  # what had not reached it then does not any more
                        assert its_part == stay.published[: len(its_part)]
                    else:
                        assert its_part == stay.published
                assert set(heard) <= {*mine, *(text for stay in its for text in stay.published)}
                assert len(set(heard)) == len(heard)
