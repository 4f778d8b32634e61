"""The access log: one line for each connection, at its end.

What is in the line is decided here, and so is that no peer can forge one; the figures are the
connection's own. Called by server.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from hubbub.ws_bridge.scope import Endpoint
    from hubbub.ws_bridge.server_connection import ServerConnection

__all__ = ("log_access",)

_logger = logging.getLogger("hubbub.access")

_FORMAT: Final = (
    '%(client)s - "%(request)s" %(status)s %(duration).3fs'
    " in=%(received)d out=%(sent)d close=%(close_code)s"
)
_VISIBLE: Final = "!#$%&'()*+,/:;<=>?@[]^`{|} "  # besides what `quote` leaves; no quotation mark


def log_access(connection: ServerConnection, duration: float) -> None:
    """Log a connection that is over, unless its peer said nothing and got no answer.

    The record's ``args`` is a mapping, for whoever formats the line in another way.

    Args:
        connection: the connection.
        duration: how long it lasted, in seconds.
    """
    if not _logger.isEnabledFor(logging.INFO) or not (connection.received or connection.status):
        return
    close_code = connection.close_code if connection.status == 101 else None
    _logger.info(
        _FORMAT,
        {
            "client": _describe(connection.transport.client),
            "request": quote(connection.request_line or "-", safe=_VISIBLE),
            "status": connection.status or "-",
            "duration": duration,
            "received": connection.received,
            "sent": connection.writer.sent,
            "close_code": close_code or "-",
        },
    )


def _describe(client: Endpoint) -> str:
    if client is None:
        return "-"
    host, port = client
    host = quote(host, safe=":/")
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
