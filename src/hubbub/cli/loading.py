"""An application, found by its name ``module:app``, or why it cannot be found.

What is done with it is not known here. Used by the commands that take one.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from hubbub.cli.terminal import fail

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("load",)


def load(target: str, *, app_dir: Path, factory: bool = False) -> Any:
    """Import an application.

    Args:
        target: ``module:app``; the part behind the colon may be dotted.
        app_dir: a directory to find the module in, before all others.
        factory: whether the name is that of a function without arguments that makes it.

    Raises:
        SystemExit: if it cannot be imported; stderr says why.
    """
    module_name, separator, name = target.partition(":")
    if not (module_name and separator and name):
        fail(f"Expected MODULE:APP, got {target!r}")
    sys.path.insert(0, str(app_dir.resolve()))
    application = _find(module_name, name)
    if factory:
        _check_callable(application, target, "a function that makes an application")
        try:
            application = application()
        except Exception as error:  # the border to the application
            fail(f"{target} failed to make an application:\n{_trace(error)}")
        target += "()"
    _check_callable(application, target, "an ASGI application")
    return application


def _find(module_name: str, name: str) -> Any:
    try:
        module = import_module(module_name)
    except Exception as error:  # the border to the application
        if isinstance(error, ModuleNotFoundError) and _is_within(error.name, module_name):
            fail(f"There is no module {error.name!r} in {sys.path[0]}, nor installed")
        fail(f"Module {module_name!r} failed when it was imported:\n{_trace(error)}")
    try:
        return attrgetter(name)(module)
    except AttributeError:
        fail(f"Module {module_name!r} has no {name!r}")


def _is_within(missing: str | None, module_name: str) -> bool:
    """Tell whether it is the wanted module that is missing, or a package that it is in."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _check_callable(found: object, target: str, wanted: str) -> None:
    if not callable(found):
        fail(f"Expected {target} to be {wanted}, got {type(found).__name__}")


def _trace(error: Exception) -> str:
    """Format an error, from the first frame on that is the application's."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _NOT_THE_APPLICATIONS:
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames)
    return "".join(lines).rstrip()


_NOT_THE_APPLICATIONS = frozenset(
    {
        __file__,
        import_module.__code__.co_filename,
        "<frozen importlib._bootstrap>",
        "<frozen importlib._bootstrap_external>",
    }
)
