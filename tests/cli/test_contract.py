from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import invoke

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "channels"), [("router", ["router"]), ("app", ["game", "2_other"])]
)
def test_asyncapi_prints_a_document(name: str, channels: list[str]) -> None:
    target = f"tests.router.messages:{name}"
    result = invoke("asyncapi", target, "--title", "Game", "--api-version", "2")
    assert result.exit_code == 0
    written = json.loads(result.output)
    assert written["info"] == {"title": "Game", "version": "2"}
    assert list(written["channels"]) == channels


@pytest.mark.parametrize(("name", "calls"), [("router", "Calls"), ("app", "GameCalls")])
def test_types_prints_a_module(name: str, calls: str) -> None:
    result = invoke("types", f"tests.router.messages:{name}")
    assert result.exit_code == 0
    assert result.output.startswith("// What goes over the wire")
    assert f"export type {calls} = {{" in result.output


@pytest.mark.parametrize("command", ["asyncapi", "types"])
@pytest.mark.parametrize("name", ["nothing", "ping"])
def test_what_has_no_router(command: str, name: str) -> None:
    result = invoke(command, f"tests.router.messages:{name}")
    assert result.exit_code == 1
    assert f"Expected a Router, or an App with one, got 'tests.router.messages:{name}'" in (
        result.output
    )


def test_an_application_from_elsewhere_made_by_a_function(tmp_path: Path) -> None:
    (tmp_path / "shop_of_messages.py").write_text(
        "from hubbub import Router\n\ndef make():\n    return Router()\n"
    )
    target = "shop_of_messages:make"
    for command in ("asyncapi", "types"):
        result = invoke(command, target, "--factory", "--app-dir", str(tmp_path))
        assert result.exit_code == 0
