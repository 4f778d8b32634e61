"""An application, found by its name ``module:app``.

What is done with it is not known here. Used by the commands that take one.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from hubbub.cli.terminal import fail

__all__ = ("load",)


def load(target: str) -> Any:
    """Import an application, from the current directory first.

    Args:
        target: ``module:app``.
    """
    module_name, separator, name = target.partition(":")
    if not (module_name and separator and name):
        fail(f"Expected MODULE:APP, got {target!r}")
    sys.path.insert(0, "")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if not (error.name and f"{module_name}.".startswith(f"{error.name}.")):
            raise  # the module is there, and what it imports is not
        fail(f"There is no module {module_name!r} here, nor installed")
    application = getattr(module, name, None)
    if not callable(application):
        fail(f"Module {module_name!r} has no application {name!r}")
    return application
