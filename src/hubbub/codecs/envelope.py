"""Envelope: the message that carries a type, a payload and perhaps an id, and its two codecs.

    {"type": "chat.send", "payload": {"text": "hi"}, "id": 7}

The wire contract (docs/contract.md) in code: what an envelope is, what answers look like, JSON
and MessagePack. The payload stays encoded until somebody knows its type. No route and no
connection lives here. Used by the router, and by Calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from hubbub.codecs.payload import encode_hook, explain
from hubbub.exceptions import RouterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubbub.codecs.payload import PayloadType
    from hubbub.types import Data

__all__ = (
    "CODECS",
    "ERROR",
    "JSON",
    "MAX_TYPE",
    "MSGPACK",
    "REPLY",
    "Codec",
    "Envelope",
    "Id",
    "NoEnvelope",
)

ERROR: Final = "error"
REPLY: Final = ".reply"  # what the type of a reply ends with
MAX_TYPE: Final = 128  # characters
_MAX_ID = 128  # characters; an id comes back in every answer
_MAX_INTEGER = 2**53 - 1  # the integers that every JSON implementation knows (RFC 8259 §6)
_BROKEN = (msgspec.DecodeError, UnicodeError, RecursionError)

Id = (
    Annotated[str, msgspec.Meta(max_length=_MAX_ID)]
    | Annotated[int, msgspec.Meta(ge=-_MAX_INTEGER, le=_MAX_INTEGER)]
    | None
)
"""Tells which message an answer is for: both have the same id. None: there is none."""


class Envelope(msgspec.Struct, frozen=True):
    """A received message.

    Attributes:
        type: says what the message is for.
        payload: the payload's bytes, not decoded; empty when there is none.
        id: the id that an answer has to carry.
        more: of a reply: whether further replies to the same message follow.
    """

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TYPE)]
    payload: msgspec.Raw = msgspec.Raw()
    id: Id = None
    more: bool = False

    @property
    def is_answer(self) -> bool:
        """Whether this is a reply or an error; neither is ever answered."""
        return self.type == ERROR or self.type.endswith(REPLY)


class _Outgoing(msgspec.Struct, omit_defaults=True):
    type: str
    payload: Any
    id: Id = None
    more: bool = False


class _OnlyId(msgspec.Struct):
    id: Id = None


class NoEnvelope(RouterError):
    """A message that is no envelope.

    Attributes:
        id: the id that it has nevertheless.
    """

    def __init__(self, code: str, message: str, id: Id = None) -> None:
        super().__init__(code, message)
        self.id = id


class Codec:
    """One of the two forms that envelopes have on the wire.

    Attributes:
        name: ``json`` or ``msgpack``.
        subprotocol: by which it is agreed on (RFC 6455 §1.9).
    """

    def __init__(self, name: str, module: Any, *, binary: bool) -> None:
        self.name = name
        self.subprotocol = f"hubbub.{name}"
        self._binary = binary
        self._decode: Callable[[Any], Envelope] = module.Decoder(Envelope).decode
        self._decode_id: Callable[[Any], _OnlyId] = module.Decoder(_OnlyId).decode
        self._skip: Callable[[Any], msgspec.Raw] = module.Decoder(msgspec.Raw).decode
        self._encode: Callable[[Any], bytes] = module.Encoder(enc_hook=encode_hook).encode
        self._empty = msgspec.Raw(self._encode({}))

    def __repr__(self) -> str:
        return f"<Codec {self.name}>"

    def decode(self, data: Data) -> Envelope:
        """Decode all of a message except its payload.

        Raises:
            NoEnvelope: with ``bad_json`` (``bad_msgpack``) or ``bad_envelope``.
        """
        if self._binary and isinstance(data, str):
            raise NoEnvelope(*self._broken("Expected a binary message, got text"))
        try:
            return self._decode(data)
        except msgspec.ValidationError as error:
            raise NoEnvelope("bad_envelope", str(error), self._find_id(data)) from error
        except _BROKEN as error:
            raise NoEnvelope(*self._broken(error)) from error

    def _find_id(self, data: Data) -> Id:
        try:
            # All of it first, because a decoder stops at the first value of a wrong type.
            self._skip(data if self._binary or isinstance(data, str) else data.decode())
            return self._decode_id(data).id
        except msgspec.ValidationError:
            return None
        except _BROKEN as error:
            raise NoEnvelope(*self._broken(error)) from error

    def decode_payload(self, envelope: Envelope, type: PayloadType) -> Any:
        """Decode the payload of an envelope.

        Raises:
            RouterError: ``invalid_payload``, which says what is wrong where; or ``bad_json``
                (``bad_msgpack``).
        """
        decode = type.from_msgpack if self._binary else type.from_json
        try:
            return decode(envelope.payload or self._empty)
        except msgspec.ValidationError as error:
            raise explain(error) from error
        except _BROKEN as error:
            raise RouterError(*self._broken(error)) from error

    def _broken(self, what: object) -> tuple[str, str]:
        return f"bad_{self.name}", str(what)

    def encode(self, type: str, payload: Any, id: Id = None, *, more: bool = False) -> Data:
        """Encode an envelope.

        Args:
            type: says what the message is for.
            payload: any value that msgspec can encode, or a pydantic model.
            id: the id that an answer has to carry; in an answer, the message's.
            more: whether further replies to the same message follow this one.

        Raises:
            TypeError: if the payload has no form in JSON, or MessagePack.
            ValueError: if a text or a number in it has none.
        """
        encoded = self._encode(_Outgoing(type, payload, id, more))
        return encoded if self._binary else encoded.decode()

    def encode_error(self, error: RouterError, id: Id = None) -> Data:
        """Encode an error envelope. Raises as ``encode`` does."""
        payload = {"code": error.code, "message": error.message, "details": error.details}
        return self.encode(ERROR, payload, id)


JSON: Final = Codec("json", msgspec.json, binary=False)
MSGPACK: Final = Codec("msgpack", msgspec.msgpack, binary=True)
CODECS: Final = {codec.subprotocol: codec for codec in (JSON, MSGPACK)}
