"""A part of a page that takes the database too long, in a browser: its tabs stay, and it is asked again in place."""

import re
from urllib.parse import urlsplit

import pytest
from django.test import RequestFactory

from policystore.web import error_pages
from tests.browser.test_pages import FAINT, TOO_WIDE

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

BASE = "/organizations/demo-org"
TABS = [
    pytest.param(f"{BASE}/runs/1/", "Blocked", id="a run's events"),
    pytest.param(f"{BASE}/insights/network-events/", "Blocked", id="all events"),
]
SEARCHES = [f"{BASE}/policy-store/", f"{BASE}/runs/", f"{BASE}/coverage/", f"{BASE}/detections/"]
ADDED = "api.github.com:443"


class Slow:
    """Lets a page's parts be answered as the store answers what takes its database too long, until `ended`."""

    def __init__(self, page, path="**/*"):
        self.ended = False
        self.answered = 0
        page.route(path, self._answer)

    def _answer(self, route):
        asked = route.request
        if self.ended or "hx-request" not in asked.headers:
            return route.continue_()
        names = {name: asked.headers[name] for name in ("hx-request", "hx-target") if name in asked.headers}
        address = urlsplit(asked.url)
        request = RequestFactory().generic(asked.method, address.path, QUERY_STRING=address.query, headers=names)
        answer = error_pages.out_of_time(request)
        self.answered += 1
        return route.fulfill(status=503, headers=dict(answer.items()), body=answer.content)


@pytest.fixture
def page(open_page):
    made = open_page(viewport={"width": 1440, "height": 900})
    yield made
    # Chromium notes each 503 that was meant to come, and with htmx each request that was meant to fail.
    meant = ("status of 503", "net::ERR_FAILED", "htmx:sendError", "htmx:afterRequest")
    made.complaints[:] = [text for text in made.complaints if not any(part in text for part in meant)]


@pytest.mark.parametrize(("address", "tab"), TABS)
def test_the_tabs_stay_and_the_part_is_asked_for_again_by_keyboard(page, address, tab):
    page.goto(address, wait_until="networkidle")
    slow = Slow(page, f"**{address}?*")
    tabs = page.get_by_role("navigation", name="Narrow the events")
    names = tabs.get_by_role("link").all_inner_texts()
    tabs.get_by_role("link", name=tab).focus()
    page.keyboard.press("Enter")
    part = page.locator("#events")
    part.get_by_role("status").get_by_text("Reading this took the database more than").wait_for()
    assert tabs.get_by_role("link").all_inner_texts() == names
    assert tabs.locator("[aria-current]").all_inner_texts() == [tab]
    assert part.locator("table").count() == 0
    assert page.evaluate("document.activeElement.innerText") == tab

    again = part.get_by_role("button", name="Try again")
    again.focus()
    again.evaluate("button => { button.dataset.pressed = '1' }")
    page.keyboard.press("Enter")
    # Not before htmx knows the new button.
    part.locator(":not(.htmx-added) > [data-try-again]:not([data-pressed]):focus").wait_for()
    assert (slow.answered, part.get_by_role("status").count()) == (2, 1)

    slow.ended = True
    page.keyboard.press("Enter")
    again.wait_for(state="detached")
    assert tabs.get_by_role("link").all_inner_texts() == names
    assert tabs.locator("[aria-current]").all_inner_texts() == [tab]
    page.locator("#events:focus").wait_for()
    assert re.search(r"\?tab=\w+$", page.url)


@pytest.mark.parametrize(("address", "tab"), TABS)
def test_the_keyboard_stays_on_a_tab_that_was_chosen(page, address, tab):
    page.goto(address, wait_until="networkidle")
    tabs = page.get_by_role("navigation", name="Narrow the events")
    tabs.get_by_role("link", name=tab).focus()
    page.keyboard.press("Enter")
    tabs.locator("[aria-current]", has_text=tab).wait_for()
    assert page.evaluate("document.activeElement.innerText") == tab


@pytest.mark.parametrize("address", SEARCHES)
def test_what_narrows_a_list_stays_when_a_search_takes_too_long(page, address):
    page.goto(address, wait_until="networkidle")
    slow = Slow(page)
    narrow = page.get_by_role("navigation", name="Narrow the list")
    names = narrow.get_by_role("link").all_inner_texts()
    page.locator("main").get_by_role("searchbox").fill("e")
    page.get_by_role("button", name="Try again").wait_for()
    assert narrow.get_by_role("link").all_inner_texts() == names
    slow.ended = True
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="Try again").wait_for(state="detached")
    assert narrow.get_by_role("link").count() == len(names)


