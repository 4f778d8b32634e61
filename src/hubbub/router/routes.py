"""Route: what becomes of messages of one type; and what a handler asks for.

A handler's signature is read once, when it is registered: which parameter is filled with what,
and what the payload has to be. No connection lives here. Made by Router, used by sessions.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, get_origin

import msgspec

from hubbub.codecs.envelope import ERROR, MAX_TYPE, REPLY, Envelope
from hubbub.codecs.payload import PayloadType
from hubbub.member import Member
from hubbub.router.connection import is_connection
from hubbub.router.lanes import ORDERED

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = (
    "Context",
    "Handler",
    "Key",
    "Middleware",
    "Mode",
    "Proceed",
    "Route",
    "Signature",
    "check_type",
)

Handler: TypeAlias = Callable[..., Awaitable[Any]] | Callable[..., AsyncIterator[Any]]
"""An async function, whose result is the reply, or an async generator, which has several."""

Mode: TypeAlias = Literal["ordered", "concurrent", "keyed"]
Key: TypeAlias = "Callable[[Any], Hashable]"


class Context(msgspec.Struct):
    """One message on its way to its handler.

    Attributes:
        ws: the connection that it came from.
        member: the connection in a hub's rooms, if the router joined it.
        envelope: the message as it came.
        payload: its payload, of the type that the handler asks for; None if it asks for none.
    """

    ws: Any
    member: Member | None
    envelope: Envelope
    payload: Any


Proceed: TypeAlias = Callable[[Context], Awaitable[Any]]
Middleware: TypeAlias = Callable[[Context, Proceed], Awaitable[Any]]
"""``async def middleware(context, proceed)``: awaits ``proceed(context)``, or does not, and
returns the reply: the handler's, or another. For an async generator it is that generator."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a handler asks for, and what it returns.

    Attributes:
        getters: one for each parameter, which takes its argument from a ``Context``.
        payload: what the payload has to be; None when the handler does not ask for it.
        returns: the annotation of what it returns, or yields; ``Any`` when there is none.
        streams: whether it is an async generator.
    """

    getters: tuple[Callable[[Context], Any], ...]
    payload: PayloadType | None
    returns: Any
    streams: bool

    @classmethod
    def of(cls, handler: Handler) -> Signature:
        """Read a handler's signature.

        Raises:
            TypeError: if it is no async function, or asks for what cannot be given.
        """
        streams = inspect.isasyncgenfunction(handler)
        if not (streams or inspect.iscoroutinefunction(handler)):
            raise TypeError(f"Expected an async function as a handler, got {handler!r}")
        try:
            signature = inspect.signature(handler, eval_str=True)
        except NameError as error:
            raise TypeError(
                f"Cannot read the annotations of {handler.__qualname__}: {error}. "
                "They are needed at run time: import their names outside of TYPE_CHECKING"
            ) from error
        getters, payloads = [], []
        for parameter in signature.parameters.values():
            name = _what_fills(parameter)
            getters.append(attrgetter(name))
            if name == "payload":
                payloads.append(parameter.annotation)
        if len(payloads) > 1:
            raise TypeError(
                f"Expected at most one parameter for the payload, got {len(payloads)} "
                f"in {handler.__qualname__}"
            )
        return cls(
            getters=tuple(getters),
            payload=PayloadType(_or_any(payloads[0])) if payloads else None,
            returns=_result(signature.return_annotation, streams=streams),
            streams=streams,
        )


def _what_fills(parameter: inspect.Parameter) -> str:
    """Tell which attribute of the context a parameter asks for, by its annotation."""
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        raise TypeError(f"Expected a plain parameter of a handler, got {parameter}")
    annotation = parameter.annotation
    if is_connection(annotation):
        return "ws"
    if annotation is Envelope:
        return "envelope"
    if annotation is Member or annotation == Member | None:
        return "member"
    return "payload"


def _or_any(annotation: Any) -> Any:
    return Any if annotation is inspect.Signature.empty else annotation


def _result(annotation: Any, *, streams: bool) -> Any:
    if streams and get_origin(annotation) in (AsyncGenerator, AsyncIterator, AsyncIterable):
        return get_args(annotation)[0]
    return Any if streams else _or_any(annotation)


@dataclass(frozen=True, slots=True)
class Route:
    """What becomes of messages of one type.

    Attributes:
        type: the type.
        handler: what the application does with them.
        signature: what the handler asks for.
        mode: which messages wait for which: see ``Router``.
        key: in mode ``keyed``, returns the key of a payload.
        timeout: seconds for the handler; for each reply, if it is a generator.
        middleware: what is around the handler, the outermost first.
        call: calls the handler, and the middleware around it; returns the reply, or the
            generator.
    """

    type: str
    handler: Handler
    signature: Signature
    mode: Mode
    key: Key | None
    timeout: float | None
    middleware: tuple[Middleware, ...] = ()
    call: Proceed = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Once and for all, and without a coroutine of our own, which would be a tenth of what a
        # message costs.
        proceed: Proceed = self._generate if self.signature.streams else self._start
        for middleware in reversed(self.middleware):
            proceed = _around(middleware, proceed)
        object.__setattr__(self, "call", proceed)

    def lane(self, payload: Any) -> Hashable:
        """Tell in which lane a message with that payload is; None: in one of its own."""
        if self.mode == "ordered":
            return ORDERED
        return None if self.key is None else ("keyed", self.key(payload))

    def _start(self, context: Context) -> Any:
        return self.handler(*[get(context) for get in self.signature.getters])

    async def _generate(self, context: Context) -> Any:
        return self._start(context)


def _around(middleware: Middleware, proceed: Proceed) -> Proceed:
    return lambda context: middleware(context, proceed)


def check_type(type: str) -> None:
    """Refuse a type that messages with handlers cannot have.

    Raises:
        ValueError: if it is empty, too long, or that of an answer.
    """
    longest = MAX_TYPE - len(REPLY)
    if not 1 <= len(type) <= longest or type == ERROR or type.endswith(REPLY):
        raise ValueError(
            f"Expected a type of 1 to {longest} characters that is neither {ERROR!r} nor "
            f"ends with {REPLY!r}, got {type!r}"
        )
