"""A simulated day flows in over HTTP: every call is counted once, and what the day tells stands on the pages."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import Sum
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.roles import Role
from policystore.detections.models import Detection
from policystore.policy_language.document import written_endpoints
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint, NetworkEvent, RunEndpoint
from tests import factories
from tests.traffic.simulated_day import Day, differences

pytestmark = pytest.mark.django_db

RUNS = 40
MORNING = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def played(organization, monkeypatch):
    """The day, with the store's clock going from midnight to midnight."""
    client, time = Client(raise_request_exception=False), {"now": MORNING}
    monkeypatch.setattr(timezone, "now", lambda: time["now"])

    def send(method, target, headers, body):
        answer = client.generic(method, target, body, content_type="application/json", headers=headers)
        # What the thread that records fetches does a moment later.
        recorder.flush()
        return answer.status_code, answer.content

    keys = {"runner_key": factories.api_key(organization), "management_key": factories.management_key(organization)}
    day = Day(send, owner="octo-org", runs=RUNS, now=lambda: time["now"], **keys)
    day.play(began=lambda number: time.update(now=MORNING + timedelta(days=1) * number / RUNS))
    return day


def address(name, *arguments):
    return reverse(name, args=["octo-org", *arguments])


def test_a_day_is_counted_once_and_stands_on_the_pages(organization, played):
    ledger = played.ledger
    assert differences(played) == []
    sums = JobRun.objects.aggregate(calls=Sum("calls"), blocked=Sum("blocked_calls"), off_list=Sum("off_list_calls"))
    assert sums == {
        "calls": ledger.calls.total(),
        "blocked": ledger.blocked.total(),
        "off_list": ledger.off_list,
    }
    assert JobRun.objects.filter(policy_id__isnull=True).count() == ledger.without_policy
    assert JobEndpoint.objects.aggregate(Sum("calls"))["calls__sum"] == ledger.calls.total()
    assert RunEndpoint.objects.aggregate(Sum("calls"))["calls__sum"] == ledger.calls.total()
    assert Detection.objects.filter(is_lockdown=True).count() == ledger.lockdowns > 0
    assert Detection.objects.filter(detection_id="Domain-Blocked").count() > 0
    # No event seems to have happened before its day or after it came in, whatever its client's clock said.
    assert not NetworkEvent.objects.filter(occurred_at__lt=MORNING - timedelta(hours=1)).exists()
    assert min(ledger.repeated, ledger.malformed, ledger.off_list, ledger.blocked.total()) > 0
    _look_at_the_pages(organization, ledger)


def _look_at_the_pages(organization, ledger):
    ann = Client()
    ann.force_login(
        factories.member(organization, Role.SECURITY_ADMIN), backend="policystore.accounts.access.RoleBackend"
    )
    baseline = ann.get(address("baseline:organization")).content.decode()
    assert "edge-1.cdn.example.com" in baseline
    wildcards = ann.get(address("baseline:organization"), {"show": "wildcards"}).content.decode()
    assert "*.cdn.example.com:443" in wildcards
    for name in ("repositories", "clusters", "jobs"):
        assert ann.get(address(f"baseline:{name}")).status_code == 200
    blocked = JobRun.objects.filter(blocked_calls__gt=0).first()
    page = ann.get(address("runs:run", blocked.pk), {"tab": "blocked"}).content.decode()
    assert blocked.policy_name in page
    exported = ann.get(address("baseline:export")).content.decode().split()
    assert set(exported) == set(ledger.reached)
    editor = ann.get(address("baseline:create-policy"))
    assert written_endpoints(editor.context["form"]["text"].value()) == exported
    assert "Job terminated" in ann.get(address("detections:list")).content.decode()
