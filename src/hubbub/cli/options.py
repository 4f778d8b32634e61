"""The fields of Config as options of a command, so that none can be forgotten.

Names, defaults and help are Config's own; how a value is written on a terminal lives here.
Used by serve.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from functools import partial, wraps
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_type_hints

import typer

from hubbub.ws_bridge import Config

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field

__all__ = ("config_options",)

_MADE_OF_FILES: Final = "ssl"  # whose paths are options
_NONE: Final = "none"
_PANEL: Final = "Limits and choices (times in seconds, sizes in bytes)"
_WORDS: Final = {int: "a whole number", float: "a number", str: "a text"}
_TYPES: Final = get_type_hints(Config)
_HELP: Final = {
    name: " ".join(text.replace("``", "").replace("None", _NONE).split())
    for name, text in re.findall(
        r"^    (\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(Config) or "", re.MULTILINE
    )
}


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of Config; it is called with a ``config``."""
    chosen = [field for field in fields(Config) if field.name != _MADE_OF_FILES]

    @wraps(command)
    def with_config(**given: Any) -> None:
        values = {field.name: given.pop(field.name) for field in chosen}
        origins = [None if origin == _NONE else origin for origin in values["origins"]]
        config = Config(**{**values, "origins": origins or None})
        command(**given, config=config)

    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [parameter for parameter in own if parameter.name != "config"]
    parameters += map(_parameter, chosen)
    with_config.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    with_config.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_config


def _parameter(field: Field[Any]) -> Parameter:
    """Make what typer takes for an option."""
    name, default = field.name, field.default
    option = partial(typer.Option, help=_HELP.get(name), rich_help_panel=_PANEL)
    annotation: Any
    if _TYPES[name] is bool:
        annotation = Annotated[bool, option()]
    elif name == "origins":
        annotation = Annotated[list[str], option("--origin")]
        default = []
    else:
        annotation = Annotated[str, option(parser=partial(_read, name), metavar=_metavar(name))]
        default = _NONE if default is None else str(default)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _metavar(name: str) -> str:
    kind, optional = _kind(name)
    what = "BYTES" if name.endswith("_size") else {int: "N", float: "SECONDS", str: "TEXT"}[kind]
    return f"{what}|{_NONE}" if optional else what


def _read(name: str, text: str) -> Any:
    """Read a value as Config wants it."""
    kind, optional = _kind(name)
    if optional and text == _NONE:
        return None
    try:
        value = kind(text)
    except ValueError:
        wanted = f"{_WORDS[kind]} or {_NONE!r}" if optional else _WORDS[kind]
        raise typer.BadParameter(f"Expected {wanted}, got {text!r}") from None
    try:
        Config(**{name: value})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return value


def _kind(name: str) -> tuple[type, bool]:
    """Give the type of a field, and whether it may be None."""
    kind, *none = get_args(_TYPES[name]) or [_TYPES[name]]
    return kind, bool(none)
