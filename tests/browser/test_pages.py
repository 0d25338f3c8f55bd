"""The pages in a real browser: with JavaScript and without, by keyboard, narrow and wide, light and dark."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

BASE = "/organizations/demo-org"
PAGES = [
    f"{BASE}/policy-store/",
    f"{BASE}/policy-store/?q=nothing-has-this-name",
    f"{BASE}/policy-store/new/",
    f"{BASE}/policy-store/history/",
    f"{BASE}/policy-store/history/?person=maria&from=2026-01-01",
    f"{BASE}/policy-store/history/accounts/",
    f"{BASE}/policy-store/which/?repository=dockerfiles&workflow=codespell.yml&disable-sudo=true",
    f"{BASE}/policy-store/break-glass/",
    f"{BASE}/policy-store/1/",
    f"{BASE}/policy-store/1/edit/",
    f"{BASE}/policy-store/1/staged/",
    f"{BASE}/policy-store/1/attach/",
    f"{BASE}/policy-store/1/detach/",
    f"{BASE}/policy-store/1/history/",
    f"{BASE}/policy-store/1/versions/",
    f"{BASE}/policy-store/1/versions/1/",
    f"{BASE}/policy-store/1/versions/compare/",
    f"{BASE}/policy-store/1/versions/1/restore/",
    f"{BASE}/policy-store/1/delete/",
    f"{BASE}/impact/1/detach/",
    f"{BASE}/baseline/",
    f"{BASE}/baseline/repositories/",
    f"{BASE}/baseline/clusters/",
    f"{BASE}/baseline/jobs/",
    f"{BASE}/detections/",
    f"{BASE}/detections/1/",
    f"{BASE}/detections/suppression-rules/",
    f"{BASE}/detections/suppression-rules/new/",
    f"{BASE}/insights/",
    f"{BASE}/runs/",
    f"{BASE}/runs/1/",
    f"{BASE}/settings/harden-runner-installation/",
    f"{BASE}/settings/harden-runner-installation/job-hooks/",
    f"{BASE}/settings/harden-runner-installation/github-hosted/",
    f"{BASE}/settings/harden-runner-installation/cargowall/",
    f"{BASE}/settings/harden-runner-installation/last-calls/",
    f"{BASE}/settings/management-keys/",
    f"{BASE}/settings/global-blocklist/",
    f"{BASE}/settings/members/",
    f"{BASE}/settings/inventory/",
]
TOO_WIDE = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
MISSING_ICONS = """() => [...document.querySelectorAll("use")]
  .filter((icon) => icon.checkVisibility() && !icon.getBBox().height).map((icon) => icon.href.baseVal)"""
# Texts whose contrast against what is behind them is below what WCAG AA asks of small text.
FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const drawn = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const rgba = (color) => {
    if (!known.has(color)) known.set(color, drawn(color));
    return known.get(color);
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("main *, .sidebar *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const left_out = element.closest(".editor-surface, [disabled], .visually-hidden");
    if (!own || left_out || !element.checkVisibility()) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(element.textContent.trim().slice(0, 40));
  }
  return found;
}"""


