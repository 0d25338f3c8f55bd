"""The frame of the pages and their charts in a real browser."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

BASE = "/organizations/demo-org"
STYLE = "(element, name) => getComputedStyle(element)[name]"


def style(locator, name):
    return locator.evaluate(STYLE, name)


def test_forced_colours_keep_the_selection_and_the_legend(open_page):
    page = open_page(forced_colors="active", viewport={"width": 1440, "height": 900})
    page.goto(f"{BASE}/policy-store/")
    entries = page.locator(".nav-link")
    assert style(entries.nth(0), "backgroundColor") != style(entries.nth(1), "backgroundColor")
    counters = page.locator(".counter")
    assert style(counters.nth(0), "outlineStyle") == "solid"
    assert style(counters.nth(1), "outlineStyle") == "none"
    page.goto(f"{BASE}/insights/")
    tabs = page.locator(".tabs a")
    assert style(tabs.nth(0), "borderBottomColor") != style(tabs.nth(1), "borderBottomColor")
    assert style(page.locator(".segments a[aria-current]"), "outlineStyle") == "solid"
    page.goto(f"{BASE}/policy-store/?q=org-default")
    page.locator("main").get_by_role("link", name="org-default", exact=True).click()
    page.get_by_role("link", name="Staged version").first.click()
    for kind in ("allowed", "would"):
        key = page.locator(f".key-{kind}").first
        assert style(key, "backgroundColor") == style(page.locator(f".chart-{kind}").first, "fill")


def test_the_text_of_charts_has_12_pixels_on_a_phone_too(open_page):
    page = open_page(viewport={"width": 375, "height": 800})
    page.goto(f"{BASE}/insights/")
    text = page.locator(".chart-number").first
    assert style(text, "fontSize") == "12px"
    assert text.evaluate("text => text.getScreenCTM().a") == 1


def test_a_chart_shows_a_day_under_the_pointer_or_chosen_by_arrow_keys(open_page):
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{BASE}/insights/?period=7d")
    chart = page.get_by_role("group", name="Blocked calls over time")
    days = chart.locator(".chart-area title").all_text_contents()
    value = chart.get_by_role("status")
    chart.locator(".chart-area").nth(2).hover()
    assert value.inner_text() == days[2].strip()
    chart.focus()
    assert value.inner_text() == days[6].strip()
    page.keyboard.press("ArrowLeft")
    assert value.inner_text() == days[5].strip()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert value.inner_text() == days[0].strip()


def test_the_sidebar_counts_what_waits(open_page):
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{BASE}/coverage/")
    for name in ("Change Requests", "Detections"):
        count = page.locator(".nav-link", has_text=name).locator(".nav-count")
        assert int(count.inner_text()) > 0
