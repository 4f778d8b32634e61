"""Conversation: what goes between a WebSocket and a terminal, or a pipe.

Lines in, messages out. How the connection came about is not known here. Used by connect.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio
import typer
from rich.console import Console

from hubbub._tasks import create_task_group

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hubbub.client import ClientWebSocket
    from hubbub.types import Data

__all__ = ("Conversation", "Input", "Pipe", "Prompt", "note")

_CHUNK = 65536


class Input(Protocol):
    """Where lines come from."""

    interactive: bool

    async def read_line(self) -> str | None:
        """Read the next line; None at the end of the input, or when the user ends it."""
        ...

    def kept_apart(self) -> AbstractContextManager[None]:
        """Keep what is shown meanwhile out of the line that is being typed."""
        ...


class Pipe:
    """Lines of a file descriptor."""

    interactive = False

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._rest = b""
        self._lines: deque[bytes] = deque()

    async def read_line(self) -> str | None:
        """Read the next line."""
        while not self._lines:
            # Not through sys.stdin: a thread that waits there when the program ends makes
            # Python abort.
            data = await anyio.to_thread.run_sync(os.read, self._fd, _CHUNK, abandon_on_cancel=True)
            if not data:
                rest, self._rest = self._rest, b""
                return rest.decode(errors="replace") or None
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(lines)
        return self._lines.popleft().removesuffix(b"\r").decode(errors="replace")

    def kept_apart(self) -> AbstractContextManager[None]:
        """Nothing is typed here."""
        return nullcontext()


class Prompt:
    """Lines that are typed, with a history."""

    interactive = True

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory

        directory = Path(typer.get_app_dir("hubbub"))
        directory.mkdir(parents=True, exist_ok=True)
        self._session = PromptSession[str](history=FileHistory(str(directory / "history")))

    async def read_line(self) -> str | None:
        """Ask for the next line."""
        try:
            return await self._session.prompt_async("> ")
        except (EOFError, KeyboardInterrupt):
            return None

    def kept_apart(self) -> AbstractContextManager[None]:
        """Show everything above the prompt."""
        from prompt_toolkit.patch_stdout import patch_stdout

        return patch_stdout(raw=True)


class Conversation:
    """One conversation."""

    def __init__(self, source: Input, *, pretty: bool, ping: float | None, wait: float) -> None:
        """Prepare a conversation.

        Args:
            source: where the lines come from.
            pretty: whether to show JSON over several lines.
            ping: seconds between pings.
            wait: seconds of silence after a piped input, before it is over.
        """
        self._source = source
        self._pretty = pretty
        self._ping = ping
        self._wait = wait
        self._heard = anyio.Event()

    async def run(self, ws: ClientWebSocket) -> None:
        """Converse until the input, or the connection, ends."""
        with self._source.kept_apart():
            note(f"Connected to {ws.url}")
            async with create_task_group() as tasks:
                tasks.start_soon(self._listen, ws, tasks.cancel_scope)
                if self._ping is not None:
                    tasks.start_soon(self._keep_pinging, ws, self._ping)
                await self._speak(ws)
                if not self._source.interactive:
                    await self._wait_for_silence()
                tasks.cancel_scope.cancel()

    async def _listen(self, ws: ClientWebSocket, scope: anyio.CancelScope) -> None:
        async for message in ws.iter_messages():
            self._heard.set()
            self._show(message)
        scope.cancel()

    async def _speak(self, ws: ClientWebSocket) -> None:
        while (line := await self._source.read_line()) is not None:
            if not self._source.interactive or not line.startswith("/"):
                await ws.send_text(line)
            elif line.startswith("//"):
                await ws.send_text(line[1:])
            else:
                await self._obey(ws, *line[1:].split(None, 2))

    async def _obey(self, ws: ClientWebSocket, command: str = "", *arguments: str) -> None:
        if command == "ping":
            await self._ping_once(ws)
        elif command == "close":
            try:
                await ws.close(*_parse_close(*arguments))
            except ValueError as error:
                note(str(error))
        else:
            note("Expected /ping, /close [CODE [REASON]], or // for a line that begins with /")

    async def _keep_pinging(self, ws: ClientWebSocket, interval: float) -> None:
        while True:
            await anyio.sleep(interval)
            await self._ping_once(ws)

    async def _ping_once(self, ws: ClientWebSocket) -> None:
        note(f"Pong after {await ws.ping() * 1000:.1f} ms")

    async def _wait_for_silence(self) -> None:
        silent = False
        while not silent:
            self._heard = anyio.Event()
            with anyio.move_on_after(self._wait) as scope:
                await self._heard.wait()
            silent = scope.cancelled_caught

    def _show(self, message: Data) -> None:
        mark = "< " if self._source.interactive else ""
        if isinstance(message, bytes):
            typer.echo(f"{mark}<{len(message)} bytes> {message.hex()}")
            return
        if self._pretty:
            try:
                Console(file=sys.stdout).print_json(message)
            except ValueError:  # it is no JSON
                pass
            else:
                return
        typer.echo(mark + message)


def note(text: str) -> None:
    """Show something that is not a message."""
    typer.echo(text, err=True)


def _parse_close(code: str = "1000", reason: str = "") -> tuple[int, str]:
    if not code.isdecimal():
        raise ValueError(f"Expected /close [CODE [REASON]], got {code!r}")
    return int(code), reason
