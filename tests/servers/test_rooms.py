"""Rooms are the same over every server, and for connections of every library."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import JOINED, OWN, PATIENCE, SERVERS, RawPeer, RunningServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

pytestmark = [
    pytest.mark.servers,
    pytest.mark.parametrize(
        "server", [*OWN, *SERVERS, *JOINED], ids=lambda facts: facts.name, indirect=True
    ),
]

KIB = 1024
MIB = 1024 * KIB


class Control:
    """The hub of a server, from outside."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client

    def start(self, do: str, **arguments: Any) -> None:
        self._client.send(json.dumps({"do": do} | arguments))

    def finish(self) -> Any:
        return json.loads(self._client.recv(PATIENCE))

    def ask(self, do: str, **arguments: Any) -> Any:
        self.start(do, **arguments)
        return self.finish()


@pytest.fixture
def control(server: RunningServer) -> Iterator[Control]:
    """The control of a hub that has no members left of earlier tests."""
    with server.connect("/control", compression=None) as client:
        control = Control(client)
        wait_until(lambda: control.ask("statistics")["connections"] == 0, "an empty hub")
        yield control


def join(stack: ExitStack, server: RunningServer, room: str, **query: Any) -> ClientConnection:
    client = stack.enter_context(server.connect("/room", room=room, compression=None, **query))
    assert client.recv(PATIENCE) == "joined"
    return client


def read_numbers(client: ClientConnection, count: int) -> list[int]:
    """Receive so many published messages; their numbers."""
    return [int(client.recv(PATIENCE).split()[0]) for _ in range(count)]


def test_everybody_gets_everything_in_order(server: RunningServer, control: Control) -> None:
    with ExitStack() as stack:
        members = [join(stack, server, "news") for _ in range(10)]
        delivery = control.ask("publish", room="news", first=0, count=200, size=20)
        for member in members:
            assert read_numbers(member, 200) == list(range(200))
        assert delivery == {"sent": 10 * 200, "dropped": 0, "disconnected": 0}


def test_members_hear_each_other(server: RunningServer, control: Control) -> None:
    with ExitStack() as stack:
        members = [join(stack, server, "chat") for _ in range(4)]
        join(stack, server, "elsewhere").send("nobody hears this")
        for speaker in members:
            speaker.send(f"hello from {id(speaker)}")
            for member in members:
                if member is not speaker:
                    assert member.recv(PATIENCE) == f"hello from {id(speaker)}"
        with pytest.raises(TimeoutError):
            members[-1].recv(0)


def test_who_leaves_in_the_middle_harms_nobody(server: RunningServer, control: Control) -> None:
    with ExitStack() as stack:
        members = [join(stack, server, "news") for _ in range(8)]
        with RawPeer(server, "/room", room="news") as aborting:
            with RawPeer(server, "/room", room="news") as closing:
                aborting.finish_handshake()
                closing.finish_handshake()
                control.start("publish", room="news", first=0, count=200, size=KIB)
                aborting.read_some()
                closing.close()
        for member in members:
            assert read_numbers(member, 200) == list(range(200))
        control.finish()
        wait_until(lambda: control.ask("statistics")["connections"] == 8, "the two to be gone")


def test_who_never_reads_is_disconnected_and_harms_nobody(
    server: RunningServer, control: Control
) -> None:
    """The publisher goes on as soon as the good ones have read, so only the stuck ones lag."""
    published, batch, good, stuck = 1500, 30, 10, 5
    before = control.ask("statistics")
    with ExitStack() as stack:
        members = [join(stack, server, "flood") for _ in range(good)]
        for _ in range(stuck):
            stack.enter_context(RawPeer(server, "/room", room="flood")).finish_handshake()
        wait_until(lambda: control.ask("statistics")["connections"] == good + stuck, "all to join")
        memory = [control.ask("memory")]
        for first in range(0, published, batch):
            control.ask("publish", room="flood", first=first, count=batch, size=8 * KIB)
            for member in members:
                assert read_numbers(member, batch) == list(range(first, first + batch))
            memory.append(control.ask("memory"))
        grown = max(memory) - memory[0]
        now = control.ask("statistics")
        disconnected = now["disconnected"] - before["disconnected"]
        if server.profile.send == "buffers":  # so nobody can know who does not read
            assert (now["connections"], disconnected) == (good + stuck, 0)
        else:
            assert (now["connections"], disconnected) == (good, stuck)
            assert grown < 8 * MIB
            wait_until(lambda: control.ask("statistics")["handlers"] == good, "the stuck to end")
        if server.profile.send == "shielded":  # so nobody can stop it from sending
            abandoned = before["abandoned"] + stuck
            wait_until(lambda: control.ask("statistics")["abandoned"] == abandoned, "giving up")
        members[0].send("still here")
        assert [member.recv(PATIENCE) for member in members[1:]] == ["still here"] * (good - 1)


def test_who_reads_late_gets_the_newest(server: RunningServer, control: Control) -> None:
    published, capacity = 1200, 16
    with ExitStack() as stack:
        slow = join(
            stack,
            server,
            "prices",
            policy="drop-oldest",
            capacity=capacity,
            sock=server.open_socket(receive_buffer=4096),
            max_queue=1,
        )
        control.ask("publish", room="prices", first=0, count=published, size=8 * KIB)
        numbers = read_numbers(slow, 1)
        while numbers[-1] != published - 1:
            numbers += read_numbers(slow, 1)
        [dropped] = control.ask("dropped", room="prices")
        assert (dropped > 0) == (server.profile.send != "buffers")
        assert len(numbers) + dropped == published
        assert numbers == sorted(set(numbers))
        assert numbers[-capacity:] == list(range(published - capacity, published))


def test_nothing_went_wrong_unseen(server: RunningServer) -> None:
    """After all that; where the wrapper's tests come first, their handlers have failed too."""
    assert server.log().count("Traceback (most recent call last)") == len(server.failures)
