"""Requests that fail, and forms whose session has ended: the page says so, and nothing that was entered is lost."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

BASE = "/organizations/demo-org"
EDIT = f"{BASE}/policy-store/2/edit/"


@pytest.fixture
def page(open_page):
    made = open_page(viewport={"width": 1440, "height": 900})
    yield made
    # Chromium and htmx note each request that was meant to fail.
    meant = (
        "status of 500",
        "net::ERR_FAILED",
        "htmx:sendError",
        "htmx:afterRequest",
        "htmx:responseError",
        "Response Status",
    )
    made.complaints[:] = [text for text in made.complaints if not any(part in text for part in meant)]


def type_into_editor(page, text):
    page.locator(".ace_text-input").focus()
    page.keyboard.press("Control+End")
    page.keyboard.insert_text(text)


def fail(route):
    route.fulfill(status=500, body="")


@pytest.mark.parametrize("how", [fail, lambda route: route.abort()], ids=["error", "no answer"])
def test_a_failed_check_is_reported_and_can_be_repeated(page, how):
    page.goto(EDIT, wait_until="networkidle")
    page.route("**/check/", how)
    type_into_editor(page, "nonsense: 1\n")
    page.get_by_text("This page could not be updated.").wait_for()
    assert "outdated" in page.locator("#problems").get_attribute("class")
    page.unroute("**/check/")
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("Unknown key “nonsense”").first.wait_for()
    page.get_by_text("This page could not be updated.").wait_for(state="detached")
    assert "outdated" not in (page.locator("#problems").get_attribute("class") or "")


def test_a_failed_search_is_reported(page):
    page.goto(f"{BASE}/policy-store/", wait_until="networkidle")
    page.route("**/policy-store/?*", fail)
    page.locator("main").get_by_role("searchbox").first.fill("release")
    page.get_by_text("This page could not be updated.").wait_for()
    page.get_by_role("button", name="Dismiss").click()
    assert page.get_by_text("This page could not be updated.").count() == 0


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("policy-store/1/", "**/runs/of-policy/*/"),
        ("policy-store/1/detach/", "**/impact/1/detach/"),
        ("policy-store/new/", "**/impact/draft/"),
        ("runs/240/", "**/detections/of-run/*/"),
        ("settings/harden-runner-installation/", "**/last-calls/"),
    ],
)
def test_a_part_that_could_not_be_loaded_is_reported_and_can_be_loaded_again(page, address, part):
    page.route(part, fail)
    page.goto(f"{BASE}/{address}")
    page.get_by_text("This page could not be updated.").wait_for()
    page.unroute(part)
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("This page could not be updated.").wait_for(state="detached")


@pytest.mark.parametrize("address", ["runs/", "coverage/", "detections/", "endpoint-sets/"])
def test_a_failed_search_of_any_list_is_reported(page, address):
    page.goto(f"{BASE}/{address}", wait_until="networkidle")
    page.route("**/*?q=*", fail)
    page.locator("main").get_by_role("searchbox").first.fill("release")
    page.get_by_text("This page could not be updated.").wait_for()
    page.unroute("**/*?q=*")
    page.get_by_role("button", name="Try again").click()
    page.locator("#announcement", has_text=re.compile("result|Nothing|No ")).wait_for(state="attached")
    assert page.get_by_text("This page could not be updated.").count() == 0


def test_a_failed_quick_search_can_be_repeated(page):
    page.goto(f"{BASE}/coverage/", wait_until="networkidle")
    page.route("**/search/?*", fail)
    page.keyboard.press("/")
    page.keyboard.type("org-def")
    page.get_by_text("The search failed.").first.wait_for()
    page.unroute("**/search/?*")
    page.get_by_role("button", name="Try again").click()
    page.locator("#quick-search [data-result]").first.wait_for()


def test_unsaved_text_is_not_lost_without_a_question(page):
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.goto(EDIT, wait_until="networkidle")
    page.get_by_role("link", name="Cancel").click()
    page.wait_for_url("**/policy-store/2/")
    page.goto(EDIT, wait_until="networkidle")
    type_into_editor(page, "# unsaved\n")
    page.get_by_role("link", name="Cancel").click()
    page.wait_for_timeout(300)
    assert asked == ["beforeunload"]
    assert page.url.endswith(EDIT)
    assert "# unsaved" in page.locator("textarea[name=text]").input_value()


def test_the_keyboard_saves_and_leaves_the_editor(page):
    page.goto(EDIT, wait_until="networkidle")
    type_into_editor(page, "# saved by keyboard\n")
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.editor-surface')") is None
    page.locator(".ace_text-input").focus()
    page.keyboard.press("Control+s")
    page.get_by_text("was updated").wait_for()


def test_a_form_outlives_its_session(page, store, open_page):
    page.goto(EDIT, wait_until="networkidle")
    type_into_editor(page, "# kept through a sign-in\n")
    cookies = page.context.cookies()
    page.context.clear_cookies(name=next(cookie["name"] for cookie in cookies if "session" in cookie["name"]))
    page.get_by_role("button", name="Update Policy").click()
    page.get_by_role("heading", name="Your session has ended").wait_for()
    assert "# kept through a sign-in" in page.get_by_label("Text").input_value()
    # As if the person had signed in in another tab.
    page.context.add_cookies(cookies)
    page.get_by_role("button", name="Send again").click()
    page.get_by_text("was updated").wait_for()


def test_an_endpoint_is_added_to_a_draft_after_a_new_sign_in(page):
    page.goto(f"{BASE}/policy-store/new/", wait_until="networkidle")
    cookies = page.context.cookies()
    page.context.clear_cookies(name=next(cookie["name"] for cookie in cookies if "session" in cookie["name"]))
    page.get_by_role("button", name="Add ghcr.io:443 to the draft").click()
    page.get_by_text("Your session has ended.").wait_for()
    assert page.get_by_text("Nothing was added").count() == 0
    page.context.add_cookies(cookies)
    page.get_by_role("button", name="Try again").click()
    page.locator(".ace_line", has_text="ghcr.io:443").wait_for()


def test_parts_of_a_page_work_after_a_sign_in_in_another_tab(page, store):
    page.goto(EDIT, wait_until="networkidle")
    # As a sign-in does.
    page.context.add_cookies([{"name": "csrftoken", "value": "x" * 32, "url": store.address}])
    type_into_editor(page, "nonsense: 1\n")
    page.get_by_text("Unknown key “nonsense”").first.wait_for()
