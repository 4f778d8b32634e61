"""A WebSocket client, on asyncio, uvloop and trio.

Only names live here. ``connect`` is one connection; what it gives is a ``ClientWebSocket``.
"""

from hubbub.client.connecting import ConnectOptions as ConnectOptions
from hubbub.client.connecting import connect as connect
from hubbub.client.websocket import ClientWebSocket as ClientWebSocket
