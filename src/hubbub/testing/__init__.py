"""A testing kit for ASGI WebSocket applications, in the test's own event loop.

Only names live here. ``TestClient`` is an application's peers; the rest is what goes wrong.
"""

from hubbub.testing.client import TestClient as TestClient
from hubbub.testing.failures import Rejected as Rejected
from hubbub.testing.peer import Peer as Peer
from hubbub.testing.profiles import PROFILES as PROFILES
from hubbub.testing.profiles import Profile as Profile
