"""Quick search and shortcuts by keyboard, in a real browser."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

BASE = "/organizations/demo-org"
FOCUSED = "() => document.activeElement.textContent.trim()"


@pytest.mark.parametrize("key", ["/", "Control+k", "Meta+k"])
def test_quick_search_by_keyboard(open_page, key):
    page = open_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{BASE}/coverage/")
    page.locator(".nav-link", has_text="Runs").focus()
    page.keyboard.press(key)
    page.keyboard.type("org-def")
    page.locator("#quick-search [data-result]").first.wait_for()
    assert "result" in page.locator("#quick-search [role=status]").inner_text()
    page.keyboard.press("ArrowDown")
    assert page.evaluate(FOCUSED) == "org-default"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("() => document.activeElement.value") == "org-def"
    page.keyboard.press("Escape")
    assert not page.locator("#quick-search").is_visible()
    assert page.evaluate(FOCUSED) == "Runs"
    page.keyboard.press(key)
    page.locator("#quick-search").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/policy-store/*/")
    assert page.locator("h1").inner_text() == "org-default"


def test_enter_before_the_results_leads_to_their_page(open_page):
    page = open_page()
    page.goto(f"{BASE}/coverage/")
    page.keyboard.press("/")
    page.keyboard.type("org-def\n")
    page.wait_for_url("**/search/?q=org-def")
    assert page.locator("main [data-result]").first.inner_text() == "org-default"


def test_g_and_a_key_open_pages_and_a_question_mark_lists_them(open_page):
    page = open_page()
    page.goto(f"{BASE}/coverage/")
    for key, end in (("r", "runs"), ("d", "detections"), ("b", "baseline"), ("p", "policy-store"), ("i", "insights")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"**/{end}/")
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#shortcuts dd", has_text="Change Requests").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#shortcuts").is_visible()


def test_shortcuts_stay_out_of_fields_and_of_the_editor(open_page):
    page = open_page()
    page.goto(f"{BASE}/runs/")
    field = page.locator("main input[type=search]")
    field.focus()
    page.keyboard.type("g/?p")
    assert field.input_value() == "g/?p"
    page.goto(f"{BASE}/policy-store/new/")
    page.locator(".editor-surface").click()
    page.keyboard.type("g/?p")
    page.keyboard.press("Control+k")
    assert "g/?p" in page.locator(".ace_content").inner_text()
    assert page.locator("dialog[open]").count() == 0
    assert page.url.endswith("/new/")


def test_single_keys_can_be_switched_off(open_page):
    page = open_page()
    page.goto(f"{BASE}/coverage/")
    page.keyboard.press("?")
    page.locator("#shortcuts").get_by_label("Single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    page.keyboard.press("/")
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("Control+k")
    assert page.locator("#quick-search").is_visible()


def test_without_scripts_the_field_leads_to_the_results(open_page):
    page = open_page(java_script_enabled=False)
    page.goto(f"{BASE}/coverage/")
    page.locator(".sidebar-search input").fill("org-default")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search/?q=org-default")
    page.locator("main").get_by_role("link", name="org-default").first.click()
    assert page.locator("h1").inner_text() == "org-default"


def test_copy_buttons_copy_the_whole_text(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(f"{BASE}/policy-store/1/")
    page.locator("[data-copy=policy-text]").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines() == page.locator("#policy-text > span").all_inner_texts()
