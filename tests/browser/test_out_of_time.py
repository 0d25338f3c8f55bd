"""A part of a page that takes the database too long, in a browser: its tabs stay, and it is asked again in place."""

import re
from urllib.parse import urlsplit

import pytest
from django.test import RequestFactory

from policystore import refusals

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

BASE = "/organizations/demo-org"
TABS = [
    pytest.param(f"{BASE}/runs/1/", "Blocked", id="a run's events"),
    pytest.param(f"{BASE}/insights/network-events/", "Blocked", id="all events"),
]
SEARCHES = [f"{BASE}/policy-store/", f"{BASE}/runs/", f"{BASE}/coverage/", f"{BASE}/detections/"]
TOO_WIDE = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


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
        answer = refusals.out_of_time(request)
        self.answered += 1
        return route.fulfill(status=503, headers=dict(answer.items()), body=answer.content)


@pytest.fixture
def page(open_page):
    made = open_page(viewport={"width": 1440, "height": 900})
    yield made
    # Chromium notes each 503 that was meant to come.
    made.complaints[:] = [text for text in made.complaints if "status of 503" not in text]


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
    page.get_by_role("searchbox").fill("e")
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
    page.locator("#impact").get_by_text(re.compile("Would block|it would block")).wait_for()
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
