"""The demo's chat: its messages, in their order, and who is told when somebody goes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import anyio
import pytest
from anyio.lowlevel import checkpoint

from hubbub import App, Hub
from hubbub.demo import chat as module
from hubbub.demo.chat import Chat
from tests.peer import Peer, call, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import TaskGroup


async def settle() -> None:
    """Let everybody do all that there is to do: nobody here waits for time to pass."""
    for _ in range(200):
        await checkpoint()


class Guest(Peer):
    def __init__(self, **query: str) -> None:
        super().__init__(path="/chat", query_string=urlencode(query).encode())
        self._read = 0

    def tell_chat(self, kind: str, **payload: Any) -> None:
        self.say(json.dumps({"type": kind, "payload": payload}))

    async def news(self) -> list[tuple[str, dict[str, Any]]]:
        """Everything that came since this was last asked."""
        await settle()
        messages = [json.loads(text) for text in self.heard[self._read :]]
        self._read = len(self.heard)
        assert all(set(message) == {"type", "payload"} for message in messages)
        return [(message["type"], message["payload"]) for message in messages]


class Venue:
    def __init__(self, hub: Hub, tasks: TaskGroup) -> None:
        self.hub = hub
        self._app = App({"/chat": Chat(hub)})
        self._tasks = tasks

    def knock(self, **query: str) -> Guest:
        guest = Guest(**query)
        self._tasks.start_soon(call, self._app, guest)
        return guest

    async def enter(self, nick: str, *rooms: str) -> Guest:
        """Let a guest in, who has read what there is to read at the beginning."""
        guest = self.knock(nick=nick)
        for room in rooms:
            guest.tell_chat("chat.join", room=room)
        assert await guest.news()
        return guest


@asynccontextmanager
async def open_venue() -> AsyncGenerator[Venue]:
    hub = Hub()
    async with hub, anyio.create_task_group() as tasks:
        yield Venue(hub, tasks)
        await hub.aclose()


class TestEntering:
    async def test_a_guest_is_welcomed_and_told_who_is_here(self) -> None:
        async with open_venue() as venue:
            ann = venue.knock(nick="ann", room="lobby")
            assert await ann.news() == [
                ("chat.welcome", {"nick": "ann", "room": "lobby"}),
                ("chat.members", {"room": "lobby", "members": ["ann"]}),
            ]
            bob = venue.knock(nick="bob", room="lobby")
            assert await bob.news() == [
                ("chat.welcome", {"nick": "bob", "room": "lobby"}),
                ("chat.members", {"room": "lobby", "members": ["ann", "bob"]}),
            ]
            assert await ann.news() == [("chat.joined", {"room": "lobby", "nick": "bob"})]

    async def test_the_first_room_is_the_guests_choice_and_else_the_lobby(self) -> None:
        async with open_venue() as venue:
            ann, bob = venue.knock(nick="ann", room=" tea "), venue.knock(nick=" bob ")
            assert ("chat.welcome", {"nick": "ann", "room": "tea"}) in await ann.news()
            assert ("chat.welcome", {"nick": "bob", "room": "lobby"}) in await bob.news()

    async def test_a_nick_in_use_gets_a_number_until_it_is_free(self) -> None:
        async with open_venue() as venue:
            guests = [venue.knock(nick="ann") for _ in range(3)]
            nicks = {(await guest.news())[0][1]["nick"] for guest in guests}
            assert nicks == {"ann", "ann2", "ann3"}
            for guest in guests:
                guest.leave()
            await settle()
            assert (await venue.knock(nick="ann").news())[0][1]["nick"] == "ann"

    @pytest.mark.parametrize("name", ["", "   ", "x" * 33, "a\nb", "\u202ebob"])
    @pytest.mark.parametrize("parameter", ["nick", "room"])
    async def test_a_bad_name_is_a_close_with_a_reason(self, parameter: str, name: str) -> None:
        async with open_venue() as venue:
            guest = venue.knock(**{"nick": "ann", "room": "lobby", parameter: name})
            assert await guest.news() == []
            reason = f"Expected a {parameter} of 1 to 32 printable characters"
            assert guest.closed_with == (1008, reason)
            assert venue.hub.connections == ()

    async def test_a_policy_that_there_is_not_is_a_close_with_a_reason(self) -> None:
        async with open_venue() as venue:
            guest = venue.knock(nick="ann", policy="hope")
            assert await guest.news() == []
            assert guest.closed_with is not None
            code, reason = guest.closed_with
            assert code == 1008
            assert reason.startswith("Expected one of the policies disconnect, drop-oldest, ")
            assert venue.hub.connections == ()

    async def test_a_nick_there_must_be(self) -> None:
        async with open_venue() as venue:
            guest = venue.knock()
            await settle()
            assert guest.closed_with is not None
            assert guest.closed_with[0] == 1008

    async def test_a_name_may_have_32_characters_of_any_script(self) -> None:
        async with open_venue() as venue:
            guest = venue.knock(nick="é" * 32)
            assert (await guest.news())[0][1]["nick"] == "é" * 32


class TestTalking:
    async def test_all_in_the_room_hear_it_the_speaker_too(self) -> None:
        async with open_venue() as venue:
            ann, bob = await venue.enter("ann"), await venue.enter("bob")
            await ann.news()
            ann.tell_chat("chat.say", room="lobby", text="hi")
            bob.tell_chat("chat.say", room="lobby", text="<b>hö</b>")
            said = await ann.news()
            assert sorted(said, key=str) == [
                ("chat.said", {"room": "lobby", "nick": "ann", "text": "hi"}),
                ("chat.said", {"room": "lobby", "nick": "bob", "text": "<b>hö</b>"}),
            ]
            assert await bob.news() == said

    async def test_another_room_does_not(self) -> None:
        async with open_venue() as venue:
            ann, bob, eve = [await venue.enter(nick) for nick in ("ann", "bob", "eve")]
            ann.tell_chat("chat.join", room="tea")
            await ann.news()
            bob.tell_chat("chat.join", room=" tea ")
            assert ("chat.members", {"room": "tea", "members": ["ann", "bob"]}) in await bob.news()
            await eve.news()
            ann.tell_chat("chat.say", room="tea", text="psst")
            assert await ann.news() == [
                ("chat.joined", {"room": "tea", "nick": "bob"}),
                ("chat.said", {"room": "tea", "nick": "ann", "text": "psst"}),
            ]
            assert await bob.news() == [
                ("chat.said", {"room": "tea", "nick": "ann", "text": "psst"})
            ]
            assert await eve.news() == []

    async def test_who_has_left_a_room_hears_no_more_of_it(self) -> None:
        async with open_venue() as venue:
            ann, bob = await venue.enter("ann", "tea"), await venue.enter("bob", "tea")
            await ann.news()
            bob.tell_chat("chat.leave", room="tea")
            assert await ann.news() == [("chat.left", {"room": "tea", "nick": "bob"})]
            ann.tell_chat("chat.say", room="tea", text="alone")
            ann.tell_chat("chat.say", room="lobby", text="together")
            assert await bob.news() == [
                ("chat.said", {"room": "lobby", "nick": "ann", "text": "together"})
            ]

    async def test_an_id_is_acknowledged(self) -> None:
        async with open_venue() as venue:
            ann = await venue.enter("ann")
            ann.say('{"id": "7", "type": "chat.leave", "payload": {"room": "lobby"}}')
            await eventually(lambda: "chat.leave.reply" in str(ann.heard[-1:]))
            assert venue.hub.connections[0].rooms == set()

    async def test_joining_twice_lists_the_members_again_and_is_no_news(self) -> None:
        async with open_venue() as venue:
            ann, bob = await venue.enter("ann"), await venue.enter("bob")
            await ann.news()
            bob.tell_chat("chat.join", room="lobby")
            assert await bob.news() == [
                ("chat.members", {"room": "lobby", "members": ["ann", "bob"]})
            ]
            assert await ann.news() == []

    async def test_twenty_rooms_are_the_most(self) -> None:
        async with open_venue() as venue:
            ann = await venue.enter("ann", *(f"room {number}" for number in range(19)))
            ann.tell_chat("chat.join", room="one more")
            [(kind, payload)] = await ann.news()
            assert (kind, payload["code"]) == ("error", "too_many_rooms")
            ann.tell_chat("chat.leave", room="lobby")
            ann.tell_chat("chat.join", room="one more")
            assert await ann.news() == [("chat.members", {"room": "one more", "members": ["ann"]})]


class TestFlooding:
    @pytest.fixture(autouse=True)
    def small_flood(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_FLOOD", 100)
        monkeypatch.setattr(module, "_FLOOD_INTERVAL", 0)

    async def test_all_in_the_room_get_every_message(self) -> None:
        async with open_venue() as venue:
            ann, bob = await venue.enter("ann"), await venue.enter("bob")
            await ann.news()
            ann.tell_chat("chat.flood", room="lobby")
            for guest in (ann, bob):
                await eventually(lambda guest=guest: '"number":100' in str(guest.heard[-1:]))  # type: ignore[misc]
                waves = [payload for kind, payload in await guest.news() if kind == "chat.flooded"]
                assert [wave["number"] for wave in waves] == list(range(1, 101))
                assert {(wave["room"], wave["nick"], wave["of"]) for wave in waves} == {
                    ("lobby", "ann", 100)
                }
                assert all(len(wave["ballast"]) == 8192 for wave in waves)
                assert len({wave["ballast"] for wave in waves}) == 100

    async def test_one_at_a_time(self) -> None:
        async with open_venue() as venue:
            ann = await venue.enter("ann")
            ann.tell_chat("chat.flood", room="lobby")
            ann.tell_chat("chat.flood", room="lobby")
            await eventually(lambda: '"number":100' in str(ann.heard[-1:]))
            news = await ann.news()
            assert [payload["code"] for kind, payload in news if kind == "error"] == ["busy"]
            ann.tell_chat("chat.flood", room="lobby")
            await eventually(lambda: '"number":100' in str(ann.heard[-1:]))

    async def test_it_ends_when_the_flooder_leaves_the_room_or_the_chat(self) -> None:
        async with open_venue() as venue:
            ann, bob = await venue.enter("ann", "tea"), await venue.enter("bob")
            ann.tell_chat("chat.flood", room="lobby")
            await eventually(lambda: '"number":3' in str(bob.heard[-1:]))
            ann.tell_chat("chat.leave", room="lobby")
            await eventually(lambda: "chat.left" in str(bob.heard[-3:]))
            await settle()
            assert '"number":100' not in str(bob.heard)
            ann.tell_chat("chat.join", room="lobby")
            ann.tell_chat("chat.flood", room="lobby")
            await bob.news()
            await eventually(lambda: "chat.flooded" in str(bob.heard[-1:]))
            ann.leave()
            await eventually(lambda: "chat.left" in str(bob.heard[-3:]))

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ("drop-oldest", [1, *range(37, 101)]),
            ("drop-newest", list(range(1, 66))),
            ("coalesce", [1, *range(66, 101)]),
        ],
    )
    async def test_who_does_not_read_has_chosen_what_is_lost(
        self, policy: str, expected: list[int]
    ) -> None:
        async with open_venue() as venue:
            ann = await venue.enter("ann")
            bob = venue.knock(nick="bob", policy=policy)
            await bob.news()
            bob.stop_reading()
            ann.tell_chat("chat.flood", room="lobby")
            await eventually(lambda: '"number":100' in str(ann.heard[-1:]))
            bob.read_on()
            await eventually(lambda: f'"number":{expected[-1]},' in str(bob.heard[-1:]))
            waves = [payload for kind, payload in await bob.news() if kind == "chat.flooded"]
            assert [wave["number"] for wave in waves] == expected

    async def test_with_coalesce_no_note_takes_the_place_of_another(self) -> None:
        async with open_venue() as venue:
            ann = await venue.enter("ann")
            bob = venue.knock(nick="bob", policy="coalesce")
            await bob.news()
            bob.stop_reading()
            for nick in ("cat", "dan"):
                guest = venue.knock(nick=nick)
                await eventually(lambda guest=guest: guest.heard)  # type: ignore[misc]
            ann.tell_chat("chat.flood", room="lobby")
            await eventually(lambda: '"number":100' in str(ann.heard[-1:]))
            bob.read_on()
            await eventually(lambda: '"number":100,' in str(bob.heard[-1:]))
            joined = [
                payload["nick"] for kind, payload in await bob.news() if kind == "chat.joined"
            ]
            assert joined == ["cat", "dan"]

    async def test_with_block_the_flood_waits(self) -> None:
        async with open_venue() as venue:
            ann = await venue.enter("ann")
            bob = venue.knock(nick="bob", policy="block")
            await bob.news()
            bob.stop_reading()
            ann.tell_chat("chat.flood", room="lobby")
            await eventually(lambda: '"number":66' in str(ann.heard[-1:]))
            await settle()
            assert '"number":67' not in str(ann.heard)
            bob.read_on()
            await eventually(lambda: '"number":100' in str(bob.heard[-1:]))


SAY = '{"type": "chat.say", "payload": {"room": "lobby", "text": %s}}'


class TestBadMessages:
    @pytest.mark.parametrize(
        ("message", "code"),
        [
            ("", "bad_json"),
            ("hello", "bad_json"),
            ('{"type": ', "bad_json"),
            ('{"type": "chat.join", "payload": ' + "[" * 100_000, "bad_json"),
            (SAY % r'"\ud800"', "bad_json"),
            (b"\xff\x00", "bad_json"),
            (b"{}", "bad_envelope"),
            ("5", "bad_envelope"),
            ("[]", "bad_envelope"),
            ('{"type": "chat.say"}', "invalid_payload"),
            ('{"payload": {}}', "bad_envelope"),
            ('{"type": 5, "payload": {}}', "bad_envelope"),
            ('{"type": "chat.shout", "payload": {}}', "unknown_type"),
            ('{"type": "chat.said", "payload": {}}', "unknown_type"),
            ('{"type": "chat.join", "payload": null}', "invalid_payload"),
            ('{"type": "chat.join", "payload": {"room": 5}}', "invalid_payload"),
            ('{"type": "chat.join", "payload": {"room": " "}}', "invalid_payload"),
            ('{"type": "chat.leave", "payload": {}}', "invalid_payload"),
            (SAY % "null", "invalid_payload"),
            (SAY % '" \\n "', "invalid_payload"),
            (SAY % json.dumps("x" * 2001), "invalid_payload"),
            ('{"type": "chat.leave", "payload": {"room": "tea"}}', "not_in_room"),
            ('{"type": "chat.say", "payload": {"room": "tea", "text": "x"}}', "not_in_room"),
        ],
    )
    async def test_one_is_answered_and_the_connection_goes_on(
        self, message: str | bytes, code: str
    ) -> None:
        async with open_venue() as venue:
            ann = await venue.enter("ann")
            ann.say(message)
            [(kind, payload)] = await ann.news()
            assert kind == "error"
            assert payload["code"] == code
            assert payload["message"]
            longest = "ä" * 2000
            ann.tell_chat("chat.say", room="lobby", text=longest)
            assert await ann.news() == [
                ("chat.said", {"room": "lobby", "nick": "ann", "text": longest})
            ]


class TestLeaving:
    @pytest.mark.parametrize("code", [1001, 1006, None])
    async def test_the_others_are_told_in_every_room(self, code: int | None) -> None:
        async with open_venue() as venue:
            ann, bob = await venue.enter("ann", "tea"), await venue.enter("bob", "tea", "alone")
            await ann.news()
            bob.leave(code)
            assert await ann.news() == [
                ("chat.left", {"room": "lobby", "nick": "bob"}),
                ("chat.left", {"room": "tea", "nick": "bob"}),
            ]
            assert set(venue.hub.rooms) == {"lobby", "tea"}

    async def test_they_are_told_of_one_whom_the_hub_disconnects(self) -> None:
        async with open_venue() as venue:
            ann, bob = await venue.enter("ann", "tea"), await venue.enter("bob", "tea")
            await ann.news()
            bob.stop_reading()
            for number in range(300):
                ann.tell_chat("chat.say", room="tea", text=str(number))
            await eventually(lambda: len(venue.hub.connections) == 1)
            await eventually(lambda: '"299"' in str(ann.heard[-1:]))
            news = await ann.news()
            assert ("chat.left", {"room": "lobby", "nick": "bob"}) in news
            assert ("chat.left", {"room": "tea", "nick": "bob"}) in news
            assert len([kind for kind, _ in news if kind == "chat.said"]) == 300
            bob.read_on()
            await eventually(lambda: bob.closed_with == (1013, "slow consumer"))

    async def test_what_an_ended_guest_had_still_said_is_not_done(self) -> None:
        async with open_venue() as venue:
            ann, bob = await venue.enter("ann"), await venue.enter("bob")
            await ann.news()
            bob.tell_chat("chat.say", room="lobby", text="too late")
            bob.tell_chat("chat.join", room="tea")
            await venue.hub.connections[1].socket.disconnect(1008)
            news = await ann.news()
            assert news[-1] == ("chat.left", {"room": "lobby", "nick": "bob"})
            assert "tea" not in venue.hub.rooms

    async def test_all_are_closed_with_the_hubs_code(self) -> None:
        async with open_venue() as venue:
            guests = [await venue.enter("ann"), await venue.enter("bob")]
            await venue.hub.aclose(1012)
            await settle()
            assert [guest.closed_with for guest in guests] == [(1012, ""), (1012, "")]


async def test_lists_and_notes_agree_however_many_come_and_go_at_once() -> None:
    async with open_venue() as venue:
        guests = [venue.knock(nick=f"guest{number}") for number in range(12)]
        for guest in guests:
            guest.tell_chat("chat.join", room="tea")
        for guest in guests[::2]:
            guest.tell_chat("chat.leave", room="tea")
        for guest in guests[::3]:
            guest.leave()
        staying = [guest for number, guest in enumerate(guests) if number % 2 and number % 3]
        await settle()
        here = {member.data.nick for member in venue.hub.rooms["tea"].members}
        assert len(here) == len(staying) == 4
        for guest in staying:
            known: set[str] = set()
            for kind, payload in await guest.news():
                if payload.get("room") != "tea":
                    continue
                if kind == "chat.members":
                    known = set(payload["members"])
                elif kind == "chat.joined":
                    known.add(payload["nick"])
                else:
                    known.discard(payload["nick"])
            assert known == here
