"""Forms by keyboard: choosing targets, completing words, and where the focus is after an error."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

BASE = "/organizations/demo-org"
FOCUSED = "document.activeElement.id || document.activeElement.name"


@pytest.fixture
def page(open_page):
    made = open_page(viewport={"width": 1440, "height": 900})
    yield made
    # htmx notes each request that ends since the page is left.
    made.complaints[:] = [text for text in made.complaints if not text.startswith("htmx:")]


@pytest.fixture
def fresh(page, request):
    """The attach page of a new policy."""
    page.goto(f"{BASE}/policy-store/new/")
    page.get_by_label("Policy name").fill(request.node.name[:90])
    page.get_by_role("button", name="Add Policy").click()
    page.get_by_text("was created").wait_for()
    page.goto(f"{page.url}attach/", wait_until="networkidle")
    return page


def write(page, text):
    page.locator(".ace_text-input").focus()
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(text)


def test_targets_are_chosen_by_keyboard_without_a_reload(fresh):
    page = fresh
    page.evaluate("window.isSame = true")
    page.get_by_label("Repository").check()
    page.get_by_role("checkbox", name="demo-org/dockerfiles", exact=True).wait_for()
    page.get_by_label("Target").focus()
    page.keyboard.insert_text("dockerf")
    page.keyboard.press("Enter")
    page.locator("#targets li").nth(1).wait_for(state="detached")
    assert page.evaluate(FOCUSED) == "target-name"
    box = page.get_by_role("checkbox", name="demo-org/dockerfiles", exact=True)
    box.focus()
    page.keyboard.press("Space")
    pending = page.locator("#pending")
    pending.get_by_text(re.compile("Will be added|Replaces ")).wait_for()
    assert page.evaluate(FOCUSED) == "target-1"
    page.locator("#change-count", has_text="1 to add, 0 to remove").wait_for()
    page.locator("#impact-verdict", has_text="would get a different policy").wait_for()

    # A name that no runner has sent; the field is empty and focused afterwards.
    page.get_by_label("Target").fill("brand-new")
    page.get_by_text("No match.").wait_for()
    page.get_by_role("button", name="Add this name").click()
    pending.get_by_text("demo-org/brand-new").wait_for()
    assert page.get_by_label("Target").input_value() == ""
    assert page.evaluate(FOCUSED) == "target-name"
    assert pending.get_by_role("listitem").count() == 2

    pending.get_by_role("button", name="Do not add demo-org/brand-new").focus()
    page.keyboard.press("Enter")
    pending.get_by_text("demo-org/brand-new").wait_for(state="detached")
    # htmx processes what it has swapped in after 20 ms.
    page.wait_for_timeout(100)
    pending.get_by_role("button", name="Do not add").focus()
    page.keyboard.press("Enter")
    pending.get_by_text("Search for targets").wait_for()
    page.wait_for_function("document.activeElement.closest('#pending') !== null")
    assert page.evaluate("window.isSame")


def test_what_is_ticked_to_be_removed_is_counted(page):
    page.goto(f"{BASE}/policy-store/1/attach/", wait_until="networkidle")
    page.get_by_role("checkbox", name="Remove").first.check()
    page.locator("#change-count", has_text="0 to add, 1 to remove").wait_for()
    page.get_by_role("checkbox", name="Remove").first.uncheck()
    page.locator("#change-count", has_text="0 to add, 0 to remove").wait_for()


def test_a_target_that_was_only_entered_is_asked_about(fresh):
    page = fresh
    page.get_by_label("Workflow").check()
    page.get_by_label("Target").fill("brand-new/ci.yml")
    page.get_by_text("No match.").wait_for()
    page.get_by_role("button", name="Attach policy").click()
    page.get_by_text("“brand-new/ci.yml” has not been added.").wait_for()
    assert page.evaluate(FOCUSED) == "target-name"
    page.get_by_role("button", name="Add this name").click()
    page.get_by_text("Will be added").wait_for()
    page.get_by_role("button", name="Attach policy").click()
    page.get_by_text("use-policy-store: true").wait_for()


def test_the_save_bar_follows_the_text_and_stays_on_the_screen(page):
    page.goto(f"{BASE}/policy-store/new/", wait_until="networkidle")
    bar = page.locator(".save-bar")
    write(page, "egress-policy: block\nallowed-endpoint: x\n")
    bar.get_by_text(re.compile("1 error")).wait_for()
    write(page, "egress-policy: block\nallowed-endpoints: >\n  github.com:443\n")
    bar.get_by_text("No problems").wait_for()
    page.locator("#impact-verdict", has_text=re.compile(r"would block\s+\d+ of \d+ job\s+runs")).wait_for()
    box = bar.bounding_box()
    assert box["y"] + box["height"] <= 900
    assert page.locator("#impact").bounding_box()["x"] > page.locator(".editor-surface").bounding_box()["x"] + 300


def test_words_are_completed_where_they_belong(page):
    page.goto(f"{BASE}/policy-store/new/", wait_until="networkidle")
    text = page.locator("textarea[name=text]")
    popup = page.locator(".ace_autocomplete")
    write(page, "")
    page.keyboard.type("egr")
    popup.get_by_text("egress-policy:").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type(" blo")
    popup.get_by_text("block").first.wait_for()
    # Enter ends the line, although a list is open.
    page.keyboard.type("ck")
    page.keyboard.press("Enter")
    page.keyboard.type("allowed-endpoints: >")
    page.keyboard.press("Enter")
    # No faster than people type: Ace loses count of what it completes.
    page.keyboard.type("  api.gith", delay=50)
    popup.get_by_text("api.github.com:443").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert text.input_value().split() == ["egress-policy:", "block", "allowed-endpoints:", ">", "api.github.com:443"]


def test_a_refused_form_moves_the_focus_to_its_first_field(page):
    page.goto(f"{BASE}/policy-store/new/", wait_until="networkidle")
    page.get_by_label("Policy name").fill("/")
    page.get_by_role("button", name="Add Policy").click()
    summary = page.locator("[data-error-summary]")
    summary.get_by_text("Start the name with a letter or digit").wait_for()
    assert page.evaluate(FOCUSED) == "id_name"
    assert page.locator(".save-bar").get_by_text("Not saved.").count() == 1
    page.goto(f"{BASE}/policy-store/break-glass/", wait_until="networkidle")
    page.get_by_label("Repository").check()
    page.get_by_label("Reason").fill("an outage")
    page.get_by_role("button", name="Break glass").click()
    page.locator("[data-error-summary]").wait_for()
    assert page.evaluate(FOCUSED) == "id_name"


def test_endpoints_of_a_repository_are_shown_in_one_step(page):
    page.goto(f"{BASE}/policy-store/new/", wait_until="networkidle")
    page.get_by_role("button", name="Import Endpoints from Baseline").click()
    assert not page.locator("#file").is_visible()
    page.get_by_role("button", name="Show endpoints").click()
    page.get_by_text("Choose where to import endpoints from.").wait_for()
    page.get_by_label("Repository").first.check()
    page.locator("#target-repository").select_option(index=1)
    page.get_by_role("button", name="Show endpoints").click()
    page.get_by_role("heading", name=re.compile("new endpoint")).wait_for()
