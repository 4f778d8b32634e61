"""The demo's page in a real Chromium, against the real process on both Hypercorn workers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo.process import Demo
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser

_ARTIFACTS = Path("test-artifacts")
_PHONE = {"width": 390, "height": 844}


@pytest.fixture(params=["trio", "asyncio"])
def demo(request: pytest.FixtureRequest) -> Iterator[Demo]:
    with Demo(request.param, free_port()) as demo:  # which is to come back there
        yield demo


@pytest.fixture
def open_page(browser: Browser, demo: Demo) -> Iterator[Callable[..., Page]]:
    """Gives a function that opens a tab; the test fails if a tab's script has failed."""
    contexts = []
    errors: list[str] = []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        page.on("requestfailed", lambda request: errors.append(f"failed: {request.url}"))
        page.on(
            "response",
            lambda response: (
                errors.append(f"{response.status}: {response.url}")
                if response.status >= 400
                else None
            ),
        )
        page.goto(demo.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def enter(page: Page, nick: str, policy: str = "disconnect") -> None:
    page.get_by_label("Nickname").fill(nick)
    page.get_by_label("When this tab cannot keep up").select_option(policy)
    page.get_by_role("button", name="Enter the chat").click()
    expect_status(page, "Connected")
    page.get_by_role("heading", name="lobby").wait_for()


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def join(page: Page, room: str) -> None:
    page.get_by_label("Join a room").fill(room)
    page.get_by_role("button", name="Join", exact=True).click()
    page.get_by_role("heading", name=room).wait_for()


def expect_status(page: Page, text: str) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for()


def expect_line(page: Page, text: str, times: int = 1) -> None:
    """Wait until the room that shows has a line, the given number of times at least."""
    lines = page.locator("#log ol:not([hidden])").get_by_text(text, exact=True)
    lines.nth(times - 1).wait_for()


def expect_members(page: Page, *nicks: str) -> None:
    page.wait_for_function(
        """nicks => {
            const shown = [...document.querySelectorAll("#members li > span:first-child")];
            return JSON.stringify(shown.map((it) => it.textContent)) === JSON.stringify(nicks);
        }""",
        arg=list(nicks),
    )


def expect_no_sideways_scrolling(page: Page) -> None:
    width, scroll_width = page.evaluate(
        "[document.documentElement.clientWidth, document.documentElement.scrollWidth]"
    )
    assert scroll_width <= width


def picture(page: Page, name: str) -> None:
    _ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=_ARTIFACTS / f"{name}.png")


def test_two_tabs_talk_in_two_rooms(open_page: Callable[..., Page]) -> None:
    ann, bob = open_page(), open_page(color_scheme="dark")
    picture(ann, "door")
    picture(bob, "door-dark")
    enter(ann, "ann")
    enter(bob, "bob")
    expect_line(ann, "bob joined.")
    expect_members(ann, "ann", "bob")
    expect_members(bob, "ann", "bob")

    say(ann, "Hello, is this thing on?")
    expect_line(bob, "Hello, is this thing on?")
    say(bob, "Loud and clear.")
    expect_line(ann, "Loud and clear.")

    join(ann, "tea room")
    expect_members(ann, "ann")
    join(bob, "tea room")
    expect_members(bob, "ann", "bob")
    say(bob, "Kettle is on.")
    expect_line(ann, "Kettle is on.")
    assert ann.get_by_role("log").get_by_text("Loud and clear.").is_hidden()

    bob.get_by_role("button", name="lobby").click()
    expect_line(bob, "Loud and clear.")
    say(ann, "Milk?")
    say(ann, "Sugar?")
    unread = bob.get_by_role("button", name="tea room 2 unread")
    unread.wait_for()
    assert bob.title() == "(2) hubbub chat"
    picture(ann, "talk")
    picture(bob, "talk-dark")
    unread.click()
    expect_line(bob, "Sugar?")
    assert bob.get_by_role("button", name="tea room").get_attribute("aria-current") == "true"
    assert bob.title() == "hubbub chat"