@pytest.mark.parametrize("width", [375, 1440])
def test_a_part_that_loads_by_itself_is_asked_for_again_in_place(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{BASE}/detections/1/")
    page.goto(page.locator("main a[href*='/runs/']").first.get_attribute("href"), wait_until="networkidle")
    page.get_by_role("heading", name="Detections").wait_for()
    slow = Slow(page)
    page.reload()
    again = page.locator("#detections").get_by_role("button", name="Try again")
    again.wait_for()
    assert not page.evaluate(TOO_WIDE)
    slow.ended = True
    again.click()
    page.get_by_role("heading", name="Detections").wait_for()


def test_the_impact_of_a_draft_is_asked_for_again_with_the_text_as_it_is(page):
    page.goto(f"{BASE}/policy-store/new/", wait_until="networkidle")
    page.locator("#impact").get_by_role("status").wait_for()
    slow = Slow(page)
    page.locator("#impact select").first.select_option(index=1)
    again = page.locator("#impact").get_by_role("button", name="Try again")
    again.wait_for()
    assert page.locator("#impact").get_by_role("heading", name="Impact").count() == 1
    assert page.locator("#impact select").count() > 0
    slow.ended = True
    again.click()
    page.locator("#impact").get_by_text(re.compile(r"Would block|Block mode would\s+have\s+blocked")).wait_for()
    assert page.locator("#impact").get_by_role("button", name="Try again").count() == 0


def test_the_heading_of_what_loads_by_itself_stays(page):
    page.goto(f"{BASE}/policy-store/1/staged/", wait_until="networkidle")
    page.get_by_role("button", name="Stage version").click()
    page.get_by_role("heading", name="Live and staged").wait_for()
    slow = Slow(page)
    page.goto(f"{BASE}/policy-store/1/staged/")
    counts = page.locator("#counts")
    again = counts.get_by_role("button", name="Try again")
    again.wait_for()
    assert counts.get_by_role("heading", name="What it would have blocked").count() == 1
    slow.ended = True
    again.click()
    again.wait_for(state="detached")
    assert counts.get_by_role("heading", name="What it would have blocked").count() == 1
    page.get_by_role("button", name="Discard").click()
    page.wait_for_url(f"**{BASE}/policy-store/1/")
    assert page.locator("dt", has_text="Staged version").count() == 0


def draft(page, text="egress-policy: block\nallowed-endpoints: >\n  github.com:443 # ours\n"):
    """Opens the editor of a new policy with this text and its impact; the button that adds an endpoint to it."""
    page.goto(f"{BASE}/policy-store/new/", wait_until="networkidle")
    page.locator(".ace_text-input").focus()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)
    page.locator("#impact [role=status]").get_by_text(re.compile("^\\s*Would block")).wait_for()
    return page.get_by_role("button", name=f"Add {ADDED} to the draft")


def written(page):
    return page.locator("textarea[name=text]").input_value()


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1440, "light")])
def test_what_could_not_be_added_to_a_draft_is_told_below_it_and_can_be_added_again(open_page, width, scheme):
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    add = draft(page)
    before = written(page)
    slow = Slow(page, "**/policy-store/new/")
    told = page.locator("#impact [role=alert]")
    for pressed in (1, 2):
        add.focus()
        page.keyboard.press("Enter")
        told.get_by_text("Nothing was added").wait_for()
        page.locator("button[name=add]:focus:not(.htmx-request)").wait_for()
        assert (slow.answered, told.count()) == (pressed, 1)
    assert written(page) == before
    assert told.evaluate("alert => alert.closest('tr').previousElementSibling.innerText").startswith(ADDED)
    assert not page.evaluate(TOO_WIDE)
    assert page.evaluate(FAINT) == []
    slow.ended = True
    page.keyboard.press("Enter")
    page.locator(".ace_line", has_text=ADDED).wait_for()
    told.wait_for(state="detached")
    add.wait_for(state="detached")
    assert "github.com:443 # ours" in written(page)
    page.complaints[:] = [text for text in page.complaints if "status of 503" not in text]


def test_an_endpoint_is_added_again_once_the_store_is_reached_again(page):
    add = draft(page)
    page.route("**/policy-store/new/", lambda route: route.abort())
    add.click()
    page.locator("#impact [role=alert]").get_by_text("could not be reached").wait_for()
    page.unroute("**/policy-store/new/")
    add.click()
    page.locator(".ace_line", has_text=ADDED).wait_for()


def test_what_is_written_while_an_endpoint_is_added_is_kept(page):
    add = draft(page)
    waiting = []
    page.route("**/policy-store/new/", lambda route: waiting.append(route))
    add.click()
    page.locator("button[name=add].htmx-request").wait_for()
    page.locator(".ace_text-input").focus()
    page.keyboard.press("Control+End")
    page.keyboard.insert_text("  mine.example:443\n")
    waiting.pop().continue_()
    page.locator("#impact [role=alert]").get_by_text("you changed the text meanwhile").wait_for()
    page.unroute("**/policy-store/new/")
    assert "mine.example:443" in written(page)
    # The impact follows the text, and takes the notice with it.
    page.locator("#impact [role=alert]").wait_for(state="detached")
    add.click()
    page.locator(".ace_line", has_text=ADDED).wait_for()
    assert "mine.example:443" in written(page)


def test_endpoints_that_are_added_one_right_after_the_other_are_all_added(page):
    add = draft(page)
    waiting = []
    page.route("**/policy-store/new/", lambda route: waiting.append(route), times=1)
    add.click()
    page.get_by_role("button", name="Add ghcr.io:443 to the draft").click()
    page.wait_for_timeout(200)
    waiting.pop().continue_()
    page.locator(".ace_line", has_text="ghcr.io:443").wait_for()
    assert ADDED in written(page)


def test_why_nothing_can_be_added_to_a_text_in_braces_is_told_below_the_endpoint(page):
    add = draft(page, "{egress-policy: block}\n")
    add.click()
    page.locator("#impact [role=alert]").get_by_text("or uses {…} syntax").wait_for()
    assert written(page) == "{egress-policy: block}\n"
