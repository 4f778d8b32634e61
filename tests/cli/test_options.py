"""Config's fields as options: none is missing, and what is written is what Config gets."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from hubbub.cli.options import config_options
from hubbub.ws_bridge import Config

if TYPE_CHECKING:
    from typer.testing import Result

WRITTEN: dict[str, tuple[list[str], Any]] = {
    "max_message_size": (["--max-message-size", "70000"], 70000),
    "max_queue": (["--max-queue", "3"], 3),
    "handshake_timeout": (["--handshake-timeout", "1.5"], 1.5),
    "max_handshake_size": (["--max-handshake-size", "1000"], 1000),
    "close_timeout": (["--close-timeout", "none"], None),
    "ping_interval": (["--ping-interval", "7"], 7.0),
    "ping_timeout": (["--ping-timeout", "none"], None),
    "write_timeout": (["--write-timeout", "0.1"], 0.1),
    "grace_timeout": (["--grace-timeout", "2"], 2.0),
    "max_connections": (["--max-connections", "10"], 10),
    "deflate": (["--no-deflate"], False),
    "origins": (["--origin", "https://a.example", "--origin", "none"], ["https://a.example", None]),
    "shutdown_timeout": (["--shutdown-timeout", "none"], None),
    "server_header": (["--server-header", "none"], None),
    "root_path": (["--root-path", "/api"], "/api"),
}


def invoke(*arguments: str) -> tuple[Result, Config | None]:
    """Run a command with these options alone; give what it was called with."""
    got: list[Config] = []

    def command(*, config: Config) -> None:
        got.append(config)

    app = typer.Typer()
    app.command()(config_options(command))
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}), got[0] if got else None


def test_every_field_is_tried_here() -> None:
    assert set(WRITTEN) == {field.name for field in fields(Config)} - {"ssl"}


def test_without_options_it_is_the_default() -> None:
    assert invoke()[1] == Config()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_field_is_what_was_written(name: str) -> None:
    arguments, value = WRITTEN[name]
    assert value != getattr(Config(), name)
    result, config = invoke(*arguments)
    assert result.exit_code == 0
    assert config == Config(**{name: value})


@pytest.mark.parametrize("name", WRITTEN)
def test_help_explains_it(name: str) -> None:
    option = WRITTEN[name][0][0]
    [line] = [line for line in invoke("--help")[0].output.splitlines() if f"{option} " in line]
    assert len(line.split()) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--max-queue", "0"),
            "Invalid value for '--max-queue': Expected max_queue above 0, got 0",
        ),
        (("--max-queue", "none"), "Expected a whole number, got 'none'"),
        (("--max-connections", "1.5"), "Expected a whole number or 'none', got '1.5'"),
        (("--ping-interval", "soon"), "Expected a number or 'none', got 'soon'"),
        (("--close-timeout", "nan"), "Expected close_timeout above 0, got nan"),
        (("--root-path", "api/"), "Expected root_path to begin, and not to end, with '/'"),
        (("--server-header", "a\nb"), "Expected server_header in ASCII"),
    ],
)
def test_what_cannot_be_meant_is_explained_in_a_line(
    arguments: tuple[str, ...], message: str
) -> None:
    result, config = invoke(*arguments)
    assert result.exit_code == 2
    assert config is None
    assert any(message in line for line in result.output.splitlines())
