"""The code of the release before, as it was committed, at work on a database that this release has migrated."""

import json
import re

import httpx
import pytest

from tests.faults import clients
from tests.operations import previous_release, production
from tests.operations.production import HOST, Production, manage
from tests.operations.running import sign_in

pytestmark = pytest.mark.needs_history

# What the release before knows nothing of: an exception on a policy of its own.
SEED_MORE = """
from datetime import timedelta
from django.utils import timezone
from tests import factories
from policystore.accounts.actors import SYSTEM
from policystore.accounts.roles import Role
from policystore.documents.scopes import Scope
from policystore.inventory.models import Organization
from policystore.policies.actions import attachments, exceptions
organization = Organization.objects.get()
factories.member(organization, Role.OWNER, "ann")
policy = factories.policy(organization, "with-exception")
attachments.modify(policy=policy, add=[Scope.for_repository("octo-org", "excepted")], by=SYSTEM)
exceptions.add(policy=policy, endpoint="late.example.com:443", reason="A release", owner="ann",
    expires_at=timezone.now() + timedelta(days=1), by=SYSTEM)
"""
KINDS = """
import json
from policystore.policies.models import HistoryEvent
told = {}
for name, kind in HistoryEvent.objects.order_by("pk").values_list("subject_name", "kind"):
    told.setdefault(name, []).append(kind)
print(json.dumps(told))
"""
RUN = "/v1/github/octo-org/hello-world/actions/runs/1/monitor"
EVENTS = "/v1/github/octo-org/hello-world/actions/jobs/job-1/events"
PAGES = "policy-store/ policy-store/new/ policy-store/history/ runs/ detections/ insights/ baseline/"


@pytest.fixture
def upgraded(tmp_path):
    """Settings of a store that this release has migrated and filled, its keys, and the folder of the release before."""
    with production.either_database(tmp_path / "store") as settings:
        keys = production.prepare(settings)
        manage(settings, "shell", "--no-imports", "-c", SEED_MORE)
        folder = tmp_path / "release-before"
        previous_release.unpack(folder)
        yield settings, keys, folder


def answers_of_jobs(web, key):
    """A job's whole way: fetch, monitor, telemetry."""
    fetched = clients.fetch(web.port, key, "hello-world", 1)
    assert (fetched.status, fetched.json()["policy_name"]) == (200, "default")
    job = json.dumps({"correlation_id": "job-1", "job": "build"})
    assert clients.call(web.port, "POST", RUN, {"Content-Type": "application/json"}, job).status == 200
    event = {"type": "networkconnection", "domainName": "a.example.com", "ipAddress": "192.0.2.1", "port": "443"}
    headers = {"Authorization": f"vm-api-key {key}", "Content-Type": "application/json"}
    assert clients.call(web.port, "POST", EVENTS, headers, json.dumps([event])).status == 200


def changes(web, keys):
    """What systems do to policies: make, edit, attach, take over, detach, delete."""
    manager = clients.Manager(web.port, keys["management"])
    for endpoints in (["one.example.com:443"], ["two.example.com:443"]):
        assert manager.save("edited", endpoints).status == 200
    assert manager.attach("edited", "first", "second").status == 200
    assert manager.save("gone", ["gone.example.com:443"]).status == 200
    assert manager.attach("gone", "second").status == 200
    assert manager.ask("DELETE", "gone/attach").status in (200, 204)
    assert manager.ask("DELETE", "gone").status in (200, 204)
    for repository, status in (("first", 200), ("excepted", 200)):
        assert clients.fetch(web.port, keys["key"], repository, 2).status == status
    # It knows nothing of exceptions, and so cannot take them along; nothing is lost.
    assert manager.ask("DELETE", "with-exception").status != 200
    assert clients.fetch(web.port, keys["key"], "excepted", 3).status == 200


def pages(web, settings, folder):
    """What a person sees after having signed in, the history of a policy among it."""
    link = manage(settings, "sign_in_link", "--user", "ann", "--base-url", web.address, folder=folder).strip()
    with httpx.Client(headers={"host": HOST}, timeout=30) as browser:
        assert sign_in(browser, link).status_code == 302
        base = f"{web.address}/organizations/octo-org/"
        for page in PAGES.split():
            assert browser.get(base + page).status_code == 200, page
        listed = browser.get(f"{base}policy-store/?q=edited").text
        number = re.search(r"/policy-store/(\d+)/", listed).group(1)
        for page in ("", "edit/", "history/"):
            answer = browser.get(f"{base}policy-store/{number}/{page}")
            assert (answer.status_code, "edited" in answer.text) == (200, True), page


def test_the_release_before_serves_and_changes_policies_on_the_migrated_database(upgraded):
    settings, keys, folder = upgraded
    quiet = {"GUNICORN_LOG_LEVEL": "critical", "WEB_CONCURRENCY": "1"}
    before = Production(settings, folder=folder, **quiet)
    try:
        answers_of_jobs(before, keys["key"])
        changes(before, keys)
        pages(before, settings, folder)
        manage(settings, "deliver", folder=folder)
        # Both at once, as while several machines are upgraded.
        now = Production(settings, **quiet)
        try:
            # One knows an address that the other does not.
            assert (before.get("/healthz").status_code == 200, now.get("/healthz").status_code == 200) == (False, True)
            manager = clients.Manager(now.port, keys["management"])
            assert manager.save("edited", ["three.example.com:443"]).status == 200
            served = clients.fetch(before.port, keys["key"], "first", 4).json()["allowed_endpoints"]
            assert served == ["three.example.com:443"]
            assert (
                clients.Manager(before.port, keys["management"]).save("edited", ["four.example.com:443"]).status == 200
            )
            assert clients.fetch(now.port, keys["key"], "first", 5).json()["allowed_endpoints"] == [
                "four.example.com:443"
            ]
            assert clients.fetch(now.port, keys["key"], "second", 6).json()["policy_name"] == "default"
            assert (
                "late.example.com:443"
                in clients.fetch(now.port, keys["key"], "excepted", 7).json()["allowed_endpoints"]
            )
        finally:
            now.end()
    finally:
        before.end()
    assert "Traceback" not in now.said
    assert "verified" in manage(settings, "verify_history")
    told = json.loads(manage(settings, "shell", "--no-imports", "-c", KINDS))
    assert told["edited"] == ["created", "updated", "attached", "detached", "updated", "updated"]
    assert told["gone"] == ["created", "attached", "detached", "deleted"]
    assert told["with-exception"][-1] != "deleted"
