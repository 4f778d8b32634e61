from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import pytest

from hubbub.ws_bridge.listeners import accept, close_all, open_sockets
from tests.peer import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


async def test_all_addresses_have_one_port() -> None:
    sockets = await open_sockets(None, 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert {sock.family for sock in sockets} >= {socket.AF_INET}
    finally:
        close_all(sockets)


async def test_an_address_that_is_taken() -> None:
    [sock] = await open_sockets("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await open_sockets("127.0.0.1", sock.getsockname()[1])
    close_all([sock])


async def test_an_address_whose_last_connections_linger() -> None:
    [sock] = await open_sockets("127.0.0.1", 0)
    address = sock.getsockname()
    with socket.create_connection(address) as peer:
        sock.accept()[0].close()  # who closes first keeps the address for a while
        assert peer.recv(1) == b""
    close_all([sock])
    [sock] = await open_sockets(*address)
    close_all([sock])


async def test_a_path(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    for _ in range(2):  # the second one finds what the first one left
        [sock] = await open_sockets(None, 0, uds=path)
        sock.close()
        assert path.exists()
    [sock] = await open_sockets(None, 0, uds=path)
    close_all([sock], path)
    assert not path.exists()
    path.write_text("not a socket")
    with pytest.raises(OSError, match="in use"):
        await open_sockets(None, 0, uds=path)
    assert path.read_text() == "not a socket"


async def test_a_path_that_is_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    [sock] = await open_sockets(None, 0, uds=path)
    path.unlink()
    close_all([sock], path)


async def test_a_file_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        [sock] = await open_sockets(None, 0, fd=os.dup(given.fileno()))
        assert sock.getsockname() == given.getsockname()
        sock.close()


class Exhausted(socket.socket):
    """A listener whose process is out of file descriptors for a while, and whose peers leave."""

    errors: Sequence[int] = ()

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            error, *self.errors = self.errors
            raise OSError(error, os.strerror(error))
        return super().accept()


async def test_accepting_goes_on_after_errors(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.ws_bridge.listeners._PAUSE", 0)
    taken: list[socket.socket] = []
    with Exhausted() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept, listener, taken.append)
            for _ in range(2):
                listener.errors = (errno.EMFILE, errno.ECONNABORTED, errno.EMFILE)
                with socket.create_connection(listener.getsockname()):
                    await eventually(lambda: taken)
                with taken.pop() as sock:
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            tasks.cancel_scope.cancel()
    # Once each time, however often it was tried.
    assert [record.getMessage() for record in caplog.records] == [
        f"Cannot accept a connection: [Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}"
    ] * 2


async def test_more_peers_than_are_accepted_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.ws_bridge.listeners._ACCEPTS_PER_WAIT", 2)
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as peers:
        for _ in range(5):
            peers.enter_context(socket.create_connection(listener.getsockname()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept, listener, taken.append)
            await eventually(lambda: len(taken) == 5)
            tasks.cancel_scope.cancel()
    for sock in taken:
        sock.close()
