"""Takes the pictures of the README's tour from the demo organization: `python -m tests.browser.tour [FOLDER]`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.end_to_end.running import Store
from tests.operations.production import manage
from tests.operations.running import ROOT

FOLDER = ROOT / ".github" / "tour"
SIZE = {"width": 1280, "height": 860}
STORE = "/organizations/demo-org/policy-store/"
DRIFT = """
from policystore.accounts.models import Actor
from policystore.policies.core import actions as policies
from policystore.policies.models import Policy
policy = Policy.objects.get(name="org-default")
text = policy.text.replace("egress-policy: audit", "egress-policy: block")
policies.UpdatePolicy(policy=policy, name=policy.name, description=policy.description, text=text,
    expected_version=policy.version).apply(by=Actor("jonas"))
"""


def main() -> None:
    """Start a store, keep its policies as code, let one drift, and go through its pages."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        # Where the fixtures keep what they prepare once.
        os.environ["POLICYSTORE_DATA_DIR"] = data
        _take_pictures(Path(data) / "store", folder)


def _take_pictures(data: Path, folder: Path) -> None:
    with _browser(data) as (page, settings):
        for name, show in PICTURES.items():
            show(page, settings)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"{name}.png")
            print(f"{name}.png")


@contextmanager
def _browser(data):
    running = Store(data)
    try:
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            page = chromium.new_page(base_url=running.address, viewport=SIZE)
            page.set_default_timeout(20_000)
            page.goto(running.link)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/policy-store/")
            yield page, {"POLICYSTORE_DATA_DIR": str(data)}
            chromium.close()
    finally:
        running.close()


def _at(path):
    return lambda page, settings: page.goto(f"/organizations/demo-org/{path}")


def _of_policy(name, path=""):
    """A page of a policy, below its own."""

    def show(page, settings):
        page.goto(f"{STORE}?q={name}")
        page.get_by_role("link", name=name, exact=True).click()
        if path:
            page.goto(f"{page.url}{path}")

    return show


def _impact(page, settings):
    _of_policy("org-default", "edit/")(page, settings)
    editor = page.locator("textarea[data-editor]")
    text = editor.input_value().replace("egress-policy: audit", "egress-policy: block")
    page.evaluate("text => window.ace.edit(document.querySelector('.ace_editor')).setValue(text, -1)", text)
    page.get_by_text("would block").first.wait_for()
    page.mouse.wheel(0, 500)


def _drift(page, settings):
    with tempfile.TemporaryDirectory() as folder:
        manage(settings, "export", folder, "--organization", "demo-org")
        manage(settings, "apply", folder, "--by", "maria", "--source", "demo-org/policies@1f3a9c")
        manage(settings, "shell", "--no-imports", "-c", DRIFT)
    _of_policy("org-default", "managed/")(page, settings)


def _which(page, settings):
    page.goto(f"{STORE}which/?repository=melange&workflow=release.yaml")


def _compare(page, settings):
    _of_policy("dockerfiles-ansible-deploy", "versions/compare/?from=1&to=2")(page, settings)


def _change_request(page, settings):
    page.goto(f"{STORE}change-requests/")
    page.get_by_role("link", name="Update policy").first.click()


def _run(page, settings):
    page.goto("/organizations/demo-org/runs/?tag=blocked")
    page.locator("td.cell-name a").first.click()


def _set(page, settings):
    page.goto("/organizations/demo-org/endpoint-sets/")
    page.locator("td.cell-name a").first.click()


def _exceptions(page, settings):
    page.goto(f"{STORE}?q=org-default")
    page.locator("td.cell-name a", has_text="org-default").first.click()
    page.goto(f"{page.url}#exceptions")


PICTURES = {
    "policies": _at("policy-store/"),
    "impact": _impact,
    "which": _which,
    "coverage": _at("coverage/"),
    "versions": _compare,
    "staged": _of_policy("org-default", "staged/"),
    "endpoint-set": _set,
    "never-allow": _at("settings/never-allow-hosts/"),
    "risks": _of_policy("codespell-strict"),
    "break-glass": _at("policy-store/break-glass/"),
    "exceptions": _exceptions,
    "change-request": _change_request,
    "history": _at("policy-store/history/"),
    "baseline": _at("baseline/"),
    "run": _run,
    "detections": _at("detections/"),
    "as-code": _drift,
}


if __name__ == "__main__":
    main()
