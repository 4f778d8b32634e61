"""A ``hubbub demo`` as a process of its own, as a user starts it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from threading import Timer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_PATIENCE = 20.0  # seconds


class Demo:
    """The running process. What it prints, on either stream, is in ``output``."""

    def __init__(self, backend: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "hubbub", "demo", "--backend", backend]
        self._process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = self._read_line()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.output)
        if found is None:
            self.end()
            raise AssertionError(f"Expected a first line with the URL, got {self.output!r}")
        self.port = int(found[1])
        self.url = found[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def websocket_url(self, nick: str, room: str = "lobby") -> str:
        return f"ws://127.0.0.1:{self.port}/ws/chat?nick={nick}&room={room}"

    def is_listening(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE).close()
        except OSError:
            return False
        return True

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Wait for the end; gives the exit code."""
        rest, _ = self._process.communicate(timeout=_PATIENCE)
        self.output += rest
        return self._process.returncode

    def end(self) -> None:
        """Kill it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
        with self._process:
            pass

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        watchdog = Timer(_PATIENCE, self._process.kill)
        watchdog.start()
        try:
            return self._process.stdout.readline()
        finally:
            watchdog.cancel()
            watchdog.join()
