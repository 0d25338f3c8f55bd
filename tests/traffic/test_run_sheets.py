"""The sheets that the worker makes of observed calls: exact, however late an event comes, and made in small steps."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from policystore.detections.actions import detections
from policystore.policy_language.endpoint_matcher import AllowList
from policystore.policy_language.replay import Ruling
from policystore.policy_language.run_bitmaps import Place, unpack
from policystore.runners.actions import job_runs
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from policystore.traffic.actions import run_bitmaps
from policystore.traffic.event_parser import read
from policystore.traffic.impact.window import window
from policystore.traffic.models import NetworkEvent, RunEndpoint, RunSheet, SheetProgress
from tests import factories
from tests.runners.asking import ask
from tests.traffic import many_runs
from tests.traffic.simulated_day import Day

pytestmark = pytest.mark.django_db

BEGAN = datetime(2026, 11, 23, 6, tzinfo=UTC)


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def job_run(organization, number, *, repository="hello-world", workflow="ci.yml", at=None, **values):
    return JobRun.objects.create(
        verified_by=values.pop("verified_by", "key"),
        organization=organization,
        repository=repository,
        workflow=workflow,
        job="build",
        run_id=str(number),
        correlation_id=f"correlation-{number}",
        first_seen_at=at or timezone.now(),
        **values,
    )


def observe(run, *hosts, **more):
    seen = [
        read("networkconnection", {"domainName": host, "ipAddress": "192.0.2.1", "port": "443", **more})
        for host in hosts
    ]
    detections.observe(run=run, observations=seen, received_at=run.first_seen_at + timedelta(minutes=1))


def blocked(organization, *entries):
    """How many of how many runs a block policy with these entries would stop."""
    seen = window(organization, 30)
    found = seen.traffic.replay(seen.runs.keys(), after=Ruling.of("block", AllowList.from_entries(entries)))
    return found.off_list, found.runs


def test_a_run_counts_with_everything_that_it_called_whenever_that_was_told(organization):
    run = job_run(organization, 1)
    observe(run, "github.com")
    observe(job_run(organization, 2), "github.com")
    assert run_bitmaps.catch_up()
    assert blocked(organization, "github.com") == (0, 2)
    observe(run, "late.example")
    assert run_bitmaps.catch_up()
    assert blocked(organization, "github.com") == (1, 2)
    assert RunSheet.objects.count() == 1


def test_a_call_that_was_blocked_counts_and_a_mere_dns_answer_does_not(organization):
    run = job_run(organization, 1)
    observe(run, "stopped.example", status="Dropped")
    detections.observe(run=run, observations=[read("dns", {"domainName": "asked.example", "ipAddress": "192.0.2.1"})])
    run_bitmaps.catch_up()
    assert blocked(organization, "asked.example") == (1, 1)
    assert blocked(organization, "stopped.example") == (0, 1)


def test_each_organization_has_sheets_of_its_own(organization):
    other = factories.organization("other")
    observe(job_run(organization, 1), "github.com")
    observe(job_run(other, 1), "github.com", "other.example")
    run_bitmaps.catch_up()
    assert RunSheet.objects.count() == 2
    assert blocked(organization, "github.com") == (0, 1)
    assert blocked(other, "github.com") == (1, 1)


def test_a_run_goes_where_its_fetch_says_even_when_that_is_written_later(organization):
    now = timezone.now()
    run = job_runs.register(
        organization=organization,
        repository="hello-world",
        run_id="1",
        correlation_id="a",
        job="build",
        at=now,
        verified_by="sender",
    )
    observe(run, "github.com")
    run_bitmaps.catch_up()
    assert window(organization, 30).runs == {Place("hello-world", "", ""): 1}
    asked = "workflow=ci.yml&run_id=1&correlationId=a&cluster=k8s"
    headers = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    ask("GET", f"/v1/github/octo-org/hello-world/actions/policies/workflow-policy?{asked}", headers)
    recorder.flush()
    run_bitmaps.catch_up()
    assert window(organization, 30).runs == {Place("hello-world", "ci.yml", "k8s"): 1}


def test_only_runs_of_the_window_are_replayed(organization):
    now = timezone.now()
    for number, days in enumerate((1, 6, 8, 40)):
        observe(job_run(organization, number, at=now - timedelta(days=days)), "github.com")
    run_bitmaps.catch_up()
    counted = {days: sum(window(organization, days).runs.values()) for days in (7, 14, 30, 90)}
    assert counted == {7: 2, 14: 3, 30: 3, 90: 4}


def test_past_traffic_is_put_onto_sheets_in_steps(organization, monkeypatch):
    monkeypatch.setattr(run_bitmaps, "SHIFT", 1)
    monkeypatch.setattr(run_bitmaps, "IDS_PER_STEP", 2)
    for number in range(6):
        observe(job_run(organization, number), "github.com", f"host{number}.example")
    # Ids go on from test to test on PostgreSQL.
    SheetProgress.objects.create(pk=1, seen_id=RunEndpoint.objects.earliest("pk").pk - 1)
    turns = 1
    while not run_bitmaps.catch_up(seconds=0):
        turns += 1
        assert window(organization, 30).counted_until is None
        assert window(organization, 30).prepared < 100
        assert turns < 20
    assert turns == 6
    assert blocked(organization, "github.com") == (6, 6)
    assert window(organization, 30).counted_until
    sheets = [unpack(bytes(sheet.content)) for sheet in RunSheet.objects.all()]
    assert sum(len(sheet.where) for sheet in sheets) == 6


def test_nothing_is_made_anew_without_need(organization, monkeypatch):
    observe(job_run(organization, 1), "github.com")
    run_bitmaps.catch_up()
    made = []
    monkeypatch.setattr(run_bitmaps, "pack", lambda sheet: made.append(sheet) or b"")
    for _ in range(3):
        run_bitmaps.catch_up()
    assert made == []


def test_a_row_that_becomes_visible_after_later_ones_is_found(organization):
    """As when the transaction that wrote it ends after another one that began later."""
    now = timezone.now()
    slow, fast = job_run(organization, 1), job_run(organization, 2)
    observe(slow, "github.com", "slow.example")
    held = list(RunEndpoint.objects.filter(job_run=slow).values())
    RunEndpoint.objects.filter(job_run=slow).delete()
    observe(fast, "github.com")
    run_bitmaps.catch_up(now=now)
    assert blocked(organization, "github.com") == (0, 1)
    RunEndpoint.objects.bulk_create([RunEndpoint(**row) for row in held])
    run_bitmaps.catch_up(now=now + timedelta(seconds=20))
    assert blocked(organization, "github.com") == (1, 2)


def test_looking_again_ends_after_a_while(organization):
    now = timezone.now()
    observe(job_run(organization, 1), "github.com")
    for minutes in (0, 5, 11, 16, 22):
        run_bitmaps.catch_up(now=now + timedelta(minutes=minutes))
    progress = SheetProgress.objects.get()
    assert progress.again_id == progress.seen_id == RunEndpoint.objects.latest("pk").pk


def test_a_sheet_is_made_a_last_time_when_its_runs_can_tell_nothing_more(organization, settings):
    now = timezone.now()
    run = job_run(organization, 1, at=now)
    observe(run, "github.com")
    run_bitmaps.catch_up(now=now)
    assert not RunSheet.objects.get().is_final
    JobRun.objects.update(workflow="renamed.yml")
    run_bitmaps.catch_up(now=now + timedelta(hours=settings.JOB_RUN_OPEN_HOURS + 1))
    sheet = RunSheet.objects.get()
    assert sheet.is_final
    assert unpack(bytes(sheet.content)).places == (Place("hello-world", "renamed.yml", ""),)


def test_a_store_without_traffic_is_up_to_date_at_once():
    assert run_bitmaps.catch_up()
    assert SheetProgress.objects.get().caught_up_at


def test_a_simulated_day_over_http_is_replayed_as_going_through_each_event_does(organization, monkeypatch):
    client, time = Client(raise_request_exception=False), {"now": BEGAN}
    monkeypatch.setattr(timezone, "now", lambda: time["now"])

    def send(method, target, headers, body):
        answer = client.generic(method, target, body, content_type="application/json", headers=headers)
        recorder.flush()
        return answer.status_code, answer.content

    def began(number):
        time["now"] = BEGAN + timedelta(minutes=30) * number
        if number % 9 == 4:
            run_bitmaps.catch_up()

    keys = {"runner_key": factories.api_key(organization), "management_key": factories.management_key(organization)}
    Day(send, owner="octo-org", runs=30, now=lambda: time["now"], **keys).play(began=began)
    run_bitmaps.catch_up()
    called = _calls_by_run()
    for entries in (
        [],
        ["github.com:443", "api.github.com:443"],
        ["*.org:443", "*.com:443"],
        ["*:443"],
        ["*.example:443"],
    ):
        allowed = AllowList.from_entries(entries)
        off_list = [
            run for run, calls in called.items() if not all(allowed.verdict(*call) == "allowed" for call in calls)
        ]
        assert blocked(organization, *entries) == (len(off_list), len(called))
    _compare_by_place(organization, called)


def _calls_by_run():
    """What each run called, out of the single events."""
    called = defaultdict(set)
    for event in NetworkEvent.objects.all():
        if event.kind == "connection" or event.status == "blocked":
            called[event.job_run_id].add((event.host, event.port))
    assert len(called) > 30
    return called


def _compare_by_place(organization, called):
    expected = defaultdict(int)
    for run in JobRun.objects.filter(pk__in=called):
        expected[Place(run.repository.lower(), run.workflow, run.cluster)] += 1
    assert window(organization, 30).runs == expected
    assert len({place.cluster for place in expected}) > 1


def test_very_many_calls_can_be_made_for_measuring(organization):
    assert many_runs.observe(organization, calls=400, endpoints_a_run=4, workflows=8) == 50
    run_bitmaps.catch_up()
    assert RunEndpoint.objects.count() == 200
    assert blocked(organization) == (50, 50)
    assert len(window(organization, 30).runs) == 8
