"""Failures: what a test is told when its application, or its peer, does not do what it should.

Which of several errors comes out is decided here. Used by everything in testing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from hubbub.exceptions import HubbubError, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubbub.datastructures import Headers
    from hubbub.testing.transcript import Transcript

__all__ = ("Rejected", "patience", "settle")


class Rejected(HubbubError):
    """The application refused the connection.

    Attributes:
        status: the status of the HTTP response.
        headers: its headers, names without regard to case.
        body: its body.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"The application refused the connection with status {status}")
        self.status = status
        self.headers = headers
        self.body = body


@contextmanager
def patience(timeout: float | None, what: str, said: object = "") -> Iterator[None]:
    """Fail when the block takes longer than that.

    Args:
        timeout: seconds; None for no limit.
        what: what is waited for.
        said: what led up to it, for the reader of the failure.

    Raises:
        TimeoutError: if it takes longer.
    """
    with anyio.move_on_after(timeout) as scope:
        yield
    if scope.cancelled_caught:
        raise TimeoutError(f"No {what} within {timeout} s\n{said}")


def settle(
    error: Exception | None, cause: Exception | None, transcript: Transcript | None = None
) -> None:
    """Raise what a test has to be told of, if anything.

    Args:
        error: what the test's own block raised.
        cause: what the application raised, which is the cause of what the block met with.
        transcript: what led up to it, for the reader of the failure.
    """
    consequence = isinstance(error, Rejected | TimeoutError | WebSocketDisconnect)
    if cause is not None and (error is None or consequence):
        error = cause
    elif cause is not None and error is not None:
        error.add_note(f"The application failed, too: {cause!r}")
    if error is not None:
        if transcript is not None and not transcript.is_in(str(error)):
            error.add_note(str(transcript))
        raise error
