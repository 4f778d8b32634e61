"""A worker: one of the processes that serve the same sockets.

Its side of the link to the supervisor: over a socket, it is told what to do and says when it
serves; a broken link means that the supervisor is gone. Run by supervisor, as
``python -m hubbub.cli.worker`` with the link's file descriptor.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
from contextlib import suppress

from hubbub.cli.supervisor import READY

__all__ = ("main", "work")


def main() -> None:
    """Be a worker, with the arguments of this process."""
    with socket.socket(fileno=int(sys.argv[1])) as link:
        work(link)


def work(link: socket.socket) -> None:
    """Serve what the supervisor says, until a signal or the supervisor's end.

    Raises:
        SystemExit: if the application cannot be served; stderr says why.
    """
    with link.makefile("rb") as told:
        service, descriptors = pickle.load(told)
    over = threading.Event()
    threading.Thread(target=_follow, args=(link, service.patience, over), daemon=True).start()
    service.set_up_logging(f"[{os.getpid()}] ")
    try:
        service.run(
            [socket.socket(fileno=descriptor) for descriptor in descriptors],
            announce=lambda: link.sendall(READY),
        )
    finally:
        over.set()


def _follow(link: socket.socket, patience: float | None, over: threading.Event) -> None:
    """End this process when the supervisor's has ended, however it has."""
    with suppress(ConnectionResetError):
        link.recv(1)  # nothing is sent, so this returns at the end
    os.kill(os.getpid(), signal.SIGTERM)
    if not over.wait(patience):
        os._exit(1)  # pragma: no cover - nothing is written after this


if __name__ == "__main__":
    main()
