"""Config: every limit and every choice that a server takes, with its default.

No behaviour lives here. Given to ``serve``, ``run`` and ``serve_connection`` by whoever starts
a server, and read by everything in ws_bridge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence  # noqa: TC003 - the command line reads the types
from dataclasses import dataclass
from ssl import SSLContext  # noqa: TC003 - the command line reads the types

__all__ = ("Config",)

_MIB = 1024 * 1024
_field_value = re.compile(r"[!-~]([ -~]*[!-~])?")  # RFC 9110 §5.5, in ASCII


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How a server treats its connections. Times are in seconds, sizes in bytes.

    Where a limit may be None, that switches it off: then a peer, or an application, that does
    not do its part keeps the connection and its memory for ever.

    Attributes:
        max_message_size: the limit for a message, inflated; beyond it the connection is closed
            with 1009.
        max_queue: how many messages are read ahead of an application that is busy elsewhere.
            Then the socket is not read, so that the peer has to wait.
        handshake_timeout: the time for each part of the opening handshake: TLS, the peer's
            request (else 408), and the application's answer (else 503).
        max_handshake_size: the limit for the request's head (else 431).
        close_timeout: the time from the first close frame to the end of the TCP connection.
        ping_interval: the silence after which the peer is sent a ping.
        ping_timeout: the further silence after which the peer counts as lost (1011).
        write_timeout: the time without progress, while something waits to be sent, after which
            the connection is aborted.
        grace_timeout: the time that an application has to end after its connection; then it is
            cancelled.
        max_connections: the limit for connections at once; further ones are refused with 503.
        deflate: whether to agree to permessage-deflate (RFC 7692).
        origins: the values of ``Origin`` to allow (RFC 6455 §10.2), else 403. None in the list
            stands for a request without one, which browsers do not send.
        ssl: for TLS: an ``ssl.SSLContext`` with a certificate.
        shutdown_timeout: the time that connections have to end when the server shuts down, and
            after them the application's lifespan.
        server_header: the ``Server`` field of responses; None leaves it out.
        root_path: the prefix that the application is mounted at, for its scopes.
    """

    max_message_size: int | None = 16 * _MIB
    max_queue: int = 16
    handshake_timeout: float | None = 10.0
    max_handshake_size: int = 64 * 1024
    close_timeout: float | None = 5.0
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    write_timeout: float | None = 30.0
    grace_timeout: float | None = 10.0
    max_connections: int | None = None
    deflate: bool = True
    origins: Sequence[str | None] | None = None
    ssl: SSLContext | None = None
    shutdown_timeout: float | None = 10.0
    server_header: str | None = "hubbub"
    root_path: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            TypeError: if ``origins`` is a single string.
            ValueError: if a limit is not above zero, or a text is not of its form.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
                raise ValueError(f"Expected {name} above 0, got {value!r}")
        if isinstance(self.origins, str):
            raise TypeError(f"Expected origins as a list, got {self.origins!r}")
        if self.server_header is not None and not _field_value.fullmatch(self.server_header):
            raise ValueError(f"Expected server_header in ASCII, got {self.server_header!r}")
        if self.root_path and not re.fullmatch("/.*[^/]", self.root_path):
            raise ValueError(
                f"Expected root_path to begin, and not to end, with '/', got {self.root_path!r}"
            )
