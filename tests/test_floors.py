"""The house stands: imports go down only, and no loop is imported by name."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hubbub

ROOT = Path(hubbub.__file__).parent
PAGE = Path(__file__).parent.parent / "ARCHITECTURE.md"
FLOORS = {
    room.strip(" /"): int(floor)
    for rooms, floor in re.findall(
        r"^  (\w[\w, /]*?) {2,}(\d) {2,}\S", PAGE.read_text(), re.MULTILINE
    )
    for room in rooms.split(",")
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """What a file imports, `if TYPE_CHECKING` and functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str:
    """The room of the house that a module is in: its first name below the package."""
    return module.split(".")[1] if "." in module else "__init__"


TOOLKIT = {
    *("websocket", "outbox", "room", "hub", "running", "senders", "sockets", "inbox", "app"),
    *("router", "calls", "origins"),
}
WIRE = {"wire", "ws_bridge"}
FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
IMPORTS = {
    module: {
        next(name for name in (imported, imported.rpartition(".")[0]) if name in FILES)
        for imported in imports(path)
        if imported.split(".")[0] == "hubbub"
    }
    for module, path in FILES.items()
}


def test_the_page_names_every_room_and_no_other() -> None:
    assert {room(module) for module in FILES} == set(FLOORS)


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module: str) -> None:
    for imported in IMPORTS[module] - {module}:
        if room(imported) != room(module):
            assert FLOORS[room(imported)] <= FLOORS[room(module)], f"{module} -> {imported}"


@pytest.mark.parametrize("module", FILES)
def test_the_wings_do_not_import_each_other(module: str) -> None:
    other = WIRE if room(module) in TOOLKIT else TOOLKIT if room(module) in WIRE else set()
    assert not {room(imported) for imported in IMPORTS[module]} & other


def test_there_are_no_circles() -> None:
    order = tuple(TopologicalSorter(IMPORTS).static_order())
    assert order[-1] in FILES


@pytest.mark.parametrize("module", FILES)
def test_no_loop_is_imported_by_name(module: str) -> None:
    loops = {name.split(".")[0] for name in imports(FILES[module])} & {"asyncio", "trio"}
    assert not loops or module == "hubbub.testing.clock"


@pytest.mark.parametrize("module", FILES)
def test_no_clock_is_read_but_the_loop_s(module: str) -> None:
    clocks = {name for name in imports(FILES[module]) if name.split(".")[0] == "time"}
    if module == "hubbub.client.connection":  # measures, and decides nothing by it
        clocks -= {"time.perf_counter"}
    assert not clocks


@pytest.mark.parametrize("module", FILES)
def test_only_those_who_talk_to_a_server_know_its_events(module: str) -> None:
    if room(module) not in {"websocket", "sockets", "ws_bridge", "testing"}:
        assert '"websocket.' not in FILES[module].read_text()
