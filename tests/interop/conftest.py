"""Everything here needs something that others have made: locally it may be missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NODE_PACKAGES = ("@asyncapi/specs@6.11.1", "typescript@5.9.3", "ws@8")


def lacks(what: str) -> NoReturn:
    """Skip for want of something, or fail where nothing may be wanting."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is not here")


def require(module: str) -> None:
    if find_spec(module) is None:
        lacks(module)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with Node's packages installed in it."""
    npm = shutil.which("npm")
    if npm is None:
        lacks("npm")
    folder = tmp_path_factory.mktemp("node")
    # In a directory of its own: without a prefix npm takes the next one above that has packages.
    command = [npm, "install", "--silent", "--prefer-offline", f"--prefix={folder}", *NODE_PACKAGES]
    if subprocess.run(command, check=False).returncode:
        lacks("the registry of npm")
    return folder
