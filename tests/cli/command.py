"""The commands in this process, and what the tests do to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from hubbub.cli import app

if TYPE_CHECKING:
    import signal

    from typer.testing import Result

BACKENDS = ["asyncio", "uvloop", "trio"]
PATIENCE = 20.0  # seconds


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def send_signal(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