def test_every_page_fits_its_screen_is_readable_and_has_no_complaint(open_page):
    page = open_page()
    for address in PAGES:
        page.set_viewport_size({"width": 375, "height": 900})
        page.emulate_media(color_scheme="dark")
        answer = page.goto(address)
        assert answer.status == 200, address
        assert page.evaluate(MISSING_ICONS) == [], address
        assert page.locator("h1").count() == 1, address
        # The layout depends on the width alone, the contrast on the colour scheme alone.
        for width, scheme, sidebar in ((375, "dark", "hidden"), (1440, "light", "visible")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            # A script closes the sidebar of a narrow page, and opens it again.
            page.locator(".sidebar-inner").wait_for(state=sidebar)
            assert not page.evaluate(TOO_WIDE), f"{address} is wider than {width}"
            assert page.evaluate(FAINT) == [], (address, scheme)


def test_a_policy_is_written_attached_and_its_history_shown(open_page):
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{BASE}/policy-store/")
    page.get_by_role("link", name="Create policy").click()
    page.get_by_label("Policy name").fill("written-in-a-browser")
    editor = page.locator(".ace_text-input")
    editor.focus()
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.insert_text("egress-policy: block\nallowed-endpoint: github.com:443\n")
    # The problem shows while writing, and beside its line.
    page.locator("#problems").get_by_text("allowed-endpoints").first.wait_for()
    page.locator(".ace_gutter-cell.ace_error").wait_for()
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.insert_text("egress-policy: block\nallowed-endpoints: >\n  github.com:443\n")
    page.get_by_role("heading", name="No problems").wait_for()
    page.get_by_role("button", name="Add Policy").click()
    page.get_by_text("was created").wait_for()

    page.get_by_role("link", name="Attach policy").first.click()
    page.get_by_label("Repository").check()
    page.get_by_label("Target").fill("dockerfiles")
    page.get_by_role("checkbox", name="demo-org/dockerfiles", exact=True).check()
    page.get_by_text("Will be added").wait_for()
    page.get_by_role("button", name="Attach policy").click()
    page.get_by_text("The attachment of written-in-a-browser was changed.").wait_for()

    page.get_by_role("link", name="Edit policy").first.click()
    page.locator(".ace_text-input").focus()
    page.keyboard.press("Control+End")
    page.keyboard.insert_text("  ghcr.io:443\n")
    page.get_by_role("button", name="Update Policy").click()
    page.get_by_text("was updated").wait_for()
    page.get_by_label("Actions for written-in-a-browser").click()
    page.get_by_role("link", name="View history").click()
    headings = page.locator(".event-head h3").all_inner_texts()
    assert headings == ["Policy Updated", "Policy Attached", "Policy Created"]
    page.get_by_text("1 line added, 0 removed").click()
    page.locator("td.added", has_text="ghcr.io:443").wait_for()


def test_a_page_whose_policy_is_deleted_meanwhile_gives_way_to_the_list(open_page):
    page, other = open_page(), open_page()
    page.goto(f"{BASE}/policy-store/new/")
    page.get_by_label("Policy name").fill("soon-gone")
    page.get_by_role("button", name="Add Policy").click()
    page.get_by_role("link", name="Attach policy").first.click()
    page.get_by_label("Repository").wait_for()
    other.goto(page.url.replace("/attach/", "/delete/"))
    other.locator("main input[name=name]").fill("soon-gone")
    other.locator("main form button").first.click()
    other.get_by_text("soon-gone was deleted.").wait_for()
    # Not `check`, which fails if the page is left before it has looked whether the radio button is checked.
    page.get_by_label("Repository").click()
    page.wait_for_url("**/policy-store/")
    page.get_by_text("The policy soon-gone was deleted in the meantime.").first.wait_for()
    assert page.locator("h1").count() == 1


def test_everything_works_without_javascript(open_page):
    page = open_page(java_script_enabled=False)
    page.goto(f"{BASE}/policy-store/new/")
    page.get_by_label("Policy name").fill("without-javascript")
    page.locator("textarea[name=text]").fill("egress-policy: audit\nallowed-endpoint: x\n")
    page.get_by_role("button", name="Add Policy").click()
    assert "allowed-endpoints" in page.locator("#problems").inner_text()
    page.locator("textarea[name=text]").fill("egress-policy: audit\nallowed-endpoints: >\n  github.com:443\n")
    page.get_by_role("button", name="Add Policy").click()
    page.get_by_role("link", name="Attach policy").first.click()
    page.get_by_label("Workflow").check()
    page.get_by_label("Target").fill("fresh/ci.yml")
    page.get_by_role("button", name="Add this name").click()
    page.get_by_role("button", name="Attach policy").click()
    assert "demo-org/fresh/ci.yml" in page.locator("main").inner_text()
    page.locator("summary[aria-label^='Actions for']").click()
    page.get_by_role("link", name="Detach policy").click()
    page.locator("main form button").first.click()
    assert "Not attached" in page.locator("main").inner_text()
    page.locator("summary[aria-label^='Actions for']").click()
    page.get_by_role("link", name="Delete policy").click()
    page.locator("main input[name=name]").fill("without-javascript")
    page.locator("main form button").first.click()
    assert "was deleted" in page.locator("main").inner_text()


def test_the_three_dot_menu_works_by_keyboard_alone(open_page):
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{BASE}/policy-store/?sort=name")
    button = page.locator("summary[aria-label^='Actions for']").first
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.innerText.trim()") == "View policy"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.innerText.trim()") == "Delete policy"
    own = page.locator("td.cell-name a").first.evaluate("link => link.href")
    assert page.evaluate("document.activeElement.href") == f"{own}delete/"
    page.keyboard.press("Escape")
    assert button.evaluate("element => element === document.activeElement && !element.parentElement.open")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/policy-store/*/")


def test_the_second_of_two_saves_is_refused_with_both_texts(open_page):
    first, second = open_page(), open_page()
    for page in (first, second):
        page.goto(f"{BASE}/policy-store/2/edit/")
    for page, endpoint in ((first, "first.example:443"), (second, "second.example:443")):
        page.locator(".ace_text-input").focus()
        page.keyboard.press("Control+End")
        page.keyboard.insert_text(f"# {endpoint}\n")
        page.get_by_role("button", name="Update Policy").click()
        page.wait_for_load_state()
    first.get_by_text("was updated").wait_for()
    second.get_by_text("Not saved.").wait_for()
    diff = second.locator(".diff").inner_text()
    assert "first.example" in diff
    assert "second.example" in diff
    assert "second.example" in second.locator("textarea[name=text]").input_value()
    second.set_viewport_size({"width": 375, "height": 800})
    for text in ("first.example", "second.example"):
        line = second.locator(".diff td:visible", has_text=text).first.bounding_box()
        assert line["x"] + line["width"] <= 375


def test_searching_swaps_the_list_without_moving_the_page(open_page):
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{BASE}/policy-store/", wait_until="networkidle")
    page.evaluate(
        """() => {
          window.moved = 0;
          new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.moved += entry.value;
          }).observe({ type: "layout-shift" });
        }"""
    )
    before = page.locator("main").get_by_role("searchbox").bounding_box()
    page.locator("main").get_by_role("searchbox").press_sequentially("kubehound", delay=40)
    page.wait_for_url("**q=kubehound*")
    page.wait_for_timeout(700)
    assert page.locator("tbody tr").count() == 2
    assert page.locator("#announcement").inner_text() == "2 results"
    assert page.locator(".counter strong").first.inner_text() == "2"
    assert page.locator("main").get_by_role("searchbox").bounding_box() == before
    assert page.evaluate("window.moved") < 0.02


def test_a_new_key_is_shown_once(open_page):
    page = open_page()
    page.goto(f"{BASE}/settings/harden-runner-installation/")
    page.get_by_role("button", name="Generate").first.click()
    key = page.locator("#fresh-key").inner_text()
    assert re.fullmatch(r"ps_vm_[0-9A-Za-z]{38}", key)
    page.goto(f"{BASE}/settings/harden-runner-installation/")
    assert key not in page.content()
    page.get_by_text("No call yet").first.wait_for()


def test_the_impact_of_a_draft_follows_the_text_and_adds_to_it_in_place(open_page):
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{BASE}/policy-store/new/")
    told = page.locator("#impact [role=status]")
    told.get_by_text("Block mode would have blocked").wait_for()
    page.locator(".ace_text-input").focus()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("egress-policy: block # strict\nallowed-endpoints: >\n  github.com:443 # ours\n")
    told.get_by_text(re.compile("^\\s*Would block")).wait_for()
    page.get_by_role("button", name="Add api.github.com:443 to the draft").click()
    page.locator(".ace_line", has_text="api.github.com:443").wait_for()
    page.get_by_role("button", name="Add api.github.com:443 to the draft").wait_for(state="detached")
    text = page.locator("textarea[name=text]").input_value()
    assert text.startswith("egress-policy: block # strict\n")
    assert "github.com:443 # ours" in text
    assert page.url.endswith("/policy-store/new/")


def test_the_impact_is_shown_and_added_to_without_scripts(open_page):
    page = open_page(java_script_enabled=False)
    page.goto(f"{BASE}/policy-store/new/")
    page.get_by_role("button", name="Show impact").click()
    page.get_by_text("Block mode would have blocked").wait_for()
    page.get_by_role("button", name="Add ghcr.io:443 to the draft").click()
    assert "  github.com:443\n  ghcr.io:443\n" in page.locator("textarea[name=text]").input_value()
    page.goto(f"{BASE}/policy-store/1/detach/")
    page.get_by_role("button", name="Show impact").click()
    page.get_by_text("would get a different policy, or none").wait_for()