def test_a_tab_that_is_closed_has_left(open_page: Callable[..., Page]) -> None:
    ann, bob = open_page(), open_page()
    enter(ann, "ann")
    enter(bob, "bob")
    expect_members(ann, "ann", "bob")
    bob.close()
    expect_line(ann, "bob left.")
    expect_members(ann, "ann")


def test_leaving_a_room(open_page: Callable[..., Page]) -> None:
    ann, bob = open_page(), open_page()
    enter(ann, "ann")
    enter(bob, "bob")
    assert bob.get_by_role("button", name="Leave room").is_disabled()
    join(ann, "tea")
    join(bob, "tea")
    bob.get_by_role("button", name="Leave room").click()
    expect_line(ann, "bob left.")
    bob.get_by_role("heading", name="lobby").wait_for()
    assert bob.get_by_role("button", name="tea").count() == 0
    say(ann, "Alone at last")
    join(bob, "tea")
    expect_line(ann, "bob joined.", 2)
    assert bob.get_by_text("Alone at last").count() == 0


def test_a_nick_that_is_taken_gets_a_number(open_page: Callable[..., Page]) -> None:
    ann, other = open_page(), open_page()
    enter(ann, "ann")
    enter(other, "ann")
    other.locator("#me").get_by_text("ann2", exact=True).wait_for()
    expect_members(ann, "ann", "ann2")


def test_a_nick_that_is_refused_can_be_changed(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_label("Nickname").fill("ann\u200b")
    page.get_by_role("button", name="Enter the chat").click()
    refusal = page.get_by_role("alert").filter(has_text="Expected a nick of 1 to 32 printable")
    refusal.wait_for()
    picture(page, "refused")
    enter(page, "ann")
    assert refusal.count() == 0


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=\"alert('img')\">",
        "<script>alert('script')</script>",
        "&lt;b&gt; <b>bold</b>",
    ],
)
def test_what_is_typed_stays_text(open_page: Callable[..., Page], text: str) -> None:
    ann, bob = open_page(), open_page()
    name = text[:32].strip()
    enter(ann, "ann")
    enter(bob, name)
    expect_line(ann, f"{name} joined.")
    expect_members(ann, name, "ann")
    join(ann, name)
    ann.get_by_role("button", name="lobby").click()
    say(ann, text)
    expect_line(bob, text)
    for page in (ann, bob):
        assert page.locator("#chat :is(img, script, b)").count() == 0


def test_it_comes_back_by_itself_when_the_server_does(
    open_page: Callable[..., Page], demo: Demo, request: pytest.FixtureRequest
) -> None:
    ann, bob = open_page(), open_page()
    enter(ann, "ann")
    join(ann, "tea")
    enter(bob, "bob")
    join(bob, "tea")
    backend = request.node.callspec.params["demo"]
    demo.interrupt()
    assert demo.wait() == 0
    for page in (ann, bob):
        expect_status(page, "Connection lost. Trying again in")
    say(ann, "Anybody?")
    ann.get_by_role("alert").filter(has_text="There is no connection").wait_for()
    assert ann.get_by_label("Message", exact=True).input_value() == "Anybody?"
    picture(ann, "lost")

    with Demo(backend, demo.port):
        for page in (ann, bob):
            expect_status(page, "Connected")
            expect_line(page, "Connected again. What was said meanwhile is not shown.")
            expect_members(page, "ann", "bob")
        say(ann, "Back in the tea room")
        expect_line(bob, "Back in the tea room")
        for page in (ann, bob):
            page.get_by_role("button", name="lobby").click()
            expect_members(page, "ann", "bob")
        say(bob, "And in the lobby")
        expect_line(ann, "And in the lobby")


def test_a_server_that_is_killed_is_no_different(
    open_page: Callable[..., Page], demo: Demo, request: pytest.FixtureRequest
) -> None:
    page = open_page()
    enter(page, "ann")
    demo.end()
    expect_status(page, "Connection lost. Trying again in")
    with Demo(request.node.callspec.params["demo"], demo.port):
        expect_status(page, "Connected")
        expect_members(page, "ann")


