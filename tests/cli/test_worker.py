"""A worker, in process: what it is told, what it says, and that it follows its supervisor."""

from __future__ import annotations

import pickle
import runpy
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from hubbub.cli import worker
from hubbub.cli.supervisor import READY
from tests.cli.command import PATIENCE, make_service

if TYPE_CHECKING:
    from pathlib import Path

APP = """
from hubbub import App

async def echo(ws):
    async with ws:
        async for text in ws:
            await ws.send(text)

app = App({"/": echo})
"""


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("dying", [False, True])
def test_it_serves_until_its_supervisor_is_gone(
    dying: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"followed_{dying}.py").write_text(APP)
    monkeypatch.setattr(sys, "path", list(sys.path))
    service = make_service(f"followed_{dying}:app", tmp_path)
    link, theirs = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    link.sendall(pickle.dumps((service, [listener.detach()])))
    monkeypatch.delitem(sys.modules, worker.__name__)
    monkeypatch.setattr(sys, "argv", ["worker", str(theirs.detach())])

    def supervise() -> tuple[str | bytes, int | None]:
        with link:
            if not dying:  # which leaves unread what the worker says
                assert link.recv(10) == READY
            with connect(f"ws://{host}:{port}", proxy=None, open_timeout=PATIENCE) as client:
                client.send("hi")
                heard = client.recv(PATIENCE)
                link.close()
                with pytest.raises(ConnectionClosed) as end:
                    client.recv(PATIENCE)
                return heard, end.value.rcvd.code if end.value.rcvd else None

    with ThreadPoolExecutor(1) as threads:
        supervisor = threads.submit(supervise)
        runpy.run_module(worker.__name__, run_name="__main__")
        assert supervisor.result(PATIENCE) == ("hi", 1012)
