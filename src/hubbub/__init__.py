"""hubbub: WebSockets and rooms for asyncio, uvloop and trio, under any ASGI server.

The front door: what an application needs, and nothing else. The rest is a module away.
"""

from hubbub.app import App as App
from hubbub.broadcast import Delivery as Delivery
from hubbub.client import connect as connect
from hubbub.client import reconnecting as reconnecting
from hubbub.exceptions import DecodeError as DecodeError
from hubbub.exceptions import HubbubError as HubbubError
from hubbub.exceptions import MessageTooBig as MessageTooBig
from hubbub.exceptions import RouterError as RouterError
from hubbub.exceptions import WebSocketDisconnect as WebSocketDisconnect
from hubbub.hub import Hub as Hub
from hubbub.member import Member as Member
from hubbub.policies import Block as Block
from hubbub.policies import Coalesce as Coalesce
from hubbub.policies import Disconnect as Disconnect
from hubbub.policies import DropNewest as DropNewest
from hubbub.policies import DropOldest as DropOldest
from hubbub.room import Room as Room
from hubbub.router import Router as Router
from hubbub.websocket import WebSocket as WebSocket
from hubbub.websocket import WebSocketState as WebSocketState

__version__ = "0.1.0"