def box_of(page: Page, nick: str) -> Locator:
    """What the tab shows of a member's outbox."""
    return page.locator("#boxes li").filter(has=page.locator(".nick").get_by_text(nick, exact=True))


def flood(page: Page) -> None:
    page.get_by_role("button", name="Flood the room").click()


def freeze(page: Page) -> None:
    page.get_by_role("button", name="Freeze this tab").click()
    expect_status(page, "Frozen")


def read_on(page: Page) -> None:
    page.get_by_role("button", name="Read on").click()


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest", "coalesce"])
def test_a_frozen_tab_fills_its_outbox_and_its_policy_drops(
    open_page: Callable[..., Page], policy: str
) -> None:
    ann, eve = open_page(), open_page(color_scheme="dark")
    bob = open_page(color_scheme="dark")
    enter(ann, "ann")
    enter(eve, "eve")
    enter(bob, "bob", policy)
    expect_line(ann, "bob joined.")
    freeze(bob)
    flood(ann)
    for page in (ann, bob):  # the frozen tab watches over a connection of its own
        box_of(page, "bob").get_by_text(re.compile(r"^[1-9]\d* of 64 ")).wait_for()
        box_of(page, "bob").get_by_text(re.compile(r"^[1-9]\d* dropped$")).wait_for()
    picture(ann, f"flood-{policy}")
    picture(bob, f"frozen-{policy}-dark")
    for page in (ann, eve):
        expect_line(page, "ann floods the room: 400 of 400 messages came.")
        box_of(page, "eve").get_by_text("0 of 64 · 0 KiB").wait_for()
    say(eve, "Are you there, bob?")
    expect_line(ann, "Are you there, bob?")
    assert box_of(ann, "eve").get_by_text("dropped").count() == 0

    read_on(bob)
    expect_status(bob, "Connected")
    box_of(ann, "bob").get_by_text("0 of 64 · 0 KiB").wait_for()
    if policy != "drop-newest":
        expect_line(bob, "Are you there, bob?")
        bob.get_by_text(re.compile(r"of 400 messages came, [1-9]\d* are missing")).wait_for()
    say(bob, "I have been away")
    for page in (ann, bob, eve):
        expect_line(page, "I have been away")


@pytest.mark.parametrize("policy", ["disconnect", "block"])
def test_a_frozen_tab_is_disconnected_and_the_others_get_everything(
    open_page: Callable[..., Page], policy: str
) -> None:
    ann, bob, eve = open_page(), open_page(), open_page()
    enter(ann, "ann")
    enter(bob, "bob", policy)
    enter(eve, "eve", "drop-oldest")
    expect_line(ann, "eve joined.")
    freeze(bob)
    flood(ann)
    box_of(bob, "bob").get_by_text(re.compile(r"^\d\d of 64 ")).wait_for()
    expect_line(eve, "bob left.")
    for page in (ann, bob):
        box_of(page, "bob").get_by_text(re.compile("being disconnected|slow consumer")).wait_for()
    picture(ann, f"gone-{policy}")
    for page in (ann, eve):
        expect_line(page, "ann floods the room: 400 of 400 messages came.")
    assert box_of(ann, "eve").get_by_text("dropped").count() == 0
    read_on(bob)
    expect_line(bob, "Connected again. What was said meanwhile is not shown.")
    assert bob.get_by_text("You were disconnected: ").count() == 1
    say(bob, "Here I am again")
    for page in (ann, bob, eve):
        expect_line(page, "Here I am again")


def test_a_browser_that_cannot_stop_reading_says_so(browser: Browser, demo: Demo) -> None:
    with browser.new_context() as context:
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.add_init_script("delete window.WebSocketStream")
        page.goto(demo.url)
        enter(page, "ann")
        assert page.get_by_role("button", name="Freeze this tab").is_hidden()
        page.get_by_text("In this browser a page cannot stop reading").wait_for()
        say(page, "All the same")
        expect_line(page, "All the same")
        flood(page)
        expect_line(page, "ann floods the room: 400 of 400 messages came.")
        demo.interrupt()
        expect_status(page, "Connection lost. Trying again in")


