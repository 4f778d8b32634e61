"""The message contract on a connection: typed handlers, replies, errors, requests to the peer."""

from hubbub.codecs.envelope import Envelope as Envelope
from hubbub.exceptions import RouterError as RouterError
from hubbub.router.limits import RateLimit as RateLimit
from hubbub.router.router import Router as Router
from hubbub.router.routes import Context as Context
from hubbub.router.routes import Proceed as Proceed
