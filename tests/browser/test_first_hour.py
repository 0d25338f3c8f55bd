"""The first hour of an organization in a browser: from signing in to the first policy that a runner gets."""

import re

import httpx
import pytest

from tests.browser.conftest import sign_in
from tests.end_to_end.running import Store

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

FETCH = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy"
MOST_CLICKS = 6
TOO_WIDE = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    running = Store(tmp_path_factory.mktemp("store"), "--no-demo", "--organization", "octo-org")
    yield running
    running.close()


@pytest.fixture
def page(open_page):
    return open_page(viewport={"width": 1440, "height": 900})


@pytest.fixture(scope="module")
def signed_in(store, chromium):
    return sign_in(store, chromium)


def fetch(store, key):
    parameters = {"workflow": "ci.yml", "run_id": "1", "correlationId": "first"}
    return httpx.get(f"{store.address}{FETCH}", params=parameters, headers={"authorization": f"vm-api-key {key}"})


def test_the_first_policy_is_served_after_few_clicks_and_the_first_call_is_ticked_live(store, page):
    page.goto("/")
    clicks = [
        page.get_by_role("button", name="Generate key"),
        page.locator(".next-step").get_by_role("link", name="Add the step to a workflow"),
        page.locator(".next-step").get_by_role("link", name="Create a policy"),
        page.get_by_role("button", name="Add Policy"),
        page.locator(".next-step").get_by_role("link", name="Attach it to the organization"),
        page.get_by_role("button", name="Attach policy"),
    ]
    assert len(clicks) <= MOST_CLICKS
    clicks[0].click()
    key = re.search(r"ps_vm_\w{30,}", page.locator(".fresh-key").inner_text()).group()
    for click in clicks[1:]:
        if click == clicks[3]:
            page.get_by_label("Policy name").fill("first")
        click.click()
        page.wait_for_load_state()
    # What the runner still needs.
    page.locator(".next-step").get_by_role("link", name="Add the step to a workflow").wait_for()
    page.get_by_role("link", name="Policy Store", exact=True).last.click()
    call = page.locator("#first-steps li", has=page.locator("#step-call"))
    assert "To do:" in call.inner_text()
    served = fetch(store, key)
    assert (served.status_code, served.json()["policy_name"]) == (200, "first")
    call.get_by_text("Done:").wait_for(timeout=30_000)


def test_the_steps_and_the_help_fit_into_every_width(page):
    help_pages = "/organizations/octo-org/help"
    for address in ("/", f"{help_pages}/", f"{help_pages}/?q=policy", f"{help_pages}/api/", f"{help_pages}/endpoints/"):
        page.goto(address)
        for width in (320, 641, 861, 1024, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            assert not page.evaluate(TOO_WIDE), f"{address} is wider than {width}"
