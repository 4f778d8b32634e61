from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from hubbub.ws_bridge import Config


def test_the_defaults() -> None:
    config = Config()
    assert config.max_message_size == 16 * 2**20
    assert (config.max_queue, config.max_handshake_size) == (16, 65536)
    assert (config.handshake_timeout, config.close_timeout, config.write_timeout) == (10, 5, 30)
    assert (config.ping_interval, config.ping_timeout, config.shutdown_timeout) == (20, 20, 10)
    assert (config.max_connections, config.origins, config.ssl) == (None, None, None)
    assert config.deflate


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().max_queue = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_message_size", 0),
        ("max_queue", -1),
        ("close_timeout", 0.0),
        ("write_timeout", float("nan")),
        ("server_header", "a\r\nb"),
        ("server_header", ""),
        ("root_path", "app"),
        ("root_path", "/app/"),
    ],
)
def test_what_cannot_be_meant_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Expected {field}"):
        Config(**{field: value})


def test_origins_are_a_list() -> None:
    with pytest.raises(TypeError, match="Expected origins as a list"):
        Config(origins="https://example.org")


def test_what_may_be_switched_off() -> None:
    Config(max_message_size=None, ping_interval=None, server_header=None, root_path="/app")
