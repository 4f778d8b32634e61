"""What is checked, and how: `nox` runs all that this machine can.

A session that lacks something says what, and skips; under CI=true it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import NoReturn

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"  # with a pip that is quicker than the Python's
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())
HERMETIC = "not servers and not interop and not browser"
MEASURED = "3.13"  # one is enough; 3.11 loses track of lines after a caught cancellation
IN_CI = os.environ.get("CI") == "true"

# pyenv's `python3.12` runs what PYENV_VERSION names: let it name all that there is.
if shutil.which("pyenv"):
    listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True).stdout
    series = [*PYTHONS, "2.7"]  # `python` is the first of them
    found = {version.rpartition(".")[0]: version for version in listed.split()}
    wanted = [found[name] for name in series if name in found]
    os.environ["PYENV_VERSION"] = ":".join(filter(None, [os.environ.get("PYENV_VERSION"), *wanted]))


def install(session: nox.Session, *groups: str, extras: str = "") -> None:
    requirements = nox.project.dependency_groups(PROJECT, *groups)
    session.install("-e", f".{extras}", *requirements)


def run_tests(session: nox.Session, marks: str, *command: str, workers: int = 4) -> None:
    """Several at a time, more than there are cores: half of a test's time it waits."""
    side_by_side = (f"--numprocesses={workers}", "--dist=worksteal")
    session.run(*command, "pytest", *side_by_side, "-m", marks, *session.posargs)


def lacks(session: nox.Session, what: str) -> NoReturn:
    """Skip for want of something, or fail where nothing may be wanting."""
    (session.error if IN_CI else session.skip)(f"{what} is not here")


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
    pins = [requirement.replace(">=", "==") for requirement in PROJECT["project"]["dependencies"]]
    session.install(*pins)
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
    if shutil.which("npm"):
        modules = session.create_tmp()
        npm = ("npm", "install", "--silent", "--prefer-offline", "--prefix", modules)
        session.run(*npm, "ws@8", external=True)
        session.env["NODE_PATH"] = str(Path(modules, "node_modules").resolve())
    run_tests(session, "interop", workers=0)  # some tests share what npm installs for them


@nox.session
def browser(session: nox.Session) -> None:
    """The demo in a real browser."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        lacks(session, "Chromium")
    install(session, "tests", "browser", extras="[demo]")
    run_tests(session, "browser", workers=2)  # each with a Chromium, which has processes enough


@nox.session
def autobahn(session: nox.Session) -> None:
    """The Autobahn testsuite against server and client: a sample, or with `-- --all` all of it."""
    python = shutil.which("python2.7")
    if python is None:
        lacks(session, "Python 2.7")
    suite = f"{session.create_tmp()}/suite"
    pip = [python, "-W", "ignore", "-m", "pip", "install", "-qq", "--target", suite]
    if not Path(suite).exists():
        session.run(*pip, "autobahntestsuite==25.10.1", external=True)
    install(session, extras="[cli,fast,trio]")
    session.run("python", "-m", "tests.autobahn", python, suite, *session.posargs)


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
