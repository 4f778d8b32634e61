"""``hubbub demo``: a chat to try.

The demo itself lives in ``hubbub.demo``. A command of ``cli``.
"""

from __future__ import annotations

from ipaddress import ip_address

import typer

from hubbub.cli.terminal import (
    Backend,
    BackendOption,
    HostOption,
    PortOption,
    explain,
    fail,
    join,
    require,
)

__all__ = ("demo",)


def demo(
    backend: BackendOption = Backend.TRIO,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
) -> None:
    """Run a chat: open its page in two tabs and talk."""
    require("demo", "hypercorn", "starlette", "trio")
    if backend is Backend.UVLOOP:
        require("demo", "uvloop")
    from hubbub.demo import serve

    try:
        sock = serve.listen(host, port)
    except OSError as error:
        fail(f"Cannot listen on {join(host, port)}: {explain(error)}")
    address, port = sock.getsockname()[:2]
    # Some browsers cannot go to the address that stands for all addresses.
    url = f"http://{join('localhost' if ip_address(address).is_unspecified else host, port)}"
    line = f"hubbub demo: open {url} in your browser ({backend}; Ctrl-C stops it)"
    serve.run(sock, backend, lambda: typer.echo(line))
