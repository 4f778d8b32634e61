"""The demo's listening socket; its serving is tested through the command line."""

from __future__ import annotations

import socket

import pytest

from hubbub.demo.serve import listen


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
def test_a_peer_that_is_stuck_or_gone_is_given_up_by_the_kernel() -> None:
    with listen("127.0.0.1", 0) as sock:
        client = socket.create_connection(sock.getsockname())
        accepted, _ = sock.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 40_000
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_where_the_kernel_has_no_such_option_it_does_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    with listen("127.0.0.1", 0) as sock:
        socket.create_connection(sock.getsockname()).close()


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_the_host_says_which_kind_of_address(host: str, family: socket.AddressFamily) -> None:
    with listen(host, 0) as sock:
        assert sock.family is family
        assert sock.getsockname()[0] == host
