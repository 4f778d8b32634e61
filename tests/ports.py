"""Ports for servers that have to be told theirs: free, and nobody else's until they listen.

Those that the system finds when asked for port 0 are better, where a server tells which one it got.
"""

from __future__ import annotations

import os
import random
import socket

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# Below those that the system hands out by itself; each worker of pytest has its own of them.
_ports = range(20_000 + _worker, 32_768, _workers)
_untried = iter(random.sample(_ports, len(_ports)))


def free_port() -> int:
    """A port that is free, and that this has not given to anybody before."""
    for port in _untried:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no free port")
