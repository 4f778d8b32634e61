"""Applications by their names, and why there is none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from hubbub.cli.loading import load

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
class site:
    def app(): pass

app = site.app
number = 1

def make():
    return app

def make_none():
    pass

def fail():
    raise LookupError("no settings")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that no other test has imported, with others beside it."""
    name = f"served_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / f"{name}_needy.py").write_text("\nimport no_such_module")
    (tmp_path / f"{name}_wrong.py").write_text("\ndef :")
    package = tmp_path / f"{name}_package"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


@pytest.mark.parametrize(("name", "factory"), [("app", False), ("site.app", False), ("make", True)])
def test_an_application_is_found(module: str, name: str, factory: bool, tmp_path: Path) -> None:
    application = load(f"{module}:{name}", app_dir=tmp_path, factory=factory)
    assert application is sys.modules[module].app


def test_the_directory_comes_before_all_others(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / f"{module}.py").write_text("def app(): pass")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    application = load(f"{module}:app", app_dir=tmp_path.joinpath("sub").relative_to(tmp_path))
    assert sys.modules[module].__file__ == str(tmp_path / "sub" / f"{module}.py")
    assert application is sys.modules[module].app


@pytest.mark.parametrize(
    ("target", "factory", "message"),
    [
        ("app", False, "Expected MODULE:APP, got 'app'"),
        (":app", False, "Expected MODULE:APP, got ':app'"),
        ("{}:", False, "Expected MODULE:APP, got '{}:'"),
        ("no_such:app", False, "There is no module 'no_such' in {dir}, nor installed"),
        ("no_such.at_all:app", False, "There is no module 'no_such' in {dir}, nor installed"),
        (
            "{}_package.sub:app",
            False,
            "There is no module '{}_package.sub' in {dir}, nor installed",
        ),
        ("{}:other", False, "Module '{}' has no 'other'"),
        ("{}:site.other", False, "Module '{}' has no 'site.other'"),
        ("{}:number", False, "Expected {}:number to be an ASGI application, got int"),
        (
            "{}:number",
            True,
            "Expected {}:number to be a function that makes an application, got int",
        ),
        ("{}:make_none", True, "Expected {}:make_none() to be an ASGI application, got NoneType"),
    ],
)
def test_what_is_none_is_explained_in_a_line(
    module: str,
    target: str,
    factory: bool,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        load(target.format(module), app_dir=tmp_path, factory=factory)
    assert end.value.code == 1
    assert capsys.readouterr().err == message.format(module, dir=tmp_path) + "\n"


@pytest.mark.parametrize(
    ("target", "factory", "first", "file", "last"),
    [
        (
            "{}_needy:app",
            False,
            "Module '{}_needy' failed when it was imported:",
            '  File "{dir}/{}_needy.py", line 2, in <module>',
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            "{}_wrong:app",
            False,
            "Module '{}_wrong' failed when it was imported:",
            '  File "{dir}/{}_wrong.py", line 2',
            "SyntaxError: invalid syntax",
        ),
        (
            "{}:fail",
            True,
            "{}:fail failed to make an application:",
            '  File "{dir}/{}.py", line 15, in fail',
            "LookupError: no settings",
        ),
    ],
)
def test_an_error_of_the_application_is_shown_from_its_own_first_line(
    module: str,
    target: str,
    factory: bool,
    first: str,
    file: str,
    last: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        load(target.format(module), app_dir=tmp_path, factory=factory)
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == first.format(module)
    assert [line for line in lines if "File " in line] == [file.format(module, dir=tmp_path)]
    assert lines[-1] == last
