"""Peer: the other side of an application's WebSocket, in the hands of a test.

What a test says, hears and breaks. No ASGI lives here, and nothing that an application does.
Made by both clients, for each connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from multidict import CIMultiDict, CIMultiDictProxy

from hubbub.close_codes import ABNORMAL, NO_STATUS, check_close
from hubbub.codecs import json
from hubbub.exceptions import WebSocketDisconnect
from hubbub.testing.failures import Rejected, patience
from hubbub.testing.transcript import Transcript, describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from hubbub.datastructures import Headers
    from hubbub.testing.link import Link
    from hubbub.types import Data

__all__ = ("Peer",)

T = TypeVar("T")


class Peer:
    """One connection, as its peer has it: ``async with client.connect("/chat") as ws``.

    Messages, iteration and the end are like ``hubbub.WebSocket``'s: after the end, messages that
    were sent before can still be received, then every receive raises ``WebSocketDisconnect``, as
    every send does at once. Whatever takes longer than the client's ``timeout`` fails with a
    ``TimeoutError``, which shows what both sides have said.

    Attributes:
        timeout: seconds that anything may take from now on; None for no limit.
        transcript: what both sides have said so far; ``print(ws.transcript)``.
    """

    def __init__(self, link: Link, transcript: Transcript, timeout: float | None) -> None:
        self.timeout = timeout
        self.transcript = transcript
        self._link = link

    # -- The handshake -------------------------------------------------------------------

    @property
    def accepted_subprotocol(self) -> str | None:
        """The subprotocol that the application accepted, if any."""
        return self._link.answer.subprotocol if self._link.answer is not None else None

    @property
    def headers(self) -> Headers:
        """The headers that the application accepted with, names without regard to case."""
        return _decode(self._link.answer.headers if self._link.answer is not None else ())

    async def wait_accepted(self) -> None:
        """Wait for the application's answer; ``connect`` has done so already.

        Raises:
            Rejected: if it refuses.
            WebSocketDisconnect: if there is none (1006).
            TimeoutError: if there is none yet.
        """
        with self.patience("answer to the handshake"):
            await self._link.answered.wait()
        answer = self._link.answer
        if answer is None:
            raise WebSocketDisconnect(ABNORMAL)
        if answer.status != 101:
            raise Rejected(answer.status, _decode(answer.headers), answer.body)

    # -- Messages ------------------------------------------------------------------------

    async def send(self, data: Data) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary.

        Raises:
            WebSocketDisconnect: if the connection is over.
            TimeoutError: if the application has not taken enough of what was sent before.
        """
        self._require_open()
        self.transcript.peer(f"sends {describe(data)}")
        with self.patience("room for a message"):
            await self._link.incoming.put(data)
        self._require_open()

    async def send_text(self, data: str) -> None:
        """Send a text message. Raises as ``send`` does."""
        if not isinstance(data, str):
            raise TypeError(f"Expected text of str, got {type(data).__name__}")
        await self.send(data)

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message. Raises as ``send`` does."""
        if not isinstance(data, bytes):
            raise TypeError(f"Expected binary data of bytes, got {type(data).__name__}")
        await self.send(data)

    async def send_json(self, data: Any) -> None:
        """Encode a value as JSON and send it as text. Raises as ``send`` does."""
        await self.send(json.encode(data))

    async def receive(self) -> Data:
        """Receive a message of either kind.

        Raises:
            WebSocketDisconnect: if the connection is over.
            TimeoutError: if nothing comes.
        """
        with self.patience("message"):
            try:
                return await self._link.outgoing.take()
            except anyio.EndOfStream:
                raise self._disconnected() from None

    async def receive_text(self) -> str:
        """Receive a text message; ``TypeError`` if it is binary. Raises as ``receive`` does."""
        data = await self.receive()
        if not isinstance(data, str):
            raise TypeError(f"Expected a text message, got {describe(data)}")
        return data

    async def receive_bytes(self) -> bytes:
        """Receive a binary message; ``TypeError`` if it is text. Raises as ``receive`` does."""
        data = await self.receive()
        if not isinstance(data, bytes):
            raise TypeError(f"Expected a binary message, got {describe(data)}")
        return data

    async def receive_json(self) -> Any:
        """Receive a text message and decode it as JSON. Raises as ``receive_text`` does."""
        return json.decode(await self.receive_text())

    def __aiter__(self) -> AsyncIterator[str]:
        """Iterate over text messages until the connection ends."""
        return self.iter_text()

    def iter_text(self) -> AsyncIterator[str]:
        """Iterate over text messages until the connection ends; a binary one raises."""
        return _Messages(self.receive_text)

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over binary messages until the connection ends; a text one raises."""
        return _Messages(self.receive_bytes)

    def iter_messages(self) -> AsyncIterator[Data]:
        """Iterate over messages of either kind until the connection ends."""
        return _Messages(self.receive)

    def iter_json(self) -> AsyncIterator[Any]:
        """Iterate over text messages, decoded as JSON, until the connection ends; others raise."""
        return _Messages(self.receive_json)

    # -- The end -------------------------------------------------------------------------

    @property
    def close_code(self) -> int | None:
        """The code that the connection ended with, whoever ended it; None while it lasts."""
        ending = self._link.ending
        if ending is None:
            return None
        return NO_STATUS if ending.code is None else ending.code

    @property
    def close_reason(self) -> str | None:
        """The reason that the connection ended with; None while it lasts."""
        return self._link.ending.reason if self._link.ending is not None else None

    async def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Close the connection. Closing one that is over does nothing.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999; None for a close frame without a code,
                for which ``WireClient`` sends 1000.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: if the code or the reason must not be sent.
        """
        if code is not None:
            check_close(code, reason)
        await checkpoint()
        if self._link.ending is None:
            self.transcript.peer(f"closes with {code} {reason!r}")
            self._link.end(code, reason, "peer")

    # -- What a test expects ---------------------------------------------------------------

    async def expect_close(self, code: int | None = None, reason: str | None = None) -> None:
        """Wait for the end of the connection.

        Args:
            code: what it must end with, if it matters.
            reason: what it must end with, if it matters.

        Raises:
            AssertionError: if a message comes instead, or the end is another one.
            TimeoutError: if it does not end.
        """
        with self.patience("close"):
            try:
                data = await self._link.outgoing.take()
            except anyio.EndOfStream:
                pass
            else:
                raise self._failure(f"Expected the connection to close, got {describe(data)}")
        wanted = (
            self.close_code if code is None else code,
            self.close_reason if reason is None else reason,
        )
        if wanted != (self.close_code, self.close_reason):
            raise self._failure(f"Expected a close with {wanted}, got {self._disconnected()}")

    async def expect_silence(self, seconds: float = 0) -> None:
        """Make sure that nothing comes, neither a message nor the end.

        It waits until every task is blocked, so that nothing but time, another thread or
        another process could make something come.

        Args:
            seconds: how long to wait for these, afterwards; by default not at all.

        Raises:
            AssertionError: if something comes.
            TimeoutError: if the application is never blocked.
        """
        with self.patience("moment in which every task is blocked"):
            await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(seconds):
            await self._link.outgoing.wait()
        message = self._link.outgoing.first
        if message is not None:
            raise self._failure(f"Expected silence, got {describe(message)}")
        if self._link.ending is not None:
            raise self._failure(f"Expected silence, got {self._disconnected()}")

    # -- Faults --------------------------------------------------------------------------

    def stall(self) -> None:
        """Read nothing more, as if the TCP window were full: the application's sends wait."""
        self.transcript.peer("stalls")
        self._link.pace.stall()

    def resume(self) -> None:
        """Read as fast as it comes."""
        self.transcript.peer("resumes")
        self._link.pace.resume()

    def read_slowly(self, bytes_per_second: float) -> None:
        """Read only so many bytes in a second: the application's sends take as long.

        Raises:
            ValueError: if that is not above 0.
        """
        self._link.pace.read_slowly(bytes_per_second)
        self.transcript.peer(f"reads {bytes_per_second} bytes per second")

    def abort(self) -> None:
        """Vanish without a close frame; what was sent to it and not received yet is lost."""
        self.transcript.peer("vanishes")
        self._link.abort()

    def half_close(self) -> None:
        """End the stream without a close frame; what was sent to it can still be received."""
        self.transcript.peer("ends the stream")
        self._link.end(ABNORMAL, "", "peer")

    # -- Failures ------------------------------------------------------------------------

    def patience(self, what: str) -> AbstractContextManager[None]:
        """Fail, and show what both sides have said, when something does not come in time."""
        return patience(self.timeout, what, self.transcript)

    def _failure(self, text: str) -> AssertionError:
        return AssertionError(f"{text}\n{self.transcript}")

    def _require_open(self) -> None:
        if self._link.ending is not None:
            raise self._disconnected()

    def _disconnected(self) -> WebSocketDisconnect:
        return WebSocketDisconnect(self.close_code or ABNORMAL, self.close_reason or "")


class _Messages(Generic[T]):
    """Iterates over what a peer receives; not an async generator, about which trio warns."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Awaitable[T]]) -> None:
        self._receive = receive

    def __aiter__(self) -> _Messages[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._receive()
        except WebSocketDisconnect:
            raise StopAsyncIteration from None


def _decode(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    return CIMultiDictProxy(
        CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
    )
