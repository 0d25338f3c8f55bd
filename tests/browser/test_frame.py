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
    for kind in ("allowed", "blocked"):
        key = page.locator(f".key-{kind}").first
        assert style(key, "backgroundColor") == style(page.locator(f".chart-{kind}").first, "fill")


def test_the_text_of_charts_has_12_pixels_on_a_phone_too(open_page):
    page = open_page(viewport={"width": 375, "height": 800})
    page.goto(f"{BASE}/insights/")
    text = page.locator(".chart-number").first
    assert style(text, "fontSize") == "12px"
    assert text.evaluate("text => text.getScreenCTM().a") == 1


def test_the_sidebar_counts_what_waits(open_page):
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{BASE}/coverage/")
    for name in ("Change Requests", "Detections"):
        count = page.locator(".nav-link", has_text=name).locator(".nav-count")
        assert int(count.inner_text()) > 0
