"""cancel_at: cancellation at a place of a test's choosing.

Nothing else lives here. Called by tests, for whatever has to be safe from cancellation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ("cancel_at",)


async def cancel_at(number: int, function: Callable[..., Awaitable[object]], *args: object) -> bool:
    """Call an async function, and cancel it where it waits for the n-th time.

        number = 1
        while await cancel_at(number, transfer, account):  # at every await there is
            assert account.balance in (0, 100)
            number += 1

    Args:
        number: at which of its awaits, from 1 on; those that do not have to wait do not count.
        function: what to call; what it raises comes out.
        args: its arguments.

    Returns:
        Whether it was cancelled; False if it did not wait so many times.

    Raises:
        ValueError: if the number is not at least 1.
    """
    if number < 1:
        raise ValueError(f"Expected a number of at least 1, got {number}")
    with anyio.CancelScope() as scope:
        await _Counted(function(*args), number, scope)
    return scope.cancelled_caught


class _Counted:
    """An awaitable, and a scope that is cancelled where it waits for the n-th time."""

    def __init__(self, awaitable: Awaitable[object], number: int, scope: anyio.CancelScope) -> None:
        self._awaitable = awaitable
        self._left = number
        self._scope = scope

    def __await__(self) -> Generator[Any, Any, object]:
        # What the loop is asked to wait for passes through here, in both directions; with
        # `yield from` it could not be counted.
        steps = self._awaitable.__await__()
        step = steps.send
        answer: Any = None
        while True:
            try:
                trap = step(answer)
            except StopIteration as stop:
                return stop.value
            self._left -= 1
            if not self._left:
                self._scope.cancel()
            try:
                step, answer = steps.send, (yield trap)
            except BaseException as error:
                step, answer = steps.throw, error
