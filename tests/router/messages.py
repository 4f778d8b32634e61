"""An application whose messages have payloads of every kind there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar

import msgspec
import pydantic

from hubbub import App, Hub, Router, WebSocket

T = TypeVar("T")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Box(msgspec.Struct, Generic[T]):
    content: T


class Node(msgspec.Struct):
    children: list[Node]
    parent: Node | None = None
    color: Color = Color.RED
    weights: dict[str, float] = {}
    place: tuple[int, str] = (0, "")
    when: datetime | None = None
    kind: Literal["leaf", "root"] = "root"
    data: bytes = b""


class Circle(msgspec.Struct, tag="circle"):
    radius: Annotated[float, msgspec.Meta(gt=0)]


class Square(msgspec.Struct, tag="square", rename={"side": "side-length"}):
    side: float


class Point(msgspec.Struct, array_like=True):
    x: int
    label: str = ""


class Options(TypedDict, total=False):
    loud: bool


class Model(pydantic.BaseModel):
    color: Color = Color.RED
    other: Model | None = None


class Nothing(msgspec.Struct):
    pass


Shape = Circle | Square

game = Router()
router = Router()


@game.on("node.add")
async def add(payload: Node) -> Box[int]:
    """Add a node.

    Nobody has ever seen it fail.
    """
    return Box(len(payload.children))


@game.on("shape/draw")
async def draw(payload: Shape) -> AsyncIterator[Point]:
    """Draw */ a shape."""
    yield Point(1)


@game.on("model")
async def model(payload: Model) -> Model | None:
    return payload


@game.on("options")
async def options(payload: Options) -> Options:
    return payload


@game.on("set")
async def change(payload: dict[str, list[Any]]) -> Nothing:
    return Nothing()


@game.on("ping")
async def ping() -> None: ...


@game.on("ping!")
async def ping_too() -> Hub:
    return Hub()


@game.on("anything")
async def anything(payload) -> Any:  # type: ignore[no-untyped-def]
    return payload


@game.on("stream")
async def stream():  # type: ignore[no-untyped-def]
    yield 1


async def echo(ws: WebSocket) -> None: ...


game.sends("said", Box[str])
game.sends("confirm", Color, reply=bool)
router.include(game)
router.sends("error.free")
app = App({"/game": router, "/2/other": game, "/echo": echo})
nothing = App({"/echo": echo})
