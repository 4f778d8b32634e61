"""What is checked: `nox` runs all that this machine can. What it lacks it skips; in CI it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"  # with a pip that is quicker than the Python's
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())
HERMETIC = "not servers and not interop and not browser"
MEASURED = "3.13"  # one is enough; 3.11 loses track of lines after a caught cancellation
missing = nox.Session.error if os.environ.get("CI") == "true" else nox.Session.skip

# pyenv's `python3.12` runs what PYENV_VERSION names: let it name all that there is.
if shutil.which("pyenv"):
    versions = subprocess.check_output(["pyenv", "versions", "--bare"], text=True)
    os.environ["PYENV_VERSION"] = ":".join(reversed(versions.split()))


def install(session: nox.Session, *groups: str, extras: str = "") -> None:
    session.install("-e", f".{extras}", *nox.project.dependency_groups(PROJECT, *groups))


def run_tests(session: nox.Session, marks: str, *command: str, workers: int = 4) -> None:
    """Several at a time, more than there are cores: half of a test's time it waits."""
    pytest = (*command, "pytest", f"-n{workers}", "--dist=worksteal", "-m", marks)
    session.run(*pytest, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format and dead code."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Types by two checkers, which find different things."""
    install(session, "dev", extras="[demo]")
    session.run("mypy")
    session.run("basedpyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite on every backend; on one Python, to the last branch."""
    install(session, "tests", extras="[demo]")
    if session.python != MEASURED:
        run_tests(session, HERMETIC)
        return
    session.env["COVERAGE_FILE"] = str(Path(session.bin, "../.coverage").resolve())
    session.run("coverage", "erase")
    run_tests(session, HERMETIC, "coverage", "run", "-m")
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The suite with the oldest versions of what the core needs."""
    install(session, "tests", extras="[demo]")
    session.install(*[each.replace(">=", "==") for each in PROJECT["project"]["dependencies"]])
    run_tests(session, HERMETIC)


@nox.session
def servers(session: nox.Session) -> None:
    """The wrapper and the rooms on real ASGI servers."""
    install(session, "tests", "servers", extras="[demo]")
    run_tests(session, "servers")


@nox.session
def interop(session: nox.Session) -> None:
    """The server with what others have made: clients, programs and frameworks."""
    install(session, "tests", "interop", extras="[demo]")
    run_tests(session, "interop", workers=0)  # they share what npm installs for them


@nox.session
def browser(session: nox.Session) -> None:
    """The demo in a real browser."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        missing(session, "Chromium is not here")
    install(session, "tests", "browser", extras="[demo]")
    run_tests(session, "browser", workers=2)  # each with a Chromium, which has processes enough


@nox.session
def autobahn(session: nox.Session) -> None:
    """The Autobahn testsuite against server and client: a sample, or with `-- --all` all of it."""
    if not shutil.which("python2.7"):
        missing(session, "Python 2.7 is not here")
    install(session, extras="[cli,fast,trio]")
    session.run("python", "-m", "tests.autobahn", session.create_tmp(), *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """The wheel, alone in a clean environment."""
    dist = Path(session.create_tmp(), "dist").resolve()
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(dist), ".")
    [wheel] = dist.glob("*.whl")
    session.install(str(wheel))
    session.run("python", "-W", "error", "tests/smoke.py", str(wheel))
    session.install(f"{wheel}[demo]")
    session.run("hubbub", "--version")
