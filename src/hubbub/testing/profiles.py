"""Profiles: how the ASGI servers differ from the specification, as a table of facts.

What an application and its peer can see of a server, and nothing of how it is run. TestClient
follows it; the tests of the real servers check every line of it against the server that it names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("PROFILES", "Profile", "Send")

Send: TypeAlias = Literal["waits", "shielded", "buffers"]
"""What a send to a peer that does not read does: it ``waits``, and can be cancelled; it waits
``shielded`` from cancellation; it ``buffers`` without a bound, and never waits."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A server, as an application and its peer see it.

    The defaults are what ASGI 2.5 says, and hubbub's own server does. Codes that a peer sees
    may be 1005, a close frame without a code, and 1006, an end without a close frame.
    """

    name: str

    # -- What the application is told of the peer ----------------------------------------
    spec_version: str | None = "2.5"
    lifespan: bool = True
    """Lifespan events, and with them ``state``."""
    joins_headers: bool = False
    """Repeated headers are joined, with a comma between the values."""
    both_keys: bool = False
    """An event has both of ``text`` and ``bytes``, one of them None."""

    # -- What it is told of the end ------------------------------------------------------
    tells_code: bool = True
    """The peer's close code; otherwise 1006 for all."""
    tells_reason: bool = True
    no_code: int | None = 1005
    """The code that stands for a close frame without one."""
    abort_code: int = 1006
    """The code that stands for a lost connection."""
    own_code: int | None = None
    """The code that stands for the application's own close, without a reason; None: that close's
    own code and reason."""
    refusal_code: int = 1006
    """The code that stands for the application's refusal."""
    second_receive: Literal["same", "no status", "blocks"] = "same"
    """What a receive after the first disconnect does: it returns the ``same`` event, or one with
    1005 (``no status``), or it ``blocks`` for ever."""
    blocks_after_abort: bool = False
    """It blocks for ever when the connection was lost."""
    tells_senders: bool = True
    """A send after the peer's end fails; otherwise only a receive tells."""
    second_close: bool = True
    """Closing twice fails; otherwise it does nothing."""
    send_after_close: bool = True
    """A send after the application's own close fails; otherwise it does nothing."""
    send: Send = "waits"

    # -- What the peer gets to see -------------------------------------------------------
    accept_headers: bool = True
    empty_messages: bool = True
    """The application's empty messages are sent."""
    sends_reason: bool = True
    """The reason of the application's close is sent."""
    sends_1xxx: bool = True
    """Close codes of 1001-2999 are sent; otherwise they fail."""
    denial: bool = True
    """The application's HTTP response is sent; otherwise its events do nothing."""
    denial_in_parts: bool = True
    """Its body may come in more than one part; otherwise that fails, and is no answer."""
    returned_early: int | None = 500
    """The status when the application returned without an answer; None for no response."""
    failed_early: int = 500
    """The status when it raised before it answered."""
    returned: int | None = 1000
    """The close code when it returned without closing; None: the connection stays open."""
    failed: int = 1011
    """The close code when it raised."""


_SPECIFICATION: Final = Profile(name="asgi")
_HYPERCORN: Final = Profile(
    name="hypercorn-asyncio",
    spec_version="2.3",
    both_keys=True,
    tells_code=False,
    tells_reason=False,
    own_code=1000,
    refusal_code=1000,
    second_receive="blocks",
    tells_senders=False,
    second_close=False,
    returned=1011,
)
_UVICORN: Final = Profile(
    name="uvicorn-sansio",
    spec_version="2.4",
    abort_code=1005,
    second_receive="no status",
    blocks_after_abort=True,
    returned=1006,
    failed=1006,
)
_GRANIAN: Final = Profile(
    name="granian",
    spec_version="2.3",
    tells_reason=False,
    abort_code=1005,
    own_code=1005,
    refusal_code=1005,
    second_receive="no status",
    tells_senders=False,
    second_close=False,
    send_after_close=False,
    accept_headers=False,
    denial_in_parts=False,
    returned_early=403,
    failed_early=403,
    returned=1005,
    failed=1005,
)
_DAPHNE: Final = Profile(
    name="daphne",
    spec_version=None,
    lifespan=False,
    joins_headers=True,
    tells_reason=False,
    no_code=None,
    second_receive="blocks",
    tells_senders=False,
    second_close=False,
    send="buffers",
    accept_headers=False,
    empty_messages=False,
    sends_reason=False,
    sends_1xxx=False,
    denial=False,
    returned_early=None,
    returned=None,
)

PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        _SPECIFICATION,
        replace(_HYPERCORN, name="hypercorn-trio", send="shielded"),
        _HYPERCORN,
        replace(_HYPERCORN, name="hypercorn-uvloop"),
        _UVICORN,
        replace(_UVICORN, name="uvicorn-wsproto"),
        replace(
            _UVICORN,
            name="uvicorn-legacy",
            abort_code=1006,
            own_code=1005,
            blocks_after_abort=False,
        ),
        _GRANIAN,
        _DAPHNE,
    )
}
"""The servers that are known, by their names."""
