"""Proxies: which one leads to a target, and a stream through it, by python-socks.

The only file that knows python-socks (the ``proxy`` extra), which it imports when there is a
proxy. Used by connect and dialing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import anyio
from yarl import URL

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from hubbub.client.target import Target

__all__ = ("connect_through", "find_proxy")

_VARIABLES: Final = {True: ("wss", "https"), False: ("ws", "http")}
"""With and without TLS: which ``*_proxy`` counts, before ``socks_proxy`` and ``all_proxy``."""

_SCHEMES: Final = {
    "http": "http",
    "socks4": "socks4",
    "socks4a": "socks4",
    "socks5": "socks5",
    "socks5h": "socks5",
}
_SOCKS_PORT: Final = 1080


def find_proxy(target: Target) -> str | None:
    """Ask the environment for the proxy to a target; ``no_proxy`` is heeded."""
    from urllib.request import getproxies, proxy_bypass  # slow to import

    if target.path is not None or proxy_bypass(f"{target.host}:{target.port}"):
        return None
    proxies = getproxies()
    names = (*_VARIABLES[target.secure], "socks", "all")
    return next((proxies[name] for name in names if name in proxies), None)


async def connect_through(proxy: str, target: Target, local: tuple[str, int] | None) -> ByteStream:
    """Connect to a target through a proxy, which resolves its name, unless it speaks SOCKS 4.

    Raises:
        ImportError: if python-socks is not installed.
        OSError: if the proxy is not there, or does not let us through.
        ValueError: if it is neither an HTTP nor a SOCKS proxy.
    """
    try:
        from python_socks import ProxyError
        from python_socks.async_.anyio.v2 import Proxy
    except ImportError as error:
        raise ImportError(
            f"python-socks package required for the proxy {proxy}. "
            'Install with: pip install "hubbub[proxy]"; or go without: proxy=False'
        ) from error
    url = URL(proxy if "://" in proxy else f"http://{proxy}")
    if url.scheme not in _SCHEMES:
        raise ValueError(f"Expected a proxy of http, socks4 or socks5, got {url.scheme}")
    rdns = url.scheme != "socks4"
    url = url.with_port(url.port or _SOCKS_PORT).with_scheme(_SCHEMES[url.scheme])
    options: dict[str, Any] = {}
    if local is not None:
        host, port = local
        # anyio takes a local port since 4.14; most callers want none.
        options = {"local_host": host, "local_port": port} if port else {"local_host": host}
    try:
        # Without a deadline of its own: connect has one.
        stream = await Proxy.from_url(str(url), rdns=rdns).connect(
            target.host, target.port, timeout=math.inf, **options
        )
    except (ProxyError, anyio.BrokenResourceError) as error:
        raise ConnectionError(f"The proxy {url.host} does not let us through: {error}") from error
    return stream.anyio_stream
