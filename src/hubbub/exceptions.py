"""What the peer, the network or the message can do to a program, as one tree.

HubbubError
├── WebSocketDisconnect    the connection is over: code and reason say how
├── ClientDisconnected     an application sent to a peer that is gone (ASGI's OSError)
├── HandshakeError         a server did not open the WebSocket that a client asked for
├── MessageTooBig          a message is larger than a bound that was set for it
├── RouterError            an error envelope: what a message, or a request, is answered with
└── DecodeError            a message is not what it says it is

Misuse by the programmer is not here: that is a plain ``RuntimeError``, ``ValueError`` or
``TypeError``. Every module may import this one; it imports none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = (
    "ClientDisconnected",
    "DecodeError",
    "HandshakeError",
    "HubbubError",
    "MessageTooBig",
    "RouterError",
    "WebSocketDisconnect",
    "is_disconnect",
)


class HubbubError(Exception):
    """Root of all errors that the peer or the network causes."""


class WebSocketDisconnect(HubbubError):
    """The connection is over.

    Attributes:
        code: the close code (RFC 6455 §7.4); 1005 when the peer gave none, 1006 when the
            connection was lost without a close frame.
        reason: the close reason, empty when there was none.
    """

    def __init__(self, code: int = 1000, reason: str = "") -> None:
        super().__init__(f"WebSocket disconnected: code={code}, reason={reason}")
        self.code = code
        self.reason = reason

    def __reduce__(self) -> tuple[type[WebSocketDisconnect], tuple[int, str]]:
        # Exception would rebuild itself from the message instead of code and reason.
        return type(self), (self.code, self.reason)


class ClientDisconnected(HubbubError, OSError):
    """An application sent to a peer that is gone (ASGI 2.4: a subclass of OSError).

    Raised by our server's ``send``; an application may let it propagate.

    Attributes:
        code: the close code, as in the ``websocket.disconnect`` event.
        reason: the close reason.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"The peer is gone: code={code}, reason={reason}")
        self.code = code
        self.reason = reason

    def __reduce__(self) -> tuple[type[ClientDisconnected], tuple[int, str]]:
        return type(self), (self.code, self.reason)


class HandshakeError(HubbubError):
    """A server did not open the WebSocket that a client asked for.

    Attributes:
        status: the status of its response; None when it sent none that can be read.
        headers: the headers of its response, names in lower case.
        body: the beginning of its response's body.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = body


class MessageTooBig(HubbubError):
    """A message is larger than the bound that was set for it."""


class RouterError(HubbubError):
    """An error envelope, as an exception.

    A router's handler raises it to answer its message with an error; ``request`` raises it when
    the peer answered with one.

    Attributes:
        code: for programs; stable, in lower case with underscores.
        message: for people.
        details: what else there is to say, in JSON values.
    """

    def __init__(self, code: str, message: str = "", details: Sequence[Any] = ()) -> None:
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class DecodeError(HubbubError, ValueError):
    """A message cannot be decoded: it is not what its marker or its sender says it is."""


def is_disconnect(error: BaseException) -> bool:
    """Tell whether an error only says that the peer has left, which handlers may let propagate.

    So does a group of such errors: a task group of the handler's own raises them in one.
    """
    if isinstance(error, ExceptionGroup):
        return all(map(is_disconnect, error.exceptions))
    return isinstance(error, ClientDisconnected | WebSocketDisconnect)
