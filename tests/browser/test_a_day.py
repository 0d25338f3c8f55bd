"""A simulated day over real HTTP, and what it tells in a real browser: from the baseline to a lockdown's deliveries."""

import re

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from tests.end_to_end.running import Store
from tests.integrations.receivers import receiver
from tests.operations.running import wait_until
from tests.traffic.simulated_day import Day, differences, over

pytestmark = [pytest.mark.browser, pytest.mark.needs_chromium]

PAGES = "/organizations/octo-org"
KEYS = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
RUNS = 24


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    options = ("--no-demo", "--organization", "octo-org")
    running = Store(tmp_path_factory.mktemp("store"), *options, OUTBOX_ALLOWED_NETWORKS="127.0.0.0/8")
    running.sign_in()
    yield running
    running.close()


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=address, **KEYS)
    client.create_bucket(Bucket="audit-log")
    yield address, client
    client.close()
    server.stop()


def integrate(store, webhook, slack, s3):
    kinds = {
        "webhook": {"name": "siem", "address": webhook.url, "method": "POST", "raw": "False"},
        "slack": {"name": "channel", "webhook_url": slack.url},
        "s3": {"name": "archive", "bucket": "audit-log", "region": "us-east-1", "endpoint": s3, "key_prefix": "octo"},
    }
    kinds["s3"] |= {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "secret"}
    for kind, form in kinds.items():
        store.post(f"{PAGES}/settings/integrations/new/{kind}/", {**form, "events": ["lockdown"]})


def keys(store):
    form = {"kind": "vm", "slot": "primary", "confirmed": "on"}
    runner = store.post(f"{PAGES}/settings/harden-runner-installation/regenerate/", form).text
    manager = store.post(f"{PAGES}/settings/management-keys/", {"name": "day"}).text
    return {
        "runner_key": re.search(r"ps_vm_\w{30,}", runner).group(),
        "management_key": re.search(r"ps_mgmt_\w{30,}", manager).group(),
    }


def stored_lines(client):
    listed = client.list_objects_v2(Bucket="audit-log", Prefix="octo/").get("Contents", [])
    bodies = [client.get_object(Bucket="audit-log", Key=found["Key"])["Body"].read() for found in listed]
    return b"".join(bodies).splitlines()


def test_a_day_is_seen_in_the_browser(store, s3, chromium):
    address, client = s3
    with receiver() as webhook, receiver() as slack, httpx.Client(base_url=store.address, timeout=60) as http:
        integrate(store, webhook, slack, address)
        day = Day(over(http), owner="octo-org", runs=RUNS, **keys(store))
        lockdowns = day.play(at_once=2).lockdowns
        # A job whose events arrive before its fetch is recorded is counted by the worker a little later.
        wait_until(lambda: differences(day) == [], "every call being counted once", pause=0.5)
        assert lockdowns > 0
        wait_until(lambda: len(webhook.ids) == len(slack.ids) == lockdowns, "the deliveries of the webhook and Slack")
        wait_until(lambda: len(stored_lines(client)) == lockdowns, "the deliveries to the bucket", pause=0.5)
    context = chromium.new_context(base_url=store.address, viewport={"width": 1440, "height": 900})
    # The link of the store's first administrator was used up for the pages above.
    context.add_cookies([{"name": c.name, "value": c.value, "url": store.address} for c in store.browser.cookies.jar])
    _look(context.new_page())
    context.close()


def _look(page):
    page.goto(f"{PAGES}/baseline/")
    assert "registry.octo1.org" in page.locator("tbody").inner_text()
    page.get_by_role("link", name="Create Policy").click()
    page.get_by_text("added below").wait_for()
    page.get_by_label("Policy name").fill("from-the-baseline")
    page.get_by_role("button", name="Add Policy").click()
    page.get_by_text("from-the-baseline was created").wait_for()

    page.goto(f"{PAGES}/insights/")
    page.get_by_role("link", name="Network Events").click()
    page.get_by_role("link", name="Blocked", exact=True).click()
    page.wait_for_url("**tab=blocked")
    row = page.locator("tbody tr").first
    assert re.search(r"\S+ v\d", row.inner_text())
    row.get_by_role("link", name=re.compile(r"(ci|release)[.]yml")).click()
    page.get_by_role("heading", name="Network Events").wait_for()
    assert "Blocked call" in page.locator("main").inner_text()

    page.goto(f"{PAGES}/detections/?id=Reverse-Shell")
    assert "Job terminated" in page.locator("tbody tr").first.inner_text()
    for name in ("siem", "channel", "archive"):
        page.goto(f"{PAGES}/settings/integrations/")
        page.get_by_role("link", name=name).click()
        row = page.locator("#deliveries tbody tr").first.inner_text()
        assert "Lockdown" in row
        assert "Delivered" in row
