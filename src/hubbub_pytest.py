"""The plugin for pytest: clients and servers as fixtures, the loops to run on, and leak checks.

Outside of the package, because pytest imports it for every run of every project that has hubbub
installed: nothing of hubbub is imported before a fixture is asked for. The fixtures are run by
anyio's own plugin, which runs them and the test in one task; so they may hold task groups.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    import anyio.abc

    from hubbub.testing import TestClient
    from hubbub.types import ASGIApp

__all__ = (
    "pytest_addoption",
    "pytest_configure",
    "pytest_generate_tests",
    "virtual_clock",
    "ws_client",
    "ws_server",
)

_LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

_LEAKS = "hubbub_leaks"
_WATCHED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a project say which loops its async tests run on."""
    help_text = f"the loops that each async test runs on, of: {', '.join(_LOOPS)}"
    parser.addini("hubbub_loops", help_text, type="args", default=[])
    help_text = "whether an async test fails when it leaves something behind"
    parser.addini("hubbub_leaks", help_text, type="bool")


def pytest_configure(config: pytest.Config) -> None:
    """Check for leaks where a project asks for it."""
    config.addinivalue_line(
        "markers",
        "may_leak(*kinds): with hubbub_leaks, the test may leave tasks, members, rooms, sockets "
        "or streams behind; without a kind, any of them",
    )
    if config.getini("hubbub_leaks"):
        config.pluginmanager.register(_LeakCheck())


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each async test on all of these loops, unless it names its own."""
    loops: list[str] = metafunc.config.getini("hubbub_loops")
    if unknown := set(loops) - set(_LOOPS):
        raise pytest.UsageError(f"Expected hubbub_loops of {list(_LOOPS)}, got {sorted(unknown)}")
    marks = metafunc.definition.iter_markers("parametrize")
    if any("anyio_backend" in str(mark.args[:1]) for mark in marks):
        return
    if "virtual_clock" in metafunc.fixturenames:
        backends = _virtual_backends(loops)
    elif "anyio_backend" in metafunc.fixturenames:
        backends = {loop: _LOOPS[loop] for loop in loops}
    else:
        return
    if backends:
        params = [pytest.param(backend, id=loop) for loop, backend in backends.items()]
        # As a mark, which overrides the parameters of the fixture.
        mark = pytest.mark.parametrize("anyio_backend", params, scope="session")
        metafunc.definition.add_marker(mark)


def _virtual_backends(loops: list[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The same loops with a virtual clock; asyncio for uvloop, whose clock cannot be replaced."""
    from hubbub.testing import virtual_clock

    if not loops:
        loops = ["asyncio", "trio"] if find_spec("trio") else ["asyncio"]
    names = ["asyncio" if loop == "uvloop" else loop for loop in loops]
    return {name: virtual_clock(name) for name in names}


class _LeakCheck:
    """Watches what anyio runs for a test: its own asynchronous fixtures, and the test.

    It begins right before the first of these, and ends after all of them: the task that they run
    in has the context variables of the moment when it began.
    """

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        is_async = iscoroutinefunction(fixturedef.func) or isasyncgenfunction(fixturedef.func)
        if is_async and fixturedef.scope == "function" and fixturedef.argname != _LEAKS:
            _watch_for_leaks(request)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        if iscoroutinefunction(pyfuncitem.obj):  # others may have a loop of their own running
            _watch_for_leaks(pyfuncitem._request)
        return (yield)

    @pytest.fixture(name=_LEAKS)
    async def leaks(self, request: pytest.FixtureRequest) -> AsyncGenerator[None]:
        """Fail the test that leaves something behind, in the task of the test itself."""
        from hubbub.testing.leaks import Leaks

        marks = request.node.iter_markers("may_leak")
        with Leaks({kind for mark in marks for kind in mark.args}) as leaks:
            yield
            left = await leaks.find()
        if left:
            pytest.fail("\n  ".join(["The test has left", *left]), pytrace=False)


def _watch_for_leaks(request: pytest.FixtureRequest) -> None:
    if "anyio_backend" not in request.fixturenames or request.node.stash.get(_WATCHED, False):
        return
    request.node.stash[_WATCHED] = True  # asking for the fixture again would change its place
    if all(mark.args for mark in request.node.iter_markers("may_leak")):
        request.getfixturevalue(_LEAKS)


@pytest.fixture
def virtual_clock(anyio_backend: object) -> None:
    """Let time jump to what is due next whenever every task is blocked.

    A test with this fixture runs on asyncio and on trio, or on the loops that ``hubbub_loops``
    names; see ``hubbub.testing.virtual_clock``.
    """
    match anyio_backend:
        case str(), {"loop_factory": _} | {"clock": _}:
            return
    raise pytest.UsageError(
        f"Expected an anyio_backend of hubbub.testing.virtual_clock(…), got {anyio_backend!r}"
    )


@pytest.fixture
async def ws_client() -> AsyncGenerator[Callable[..., Awaitable[TestClient]]]:
    """Make clients of applications, whose lifespans run until the end of the test.

    ``client = await ws_client(app)``; options are those of ``TestClient``.
    """
    import anyio

    from hubbub._tasks import create_task_group
    from hubbub.testing import TestClient

    over = anyio.Event()

    # Each in a task of its own: entered in the test's task, its scopes would not be nested in
    # those of other fixtures, which may be left first.
    async def run(
        app: ASGIApp,
        options: dict[str, Any],
        *,
        task_status: anyio.abc.TaskStatus[TestClient],
    ) -> None:
        async with TestClient(app, **options) as client:
            task_status.started(client)
            await over.wait()

    async with create_task_group() as tasks:

        async def enter(app: ASGIApp, **options: Any) -> TestClient:
            client: TestClient = await tasks.start(run, app, options)
            return client

        yield enter
        over.set()


@pytest.fixture
async def ws_server() -> AsyncGenerator[Callable[..., Awaitable[str]]]:
    """Serve applications on free ports, in the test's own loop, until the end of the test.

    ``url = await ws_server(app)``; options are those of ``hubbub.ws_bridge.Config``.
    """
    from hubbub._tasks import create_task_group
    from hubbub.ws_bridge import Config, serve

    async with create_task_group() as tasks:

        async def start(app: ASGIApp, **limits: Any) -> str:
            [(host, port)] = await tasks.start(partial(serve, app, port=0, config=Config(**limits)))
            return f"ws://{host}:{port}"

        yield start
        tasks.cancel_scope.cancel()
