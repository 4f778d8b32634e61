from __future__ import annotations

from quart import Quart
from quart_trio import QuartTrio

from tests.interop.apps import quart_app


def make_app(ends: list[object]) -> Quart:
    return quart_app.make_app(ends, QuartTrio)
