"""What the front door shows, and that every module says what is public."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import hubbub

MODULES = [
    info.name
    for info in pkgutil.walk_packages(hubbub.__path__, "hubbub.")
    if not info.ispkg and not info.name.endswith("__main__")
]


def public_names() -> set[str]:
    return {
        name
        for name, value in vars(hubbub).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("hubbub.")
    }


def test_the_front_door_is_small() -> None:
    assert {"App", "Hub", "Member", "WebSocket", "WebSocketDisconnect"} <= public_names()
    assert len(public_names()) <= 20


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    names = module.__all__
    assert isinstance(names, tuple)
    assert len(set(names)) == len(names)
    assert all(hasattr(module, name) for name in names)
