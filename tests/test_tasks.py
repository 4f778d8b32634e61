from __future__ import annotations

import anyio
import pytest

from hubbub._tasks import create_task_group


async def fail(error: Exception) -> None:
    raise error


async def test_a_single_error_comes_out_as_it_is() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with create_task_group() as tasks:
            tasks.start_soon(fail, error)
    assert caught.value is error


async def test_the_bodys_own_error_keeps_its_cause_and_context() -> None:
    with pytest.raises(ValueError, match="second") as caught:
        async with create_task_group():
            try:
                await fail(KeyError("first"))
            except KeyError as first:
                raise ValueError("second") from first
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(caught.value.__context__, KeyError)


async def test_two_errors_stay_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with create_task_group() as tasks:
            tasks.start_soon(fail, ValueError())
            tasks.start_soon(fail, KeyError())
    assert caught.group_contains(ValueError)
    assert caught.group_contains(KeyError)


async def test_a_group_of_the_callers_own_stays_one() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with create_task_group():
            raise ExceptionGroup("mine", [ValueError()])
    assert caught.value.message == "mine"


async def test_cancellation_passes() -> None:
    with anyio.CancelScope() as scope:
        async with create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught
