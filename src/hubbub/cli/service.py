"""Service: an application to serve, and how, in whichever process.

It can be pickled: nothing of it is imported or opened yet. Made by serve; run there, or by
worker in a process of its own.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from hubbub.cli.loading import load
from hubbub.cli.terminal import fail
from hubbub.ws_bridge import StartupFailed, run

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hubbub.cli.terminal import Backend
    from hubbub.ws_bridge import Config

__all__ = ("LogLevel", "Service")

_LAST_CALL = 5.0  # seconds that a process has besides the deadlines of its server


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What to serve, and how.

    Attributes:
        target: the application, as ``module:app``.
        factory: whether that is a function that makes it.
        app_dir: where to look for the module first.
        backend: the event loop.
        config: limits and choices, except TLS.
        ssl_certfile: a certificate, for TLS.
        ssl_keyfile: its key, if that is in another file.
        log_level: the lowest level that is logged, by any logger.
        access_log: whether connections are logged.
    """

    target: str
    factory: bool
    app_dir: Path
    backend: Backend
    config: Config
    ssl_certfile: Path | None
    ssl_keyfile: Path | None
    log_level: LogLevel
    access_log: bool

    @property
    def patience(self) -> float | None:
        """How many seconds a process may take to end when it was told to; None for no limit."""
        timeout = self.config.shutdown_timeout
        return None if timeout is None else 2 * timeout + _LAST_CALL

    def set_up_logging(self, prefix: str = "") -> None:
        """Log to stderr.

        Args:
            prefix: what to begin the lines with, after their level.
        """
        level = self.log_level.upper()
        logging.basicConfig(level=level, format=f"%(levelname)s: {prefix}%(message)s")
        logging.getLogger("hubbub.access").disabled = not self.access_log

    def run(self, sockets: Sequence[socket.socket], announce: Callable[[], None]) -> None:
        """Serve in this process until it gets a signal.

        Args:
            sockets: listening ones; they are closed in the end.
            announce: called when peers may connect.

        Raises:
            SystemExit: if the application cannot be served; stderr says why.
        """
        application = load(self.target, app_dir=self.app_dir, factory=self.factory)
        try:
            run(
                application,
                sockets=sockets,
                config=replace(self.config, ssl=self._ssl_context()),
                backend=self.backend.value,
                announce=lambda _: announce(),
            )
        except StartupFailed as error:
            fail(f"{self.target} cannot start: {error}")

    def _ssl_context(self) -> ssl.SSLContext | None:
        if self.ssl_certfile is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        except OSError as error:
            fail(f"Cannot use the certificate {self.ssl_certfile}: {error}")
        return context
