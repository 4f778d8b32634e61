"""A WebSocket client, on asyncio, uvloop and trio.

Only names live here. ``connect`` is one connection, ``reconnecting`` is one after the other; both
give a ``ClientWebSocket``.
"""

from hubbub.backoff import Backoff as Backoff
from hubbub.client.connecting import ConnectOptions as ConnectOptions
from hubbub.client.connecting import connect as connect
from hubbub.client.reconnection import ReconnectEvent as ReconnectEvent
from hubbub.client.reconnection import ReconnectState as ReconnectState
from hubbub.client.reconnection import is_final as is_final
from hubbub.client.reconnection import reconnecting as reconnecting
from hubbub.client.websocket import ClientWebSocket as ClientWebSocket
