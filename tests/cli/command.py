"""The commands in this process, and what the tests do to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from hubbub.cli import app
from hubbub.cli.service import LogLevel, Service
from hubbub.cli.terminal import Backend
from hubbub.ws_bridge import Config

if TYPE_CHECKING:
    import signal
    from pathlib import Path

    from typer.testing import Result

BACKENDS = ["asyncio", "uvloop", "trio"]
PATIENCE = 20.0  # seconds


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def send_signal(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def make_service(target: str, directory: Path, config: Config | None = None) -> Service:
    return Service(
        target=target,
        factory=False,
        app_dir=directory,
        backend=Backend.ASYNCIO,
        config=config or Config(),
        ssl_certfile=None,
        ssl_keyfile=None,
        log_level=LogLevel.INFO,
        access_log=True,
    )
