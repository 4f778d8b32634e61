"""A testing kit for ASGI WebSocket applications, in the test's own event loop.

Only names live here. ``TestClient`` plays an application's peers; the rest is for what goes
wrong, and for time.
"""

from hubbub.testing.cancelling import cancel_at as cancel_at
from hubbub.testing.client import TestClient as TestClient
from hubbub.testing.clock import virtual_clock as virtual_clock
from hubbub.testing.failures import Rejected as Rejected
from hubbub.testing.peer import Peer as Peer
from hubbub.testing.profiles import PROFILES as PROFILES
from hubbub.testing.profiles import Profile as Profile
from hubbub.testing.streams import FaultyStream as FaultyStream
from hubbub.testing.streams import MemoryStream as MemoryStream
from hubbub.testing.streams import memory_streams as memory_streams
from hubbub.testing.wire_client import WireClient as WireClient
