"""The run bitmaps that the worker builds: exact, however late an event arrives, and built in small steps."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from policystore.detections import actions
from policystore.policy_language.endpoint_matcher import AllowList
from policystore.runners import job_runs
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from policystore.traffic.event_parser import parse
from policystore.traffic.impact import bitmap_store
from policystore.traffic.impact.bitmap_store import load_window
from policystore.traffic.impact.replay import Ruling
from policystore.traffic.impact.run_bitmaps import WorkflowKey, decode
from policystore.traffic.models import BitmapProgress, NetworkEvent, RunBitmap, RunEndpoint
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
        parse("networkconnection", {"domainName": host, "ipAddress": "192.0.2.1", "port": "443", **more})
        for host in hosts
    ]
    actions.observe(run=run, events=seen, received_at=run.first_seen_at + timedelta(minutes=1))


def blocked(organization, *entries):
    """How many of how many runs a block policy with these entries would stop."""
    seen = load_window(organization, 30)
    found = seen.traffic.replay(seen.runs.keys(), after=Ruling.of("block", AllowList.from_entries(entries)))
    return found.off_list, found.runs


def test_a_run_counts_with_everything_that_it_called_whenever_that_was_told(organization):
    run = job_run(organization, 1)
    observe(run, "github.com")
    observe(job_run(organization, 2), "github.com")
    assert bitmap_store.catch_up()
    assert blocked(organization, "github.com") == (0, 2)
    observe(run, "late.example")
    assert bitmap_store.catch_up()
    assert blocked(organization, "github.com") == (1, 2)
    assert RunBitmap.objects.count() == 1


def test_a_call_that_was_blocked_counts_and_a_mere_dns_answer_does_not(organization):
    run = job_run(organization, 1)
    observe(run, "stopped.example", status="Dropped")
    actions.observe(run=run, events=[parse("dns", {"domainName": "asked.example", "ipAddress": "192.0.2.1"})])
    bitmap_store.catch_up()
    assert blocked(organization, "asked.example") == (1, 1)
    assert blocked(organization, "stopped.example") == (0, 1)


def test_each_organization_has_its_own_bitmaps(organization):
    other = factories.organization("other")
    observe(job_run(organization, 1), "github.com")
    observe(job_run(other, 1), "github.com", "other.example")
    bitmap_store.catch_up()
    assert RunBitmap.objects.count() == 2
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
    bitmap_store.catch_up()
    assert load_window(organization, 30).runs == {WorkflowKey("hello-world", "", ""): 1}
    asked = "workflow=ci.yml&run_id=1&correlationId=a&cluster=k8s"
    headers = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    ask("GET", f"/v1/github/octo-org/hello-world/actions/policies/workflow-policy?{asked}", headers)
    recorder.flush()
    bitmap_store.catch_up()
    assert load_window(organization, 30).runs == {WorkflowKey("hello-world", "ci.yml", "k8s"): 1}


def test_only_runs_of_the_window_are_replayed(organization):
    now = timezone.now()
    for number, days in enumerate((1, 6, 8, 40)):
        observe(job_run(organization, number, at=now - timedelta(days=days)), "github.com")
    bitmap_store.catch_up()
    counted = {days: sum(load_window(organization, days).runs.values()) for days in (7, 14, 30, 90)}
    assert counted == {7: 2, 14: 3, 30: 3, 90: 4}


def test_past_traffic_is_added_to_bitmaps_in_steps(organization, monkeypatch):
    monkeypatch.setattr(bitmap_store, "SHIFT", 1)
    monkeypatch.setattr(bitmap_store, "IDS_PER_STEP", 2)
    for number in range(6):
        observe(job_run(organization, number), "github.com", f"host{number}.example")
    # Ids go on from test to test on PostgreSQL.
    BitmapProgress.objects.create(pk=1, seen_id=RunEndpoint.objects.earliest("pk").pk - 1)
    turns = 1
    while not bitmap_store.catch_up(seconds=0):
        turns += 1
        assert load_window(organization, 30).counted_until is None
        assert load_window(organization, 30).prepared < 100
        assert turns < 20
    assert turns == 6
    assert blocked(organization, "github.com") == (6, 6)
    assert load_window(organization, 30).counted_until
    bitmaps = [decode(bytes(bitmap.content)) for bitmap in RunBitmap.objects.all()]
    assert sum(len(bitmap.key_numbers) for bitmap in bitmaps) == 6


def test_nothing_is_made_anew_without_need(organization, monkeypatch):
    observe(job_run(organization, 1), "github.com")
    bitmap_store.catch_up()
    made = []
    monkeypatch.setattr(bitmap_store, "encode", lambda bitmap: made.append(bitmap) or b"")
    for _ in range(3):
        bitmap_store.catch_up()
    assert made == []


def test_a_row_that_becomes_visible_after_later_ones_is_found(organization):
    """As when the transaction that wrote it ends after another one that began later."""
    now = timezone.now()
    slow, fast = job_run(organization, 1), job_run(organization, 2)
    observe(slow, "github.com", "slow.example")
    held = list(RunEndpoint.objects.filter(job_run=slow).values())
    RunEndpoint.objects.filter(job_run=slow).delete()
    observe(fast, "github.com")
    bitmap_store.catch_up(now=now)
    assert blocked(organization, "github.com") == (0, 1)
    RunEndpoint.objects.bulk_create([RunEndpoint(**row) for row in held])
    bitmap_store.catch_up(now=now + timedelta(seconds=20))
    assert blocked(organization, "github.com") == (1, 2)


def test_looking_again_ends_after_a_while(organization):
    now = timezone.now()
    observe(job_run(organization, 1), "github.com")
    for minutes in (0, 5, 11, 16, 22):
        bitmap_store.catch_up(now=now + timedelta(minutes=minutes))
    progress = BitmapProgress.objects.get()
    assert progress.recheck_id == progress.seen_id == RunEndpoint.objects.latest("pk").pk


def test_a_bitmap_is_rebuilt_once_its_runs_are_final(organization, settings):
    now = timezone.now()
    run = job_run(organization, 1, at=now)
    observe(run, "github.com")
    bitmap_store.catch_up(now=now)
    assert not RunBitmap.objects.get().is_final
    JobRun.objects.update(workflow="renamed.yml")
    bitmap_store.catch_up(now=now + timedelta(hours=settings.JOB_RUN_OPEN_HOURS + 1))
    bitmap = RunBitmap.objects.get()
    assert bitmap.is_final
    assert decode(bytes(bitmap.content)).keys == (WorkflowKey("hello-world", "renamed.yml", ""),)


def test_a_store_without_traffic_is_up_to_date_at_once():
    assert bitmap_store.catch_up()
    assert BitmapProgress.objects.get().caught_up_at


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
            bitmap_store.catch_up()

    keys = {"runner_key": factories.api_key(organization), "management_key": factories.management_key(organization)}
    Day(send, owner="octo-org", runs=30, now=lambda: time["now"], **keys).play(began=began)
    bitmap_store.catch_up()
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
    _compare_by_key(organization, called)


def _calls_by_run():
    """What each run called, out of the single events."""
    called = defaultdict(set)
    for event in NetworkEvent.objects.all():
        if event.kind == "connection" or event.status == "blocked":
            called[event.job_run_id].add((event.host, event.port))
    assert len(called) > 30
    return called


def _compare_by_key(organization, called):
    expected = defaultdict(int)
    for run in JobRun.objects.filter(pk__in=called):
        expected[WorkflowKey(run.repository.lower(), run.workflow, run.cluster)] += 1
    assert load_window(organization, 30).runs == expected
    assert len({key.cluster for key in expected}) > 1


def test_very_many_calls_can_be_made_for_measuring(organization):
    assert many_runs.observe(organization, calls=400, endpoints_a_run=4, workflows=8) == 50
    bitmap_store.catch_up()
    assert RunEndpoint.objects.count() == 200
    assert blocked(organization) == (50, 50)
    assert len(load_window(organization, 30).runs) == 8


def test_a_run_that_is_deleted_while_its_bitmap_is_built_is_left_out(organization, monkeypatch):
    waiting = [job_run(organization, 1)]
    observe(waiting[0], "gone.example")
    observe(job_run(organization, 2), "github.com")

    def delete_first(execute, sql, *more):
        if waiting and sql.startswith('SELECT "runners_jobrun"."id"'):
            waiting.pop().delete()
        return execute(sql, *more)

    with connection.execute_wrapper(delete_first):
        assert bitmap_store.catch_up()
    assert not waiting
    assert blocked(organization, "github.com") == (0, 1)
