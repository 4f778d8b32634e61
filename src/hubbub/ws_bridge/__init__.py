"""A WebSocket server for any ASGI application, on asyncio, uvloop and trio.

Only names live here. ``run`` and ``serve`` are the server; its parts can be used alone:
``serve_connection``, and below it the scope and the two channels of one connection.
"""

from hubbub.ws_bridge.channels import create_ws_receive as create_ws_receive
from hubbub.ws_bridge.channels import create_ws_send as create_ws_send
from hubbub.ws_bridge.config import Config as Config
from hubbub.ws_bridge.lifespan import StartupFailed as StartupFailed
from hubbub.ws_bridge.scope import build_ws_scope as build_ws_scope
from hubbub.ws_bridge.server import run as run
from hubbub.ws_bridge.server import serve as serve
from hubbub.ws_bridge.server import serve_connection as serve_connection