def test_the_keyboard_is_enough(open_page: Callable[..., Page]) -> None:
    page = open_page()
    expect_focus(page, "nick")
    page.keyboard.type("ann")
    page.keyboard.press("Enter")
    expect_line(page, "You joined lobby.")
    expect_focus(page, "text")
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    expect_line(page, "by hand")
    expect_focus(page, "text")
    assert page.get_by_label("Message", exact=True).input_value() == ""

    tab_to(page, "room", "Shift+Tab")
    page.keyboard.type("tea")
    page.keyboard.press("Enter")
    expect_line(page, "You joined tea.")
    expect_focus(page, "text")

    tab_to(page, "lobby", "Shift+Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    picture(page, "keyboard")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="lobby").wait_for()
    expect_focus(page, "text")
    tab_to(page, "leave", "Shift+Tab")
    page.keyboard.press("Space")
    page.get_by_role("heading", name="tea").wait_for()
    expect_focus(page, "text")


FOCUS = "document.activeElement.id || document.activeElement.firstChild?.textContent || ''"
"""What has the focus: its id, or its text."""


def expect_focus(page: Page, name: str) -> None:
    page.wait_for_function(f"({FOCUS}) === {name!r}")


def tab_to(page: Page, name: str, key: str) -> None:
    for _ in range(20):
        page.keyboard.press(key)
        if page.evaluate(FOCUS) == name:
            return
    raise AssertionError(f"Expected to reach {name} by {key}")


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_shows_one_column(open_page: Callable[..., Page], color_scheme: str) -> None:
    options = {"viewport": _PHONE, "device_scale_factor": 2, "color_scheme": color_scheme}
    page = open_page(has_touch=True, is_mobile=True, **options)
    expect_no_sideways_scrolling(page)
    picture(page, f"phone-door-{color_scheme}")
    enter(page, "ann")
    guest = open_page()
    enter(guest, "W" * 32)
    for room in ("tea", "M" * 32, "a room with a view"):
        join(page, room)
    page.get_by_role("button", name="lobby").click()
    say(guest, "Donaudampfschifffahrtsgesellschaft" * 6)
    say(page, "A short answer.\n")
    expect_line(page, "A short answer.")
    expect_line(guest, "A short answer.")
    expect_no_sideways_scrolling(page)
    picture(page, f"phone-{color_scheme}")
    picture(guest, "long-words")
    page.get_by_text("Outboxes").click()
    box_of(page, "ann").get_by_text("0 of 64 · 0 KiB").wait_for()
    expect_no_sideways_scrolling(page)
    picture(page, f"phone-outboxes-{color_scheme}")
    box = page.get_by_role("button", name="Send").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= _PHONE["height"]
    expect_no_sideways_scrolling(guest)


def test_who_reads_the_end_stays_there_and_nobody_else(open_page: Callable[..., Page]) -> None:
    page, guest = open_page(viewport=_PHONE), open_page()
    enter(page, "ann")
    enter(guest, "bob")
    expect_line(page, "bob joined.")
    for number in range(12):
        say(guest, f"Line {number}\nof many")
    expect_line(page, "Line 11 of many")
    expect_in_sight(page, "Line 11 of many")
    page.set_viewport_size({"width": 390, "height": 422})  # as by a keyboard
    expect_in_sight(page, "Line 11 of many")

    log = page.get_by_role("log")
    log.evaluate("log => log.scrollBy(0, -log.scrollHeight)")
    expect_in_sight(page, "You joined lobby.")
    say(guest, "News")
    expect_line(page, "News")
    expect_in_sight(page, "You joined lobby.")
    say(page, "My own")
    expect_in_sight(page, "My own")


def expect_in_sight(page: Page, text: str) -> None:
    """Wait until a line of the log can be seen whole."""
    line = page.get_by_role("log").get_by_text(text, exact=True)
    page.wait_for_function(
        """line => {
            const own = line.getBoundingClientRect();
            const log = line.closest("[role=log]").getBoundingClientRect();
            return log.top <= own.top && own.bottom <= log.bottom;
        }""",
        arg=line.element_handle(),
    )
