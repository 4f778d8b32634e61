"""Everything here needs something that others have made: locally it may be missing."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Skip for want of something, or fail where nothing may be wanting."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is not here")


def require(module: str) -> None:
    if find_spec(module) is None:
        lacks(module)
