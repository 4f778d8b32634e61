"""What a handler asks for, and what becomes of what it returns or raises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import anyio
import attrs
import msgspec
import pydantic
import pytest

from hubbub import Hub, Member, Router, RouterError, WebSocket, WebSocketDisconnect
from hubbub.router import Context, Envelope, Proceed
from tests.peer import eventually
from tests.router.client import NOTHING, Client, connected

if TYPE_CHECKING:
    from decimal import Decimal


class Add(msgspec.Struct):
    a: int
    b: int


@dataclass
class DataAdd:
    a: int
    b: int


@attrs.define
class AttrsAdd:
    a: int
    b: int


class DictAdd(TypedDict):
    a: int
    b: int


class ModelAdd(pydantic.BaseModel):
    a: int
    b: int


@pydantic.dataclasses.dataclass
class ModelDataAdd:
    a: int
    b: int


AddOrText = Add | str
Few = Annotated[list[int], pydantic.Field(max_length=2)]


async def plain(payload) -> Any:  # type: ignore[no-untyped-def]
    return payload


async def struct(payload: Add) -> int:
    return payload.a + payload.b


async def data(payload: DataAdd) -> int:
    return payload.a + payload.b


async def by_attrs(payload: AttrsAdd) -> int:
    return payload.a + payload.b


async def typed_dict(payload: DictAdd) -> int:
    return payload["a"] + payload["b"]


async def model(payload: ModelAdd) -> int:
    return payload.a + payload.b


async def model_data(payload: ModelDataAdd) -> int:
    return payload.a + payload.b


async def models(payload: list[ModelAdd]) -> list[ModelAdd]:
    return payload


async def few(payload: Few) -> list[int]:
    return payload


async def number(payload: float) -> float:
    return payload


async def union(payload: AddOrText) -> AddOrText:
    return payload


async def raw(payload: msgspec.Raw) -> int:
    return len(payload)


async def nothing() -> str:
    return "done"


async def everything(
    ws: WebSocket, envelope: Envelope, member: Member | None, payload: dict[str, int]
) -> list[Any]:
    return [ws.path, envelope.type, envelope.id, member, payload]


def one(handler: Any, **options: Any) -> Router:
    router = Router()
    router.on("do", **options)(handler)
    return router


class TestThePayload:
    @pytest.mark.parametrize("msgpack", [False, True])
    @pytest.mark.parametrize(
        ("handler", "payload", "reply"),
        [
            (plain, NOTHING, {}),
            (plain, None, None),
            (plain, [1, "two", {"three": None}], [1, "two", {"three": None}]),
            (struct, {"a": 1, "b": 2}, 3),
            (data, {"a": 1, "b": 2}, 3),
            (by_attrs, {"a": 1, "b": 2}, 3),
            (typed_dict, {"a": 1, "b": 2}, 3),
            (model, {"a": 1, "b": 2}, 3),
            (model, {"a": "1", "b": 2}, 3),
            (model_data, {"a": 1, "b": 2}, 3),
            (models, [{"a": 1, "b": 2}], [{"a": 1, "b": 2}]),
            (few, [1, 2], [1, 2]),
            (number, 1.5, 1.5),
            (union, "text", "text"),
            (union, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
            (raw, 5, 1),
            (nothing, {"ignored": True}, "done"),
        ],
    )
    async def test_is_of_the_type_that_the_handler_asks_for(
        self, handler: Any, payload: Any, reply: Any, msgpack: bool
    ) -> None:
        client = Client(msgpack=msgpack, subprotocols=["hubbub.msgpack"] if msgpack else [])
        async with connected(one(handler), client):
            client.tell_router("do", payload, id="7")
            assert await client.hear(1) == [{"type": "do.reply", "payload": reply, "id": "7"}]

    @pytest.mark.parametrize("msgpack", [False, True])
    @pytest.mark.parametrize(
        ("handler", "payload", "paths"),
        [
            (struct, {"a": 1, "b": "x"}, ["$.b"]),
            (struct, NOTHING, ["$"]),
            (struct, [], ["$"]),
            (data, {"a": None, "b": 2}, ["$.a"]),
            (by_attrs, {"a": None, "b": 2}, ["$.a"]),
            (typed_dict, {"a": 1}, ["$"]),
            (model, {"a": "x"}, ["$.a", "$.b"]),
            (models, [{"a": 1, "b": 2}, {"a": 1, "b": {}}], ["$[1].b"]),
            (few, [1, 2, 3], ["$"]),
            (number, "1.5", ["$"]),
            (union, 5, ["$"]),
        ],
    )
    async def test_of_another_type_is_refused_with_the_path(
        self, handler: Any, payload: Any, paths: list[str], msgpack: bool
    ) -> None:
        client = Client(msgpack=msgpack, subprotocols=["hubbub.msgpack"] if msgpack else [])
        async with connected(one(handler), client):
            client.tell_router("do", payload, id=7)
            [message] = await client.hear(1)
        assert (message["type"], message["id"]) == ("error", 7)
        assert message["payload"]["code"] == "invalid_payload"
        details = message["payload"]["details"]
        assert [detail["path"] for detail in details] == paths
        assert details[0]["message"] in message["payload"]["message"]

    async def test_a_refusal_does_not_grow_with_the_payload(self) -> None:
        router = one(models)

        @router.on("enum")
        async def enum(payload: Annotated[dict[str, int], "doc"]) -> None: ...

        async with connected(router) as client:
            client.tell_router("do", [{"a" * 10_000: "x"}] * 1000)
            client.tell_router("do", {"x" * 10_000: {}})
            client.tell_router("enum", {"x" * 10_000: "no"})
            await client.hear(3)
        assert max(map(len, client.heard)) < 5000

    async def test_the_rest_is_given_by_annotation(self) -> None:
        async with connected(one(everything)) as client:
            client.tell_router("do", {"a": 1}, id="x")
            assert await client.hear_payloads(1) == [["/", "do", "x", None, {"a": 1}]]

    async def test_a_method_may_handle(self) -> None:
        class Counter:
            count = 0

            async def add(self, payload: int) -> int:
                self.count += payload
                return self.count

        async with connected(one(Counter().add)) as client:
            client.tell_router("do", 2)
            client.tell_router("do", 3)
            assert await client.hear_payloads(2) == [2, 5]

    async def test_a_validator_that_fails_is_our_fault(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with connected(one(buggy)) as client:
            client.tell_router("do", {"a": 1}, id=1)
            assert await client.hear_codes(1) == ["internal"]
        assert "Validating a message of type 'do' failed" in caplog.text
        assert "ZeroDivisionError" in caplog.text

    async def test_an_unknown_type_costs_no_decoding(self) -> None:
        async with connected(one(nothing)) as client:
            client.say(b'{"type": "other", "payload": "\xff", "id": 1}')
            client.say(b'{"type": "do", "payload": "\xff", "id": 1}')
            assert await client.hear_codes(2) == ["unknown_type", "do.reply"]

    async def test_text_in_it_that_is_none(self) -> None:
        for handler in (plain, models):
            async with connected(one(handler)) as client:
                client.say(b'{"type": "do", "payload": ["\xff"], "id": 1}')
                assert await client.hear_codes(1) == ["bad_json"]
                assert client.messages[0]["id"] == 1


class Buggy(msgspec.Struct):
    a: int

    def __post_init__(self) -> None:
        self.a = self.a // 0


async def buggy(payload: Buggy) -> None: ...


def sync() -> None: ...


async def two(a: int, b: int) -> None: ...


async def many(*payload: int) -> None: ...


async def named(*, payload: int) -> None: ...


async def unresolvable(payload: Decimal) -> None: ...


async def custom(payload: Hub) -> None: ...


def test_pydantic_is_not_imported_for_those_who_do_not_use_it() -> None:
    program = """if True:
        import sys
        from hubbub import App, Hub, Router, WebSocket
        from hubbub.codecs.envelope import JSON
        router = Router()
        @router.on("do")
        async def do(payload: dict[str, int]) -> list[int]: ...
        JSON.decode_payload(JSON.decode('{"type": "do"}'), router.routes["do"].signature.payload)
        JSON.encode("do", 5)
        router.asyncapi()
        sys.exit("pydantic" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


class TestRegistration:
    @pytest.mark.parametrize(
        ("handler", "complaint"),
        [
            (sync, "Expected an async function as a handler"),
            (two, "at most one parameter for the payload, got 2 in two"),
            (many, "Expected a plain parameter"),
            (named, "Expected a plain parameter"),
            (unresolvable, "import their names outside of TYPE_CHECKING"),
            (custom, "custom"),
        ],
    )
    def test_refuses_what_cannot_handle(self, handler: Any, complaint: str) -> None:
        with pytest.raises(TypeError, match=complaint):
            one(handler)

    @pytest.mark.parametrize("type", ["", "error", "x.reply", "x" * 123])
    def test_refuses_a_type_that_cannot_be(self, type: str) -> None:
        with pytest.raises(ValueError, match="Expected a type of 1 to 122 characters"):
            Router().on(type)(plain)
        Router().on("x" * 122)(plain)

    def test_refuses_to_be_used_without_a_type(self) -> None:
        no_type: Any = plain
        with pytest.raises(TypeError, match=r'Expected @router\.on\("type"\), got <function plain'):
            Router().on(no_type)

    def test_refuses_a_mode_that_there_is_not(self) -> None:
        mode: Any = "parallel"
        with pytest.raises(
            ValueError, match="a mode of ordered, concurrent, keyed; got 'parallel'"
        ):
            Router(mode=mode)

    def test_refuses_a_second_handler(self) -> None:
        with pytest.raises(ValueError, match="Expected one handler of 'do', got another"):
            one(plain).on("do")(struct)

    @pytest.mark.parametrize(
        "options", [{"mode": "keyed"}, {"mode": "ordered", "key": len}, {"key": len}]
    )
    def test_a_key_goes_with_its_mode(self, options: Any) -> None:
        with pytest.raises(ValueError, match="Expected a key with mode='keyed' and only there"):
            one(plain, **options)
        if "mode" in options:
            with pytest.raises(ValueError, match="Expected a key"):
                Router(**options)

    @pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
    def test_a_timeout_leaves_some_time(self, timeout: float) -> None:
        with pytest.raises(ValueError, match="Expected a timeout above 0"):
            one(plain, timeout=timeout)
        with pytest.raises(ValueError, match="Expected a timeout above 0"):
            Router(timeout=timeout)

    @pytest.mark.parametrize("limit", [{"max_running": 0}, {"max_bad_messages": 0}])
    def test_a_limit_lets_something_through(self, limit: Any) -> None:
        with pytest.raises(ValueError, match=r"Expected max_\w+ of at least 1, got 0"):
            Router(**limit)


class TestTheReply:
    async def test_without_an_id(self) -> None:
        async with connected(one(plain)) as client:
            client.tell_router("do", None)
            client.tell_router("do", 5)
            assert await client.hear(1) == [{"type": "do.reply", "payload": 5}]

    async def test_none_acknowledges_an_id(self) -> None:
        async with connected(one(plain)) as client:
            for id in ("", 0, -(2**53) + 1, "é" * 128):
                client.tell_router("do", None, id=id)
            ids = [message["id"] for message in await client.hear(4)]
        assert ids == ["", 0, -(2**53) + 1, "é" * 128]
        assert client.messages[0] == {"type": "do.reply", "payload": None, "id": ""}

    async def test_that_cannot_be_encoded(self, caplog: pytest.LogCaptureFixture) -> None:
        async with connected(one(unencodable)) as client:
            client.tell_router("do", id=1)
            assert await client.hear_codes(1) == ["internal"]
        assert "got Hub" in caplog.text

    async def test_a_binary_message_is_json_too_and_answered_in_text(self) -> None:
        async with connected(one(plain)) as client:
            client.say(b'{"type": "do", "payload": 5}')
            await client.hear(1)
        assert client.heard == ['{"type":"do.reply","payload":5}']

    async def test_in_messagepack_by_subprotocol(self) -> None:
        client = Client(msgpack=True, subprotocols=["other", "hubbub.msgpack", "hubbub.json"])
        async with connected(one(plain), client):
            client.tell_router("do", b"\x00\xff", id=1)
            assert await client.hear_payloads(1) == [b"\x00\xff"]
            client.say("text")
            client.say(b"\xc1")
            assert await client.hear_codes(3) == ["do.reply", "bad_msgpack", "bad_msgpack"]
        assert client.sent[0]["subprotocol"] == "hubbub.msgpack"

    async def test_an_unknown_subprotocol_is_not_accepted(self) -> None:
        client = Client(subprotocols=["other"])
        async with connected(one(plain), client):
            client.tell_router("do", 5)
            await client.hear(1)
        assert "subprotocol" not in client.sent[0]


async def unencodable() -> Any:
    return Hub()


class TestErrors:
    async def test_of_the_handler(self) -> None:
        async with connected(one(refuse)) as client:
            client.tell_router("do", id=1)
            client.tell_router("do")
            error = {"code": "full", "message": "The room is full", "details": [{"seats": 4}]}
            assert await client.hear(2) == [
                {"type": "error", "payload": error, "id": 1},
                {"type": "error", "payload": error},
            ]

    async def test_whose_details_cannot_be_sent(self, caplog: pytest.LogCaptureFixture) -> None:
        async def handler() -> None:
            raise RouterError("full", details=[Hub()])

        async with connected(one(handler)) as client:
            client.tell_router("do", id=1)
            assert await client.hear_codes(1) == ["internal"]
            assert client.messages[0]["id"] == 1
        assert "The error 'full' cannot be sent" in caplog.text

    @pytest.mark.parametrize(
        "error", [KeyError("secret"), TimeoutError(), WebSocketDisconnect(1001), OSError()]
    )
    async def test_unexpected(self, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
        async def handler() -> None:
            raise error

        async with connected(one(handler)) as client:
            client.tell_router("do", id=1)
            [message] = await client.hear(1)
            assert message["payload"]["code"] == "internal"
            assert message["payload"]["details"] == []
            assert "secret" not in str(message)
            client.tell_router("do", id=2)
            await client.hear(2)
        assert [record.getMessage() for record in caplog.records] == [
            "The handler of 'do' failed"
        ] * 2
        assert caplog.records[0].exc_info is not None
        assert caplog.records[0].exc_info[1] is error

    async def test_the_peers_leaving_is_none(self, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(ws: WebSocket) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ws.request, "ask", {})

        async with connected(one(handler)) as client:
            client.tell_router("do", id=1)
            await client.hear(1)
        assert not caplog.records


async def refuse() -> None:
    raise RouterError("full", "The room is full", [{"seats": 4}])


class TestStreams:
    async def test_reply_as_often_as_they_yield(self) -> None:
        async with connected(one(count)) as client:
            client.tell_router("do", 2, id=7)
            assert await client.hear(3) == [
                {"type": "do.reply", "payload": 0, "id": 7, "more": True},
                {"type": "do.reply", "payload": 1, "id": 7, "more": True},
                {"type": "do.reply", "payload": None, "id": 7},
            ]

    async def test_without_an_id(self) -> None:
        async with connected(one(count)) as client:
            client.tell_router("do", 2)
            client.tell_router("do", 1, id=1)
            messages = await client.hear(4)
        assert messages[1] == {"type": "do.reply", "payload": 1}
        assert messages[2]["id"] == 1

    async def test_that_fail_say_so(self) -> None:
        async with connected(one(countdown)) as client:
            client.tell_router("do", 2, id=7)
            assert await client.hear_codes(3) == ["do.reply", "do.reply", "liftoff"]

    async def test_end_with_the_connection(self) -> None:
        tasks: list[anyio.TaskInfo] = []

        async def forever() -> AsyncIterator[int]:
            tasks.append(anyio.get_current_task())
            try:
                while True:
                    yield 0
                    await anyio.lowlevel.checkpoint()
            finally:
                tasks.append(anyio.get_current_task())

        router = Router(timeout=None, grace=1000.0)
        router.on("do")(forever)
        with anyio.fail_after(30):
            async with connected(router) as client:
                client.tell_router("do", id=7)
                await eventually(lambda: len(client.heard) > 3)
        began, ended = tasks  # in its own task, and not by the garbage collector
        assert began == ended

    async def test_each_reply_gives_them_their_time_once_more(self, virtual_clock: None) -> None:
        async def slow(payload: int) -> AsyncIterator[int]:
            for number in range(payload):
                await anyio.sleep(60)
                yield number

        async with connected(one(slow, timeout=80.0)) as client:
            client.tell_router("do", 5)
            await anyio.sleep(1000)
            assert [message["payload"] for message in client.messages] == [0, 1, 2, 3, 4]

    async def test_have_a_timeout_for_each_reply(self) -> None:
        cleaned_up = anyio.Event()

        async def slow() -> AsyncGenerator[int]:
            try:
                yield 0
                await anyio.sleep_forever()
            finally:
                cleaned_up.set()

        async with connected(one(slow, timeout=0.3)) as client:
            client.tell_router("do", id=7)
            assert await client.hear_codes(2) == ["do.reply", "timeout"]
        assert cleaned_up.is_set()


async def count(payload: int) -> AsyncIterator[int]:
    for number in range(payload):
        yield number


async def countdown(payload: int) -> AsyncIterator[int]:
    for number in range(payload, 0, -1):
        yield number
    raise RouterError("liftoff")


class TestMiddleware:
    async def test_is_around_every_message(self) -> None:
        router = one(plain)
        seen: list[str] = []

        @router.middleware
        async def outer(context: Context, proceed: Proceed) -> Any:
            seen.append(f"outer {context.envelope.type} {context.payload}")
            return await proceed(context)

        @router.middleware
        async def inner(context: Context, proceed: Proceed) -> Any:
            seen.append("inner")
            context.payload *= 2
            return [await proceed(context)]

        async with connected(router) as client:
            client.tell_router("do", 5)
            assert await client.hear_payloads(1) == [[10]]
        assert seen == ["outer do 5", "inner"]

    async def test_may_answer_itself(self) -> None:
        router = one(plain)

        @router.middleware
        async def guard(context: Context, proceed: Proceed) -> Any:
            if context.payload == "no":
                raise RouterError("forbidden")
            return "instead" if context.payload == "other" else await proceed(context)

        async with connected(router) as client:
            for payload in ("no", "other", "yes"):
                client.tell_router("do", payload)
            assert await client.hear_codes(3) == ["forbidden", "do.reply", "do.reply"]
            assert [message["payload"] for message in client.messages[1:]] == ["instead", "yes"]

    async def test_sees_a_stream_as_a_whole(self) -> None:
        router = one(count)

        @router.middleware
        async def double(context: Context, proceed: Proceed) -> Any:
            replies = await proceed(context)

            async def doubled() -> AsyncIterator[int]:
                async for reply in replies:
                    yield reply * 2

            return doubled()

        async with connected(router) as client:
            client.tell_router("do", 3)
            assert await client.hear_payloads(3) == [0, 2, 4]


class TestInclude:
    async def test_takes_over_what_is_there(self) -> None:
        game, router = Router(timeout=0.3), one(plain)
        order: list[str] = []

        @game.on("move")
        async def move() -> str:
            return "moved"

        @game.on("hang")
        async def hang() -> None:
            await anyio.sleep_forever()

        @game.middleware
        async def inner(context: Context, proceed: Proceed) -> Any:
            order.append("inner")
            return await proceed(context)

        @router.middleware
        async def outer(context: Context, proceed: Proceed) -> Any:
            order.append("outer")
            return await proceed(context)

        @game.on_connect
        async def greet(ws: WebSocket) -> None:
            ws.state.game = True

        @game.on_disconnect
        async def goodbye(ws: WebSocket) -> None:
            ws.state.game = False

        game.sends("moved", int)
        router.include(game, prefix="game.")
        game.on("late")(plain)
        async with connected(router) as client:
            for type in ("game.move", "do", "move", "game.late", "game.hang"):
                client.tell_router(type, id=1)
            assert await client.hear_codes(5) == [
                *("game.move.reply", "do.reply", "unknown_type", "unknown_type", "timeout")
            ]
            assert client.scope["state"] == {"game": True}
        assert order == ["outer", "inner", "outer", "outer", "inner"]
        assert client.scope["state"] == {"game": False}
        assert list(router.sent) == ["game.moved"]

    def test_types_may_not_meet(self) -> None:
        with pytest.raises(ValueError, match="got another"):
            one(plain).include(one(plain))
        with pytest.raises(ValueError, match="Expected a type"):
            one(plain).include(one(plain), prefix="x" * 121)


class TestMembers:
    async def test_are_joined(self) -> None:
        hub = Hub()
        router = Router(join=lambda ws: hub.join("lobby", ws, data=ws.path))

        @router.on("say")
        async def say(member: Member, payload: str) -> str:
            await hub.broadcast("lobby", f'"{member.data}: {payload}"')
            return "said"

        async with hub, connected(router) as client:
            client.tell_router("say", "hi")
            await eventually(lambda: len(client.heard) == 2)
            # The reply comes after what was broadcast before it.
            assert client.heard == ['"/: hi"', '{"type":"say.reply","payload":"said"}']
            assert len(hub.connections) == 1
        assert not hub.connections

    async def test_a_reply_that_no_outbox_holds(self, caplog: pytest.LogCaptureFixture) -> None:
        hub = Hub()
        router = Router(join=lambda ws: hub.join("lobby", ws, max_bytes=200))

        @router.on("big")
        async def big() -> str:
            return "x" * 300

        async with hub, connected(router) as client:
            client.tell_router("big", id=1)
            assert await client.hear_codes(1) == ["internal"]
        assert "MessageTooBig" in caplog.text

    async def test_when_the_hub_is_closing(self) -> None:
        hub = Hub()
        router = Router(join=lambda ws: hub.join("lobby", ws))
        client = Client()
        async with hub:
            await hub.aclose(1012)
            async with connected(router, client):
                await eventually(lambda: client.closed_with)
        assert client.closed_with == (1012, "")
