"""Lists in a real browser: how much a screen shows of them, and how they fit into narrow ones."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

BASE = "/organizations/demo-org"
LISTS = [
    f"{BASE}/policy-store/",
    f"{BASE}/runs/",
    f"{BASE}/detections/?status=all",
    f"{BASE}/coverage/",
    f"{BASE}/insights/network-events/",
    f"{BASE}/baseline/",
    f"{BASE}/baseline/jobs/",
    f"{BASE}/endpoint-sets/",
    f"{BASE}/settings/members/",
    f"{BASE}/settings/global-blocklist/",
    f"{BASE}/settings/never-allow-hosts/",
]
ROWS = """() => [...document.querySelector("table.data").tBodies[0].rows].map((row) => {
  const { bottom, height } = row.getBoundingClientRect();
  return { height, isVisible: bottom <= innerHeight };
})"""
TOO_WIDE = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.mark.parametrize(
    ("address", "visible"), [(f"{BASE}/policy-store/", 12), (f"{BASE}/runs/", 12), (f"{BASE}/detections/", 10)]
)
def test_a_small_laptop_shows_many_rows_of_one_line(open_page, address, visible):
    page = open_page(viewport={"width": 1366, "height": 768})
    page.goto(address)
    rows = page.evaluate(ROWS)
    assert all(40 <= row["height"] <= 44 for row in rows)
    assert sum(row["isVisible"] for row in rows) >= visible


def test_a_page_of_network_events_is_not_endless_on_a_phone(open_page):
    page = open_page(viewport={"width": 375, "height": 800})
    page.goto(f"{BASE}/insights/network-events/")
    assert page.locator("table.data tbody tr").count() == 50
    assert page.evaluate("document.documentElement.scrollHeight") < 8000


def test_no_list_pushes_the_page_sideways(open_page):
    page = open_page()
    for address in LISTS:
        page.goto(address)
        for width in (320, 641, 768, 861, 1024, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            assert not page.evaluate(TOO_WIDE), f"{address} is wider than {width}"


def test_a_cut_text_is_shown_in_full_on_hover_and_on_focus(open_page):
    page = open_page(viewport={"width": 1024, "height": 800})
    page.goto(f"{BASE}/policy-store/?sort=name")
    name = "github-actions-goat-self-hosted-network-filtering-hr-build"
    cell = page.locator("td.cell-name", has_text=name)
    cell.hover()
    assert name in cell.get_attribute("title")
    row_height = cell.bounding_box()["height"]
    cell.get_by_role("link").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert cell.bounding_box()["height"] > row_height
    short = page.locator("td.cell-name", has_text="org-default")
    short.hover()
    assert short.get_attribute("title") is None
