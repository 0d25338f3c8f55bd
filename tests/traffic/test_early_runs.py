"""Telemetry that is there before its job is known: counted and judged once the job is."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.detections import actions
from policystore.detections.models import Detection
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from policystore.traffic import store
from policystore.traffic.event_parser import correct_times
from policystore.traffic.models import EarlyRun, JobEndpoint, NetworkEvent, RunEndpoint
from policystore.traffic.store import prepare
from tests import factories
from tests.runners.asking import ask
from tests.runners.test_recording_beside_others import PATIENCE_SECONDS, in_thread, wait_until_somebody_waits
from tests.traffic.test_ingest import JOBS, call, job_run, key, meanwhile

pytestmark = pytest.mark.django_db

BASE = "/v1/github/octo-org/hello-world/actions"
COUNTED = ("workflow", "job", "host", "calls", "blocked_calls", "runs")


@pytest.fixture
def organization():
    organization = factories.organization("octo-org")
    policy = factories.policy(organization, "ci", text="egress-policy: block\nallowed-endpoints: github.com:443\n")
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=Actor("ann"))
    return organization


@pytest.fixture
def vm(organization):
    return {"authorization": f"vm-api-key {factories.api_key(organization)}"}


def monitor(job="build", run_id="7"):
    assert ask("POST", f"{BASE}/runs/{run_id}/monitor", {}, {"correlation_id": "a", "job": job}).status == 200


def fetch(vm, run_id="7"):
    asked = f"workflow=ci.yml&run_id={run_id}&correlationId=a"
    assert ask("GET", f"{BASE}/policies/workflow-policy?{asked}", vm).status == 200
    recorder.flush()


def send(values, headers=None):
    answer = ask("POST", f"{JOBS}/a/events", headers or key(), values)
    assert answer.status == 200
    return answer.json()


def settle(seconds=20):
    return actions.settle_early(now=timezone.now() + timedelta(seconds=seconds))


def counted():
    return list(JobEndpoint.objects.order_by("workflow", "job", "host").values_list(*COUNTED))


def told_of(run):
    run.refresh_from_db()
    return run.calls, run.blocked_calls, run.off_list_calls, run.new_endpoints


def sums_agree():
    calls = JobRun.objects.aggregate(Sum("calls"))["calls__sum"]
    assert JobEndpoint.objects.aggregate(Sum("calls"))["calls__sum"] == calls
    assert RunEndpoint.objects.aggregate(Sum("calls"))["calls__sum"] == calls


SENT = [
    *(call("github.com", number=number) for number in range(3)),
    call("evil.example"),
    call("paste.example", status="Dropped"),
]


def test_calls_before_the_record_of_the_fetch_are_moved_and_judged_once(organization, vm):
    monitor()
    send(SENT)
    run = JobRun.objects.get()
    assert (run.stored_events, told_of(run), counted()) == (5, (0, 0, 0, 0), [])
    fetch(vm)
    assert (settle(), settle(100)) == (1, 0)
    assert told_of(run) == (5, 1, 1, 0)
    assert counted() == [
        ("ci.yml", "build", "evil.example", 1, 0, 1),
        ("ci.yml", "build", "github.com", 3, 0, 1),
        ("ci.yml", "build", "paste.example", 1, 1, 0),
    ]
    assert dict(NetworkEvent.objects.values_list("host", "status")) == {
        "github.com": "allowed",
        "evil.example": "would_be_blocked",
        "paste.example": "blocked",
    }
    assert Detection.objects.get(detection_id="Domain-Blocked").policy_name == "ci"
    assert not EarlyRun.objects.exists()
    sums_agree()


def test_a_run_with_many_endpoints_is_recounted_with_as_many_statements_as_one_with_few(organization, vm):
    counted_with = []
    for number, run_id in ((2, "1"), (40, "2")):
        JobRun.objects.all().delete()
        fetch(vm, run_id)
        send([call(f"host-{n}.example") for n in range(number)])
        monitor(run_id=run_id)
        with CaptureQueriesContext(connection) as queries:
            assert settle() == 1
        counted_with.append(len(queries))
        assert counted()[0][1] == "build"
    assert counted_with[0] == counted_with[1]


def test_what_comes_between_the_record_and_the_worker_counts_with_the_rest(organization, vm):
    monitor()
    send(SENT)
    fetch(vm)
    assert send([*SENT, call("evil.example", number=9)])["stored"] == 1
    assert settle() == 1
    assert told_of(JobRun.objects.get()) == (6, 1, 2, 0)
    assert ("ci.yml", "build", "evil.example", 2, 0, 1) in counted()
    assert len(counted()) == 3
    sums_agree()


def test_a_job_that_is_named_late_takes_its_calls_along_and_leaves_those_of_others(organization, vm):
    other = job_run(organization, "b", "1", workflow="ci.yml", job="", fetched_at=timezone.now())
    assert ask("POST", f"{JOBS}/b/events", key("b"), [call("github.com")]).status == 200
    fetch(vm)
    send(SENT)
    monitor()
    assert settle() == 1
    assert ("ci.yml", "", "github.com", 1, 0, 1) in counted()
    assert ("ci.yml", "build", "github.com", 3, 0, 1) in counted()
    assert told_of(other)[0] == 1
    sums_agree()


def test_a_batch_for_a_job_that_was_not_seen_goes_to_its_run_once_that_is_known(organization, vm):
    send(SENT, vm)
    monitor()
    fetch(vm)
    # Sent again, and more of it: what is there already counts once.
    send([*SENT[:2], call("new.example")])
    assert JobRun.objects.count() == 2
    settle()
    settle(200)
    run = JobRun.objects.get()
    assert (run.run_id, run.workflow, run.events.count()) == ("7", "ci.yml", 6)
    assert told_of(run) == (6, 1, 2, 0)
    assert {(workflow, job) for workflow, job, *_ in counted()} == {("ci.yml", "build")}
    assert ("ci.yml", "build", "github.com", 3, 0, 1) in counted()
    assert Detection.objects.get(detection_id="Domain-Blocked").job_run == run
    assert not EarlyRun.objects.exists()
    sums_agree()


def test_a_batch_goes_to_its_run_while_that_is_only_partly_known_and_is_judged_once_it_is(organization, vm):
    send(SENT, vm)
    monitor()
    assert settle() == 1
    assert {(workflow, job) for workflow, job, *_ in counted()} == {("", "build")}
    fetch(vm)
    assert settle(100) == 1
    run = JobRun.objects.get()
    assert told_of(run) == (5, 1, 1, 0)
    assert {(workflow, job) for workflow, job, *_ in counted()} == {("ci.yml", "build")}
    assert run.events.get(host="evil.example").status == "would_be_blocked"
    assert not EarlyRun.objects.exists()
    sums_agree()


def test_a_look_up_that_goes_to_its_run_early_is_judged_too(organization, vm):
    send([{"type": "dns", "domainName": "evil.example.", "ipAddress": "192.0.2.1"}], vm)
    monitor()
    settle()
    fetch(vm)
    settle(100)
    assert NetworkEvent.objects.get().status == "would_be_blocked"


def test_endpoints_are_new_by_the_jobs_own_earlier_runs(organization, vm):
    job_run(organization, "b", "1", workflow="ci.yml", job="build", fetched_at=timezone.now())
    assert ask("POST", f"{JOBS}/b/events", key("b"), [call("github.com")]).status == 200
    monitor()
    send([call("github.com"), call("other.example")])
    fetch(vm)
    settle()
    assert [event.host for event in NetworkEvent.objects.filter(is_new=True)] == ["other.example"]
    assert told_of(JobRun.objects.get(run_id="7")) == (2, 0, 1, 1)


def test_a_verified_job_that_never_asks_is_looked_at_less_and_less_and_then_left(organization, vm, settings):
    send(SENT, vm)
    assert settle() == 0
    assert EarlyRun.objects.get().look_at > timezone.now() + timedelta(seconds=25)
    assert settle(3600 * (settings.JOB_RUN_OPEN_HOURS + 1)) == 0
    assert not EarlyRun.objects.exists()
    assert told_of(JobRun.objects.get()) == (5, 1, 0, 0)


def test_another_organizations_job_with_the_same_names_is_left_alone(organization, vm):
    send(SENT, vm)
    job_run(factories.organization("other"), "a", "7")
    assert settle() == 0
    assert JobRun.objects.get(run_id="").calls == 5


def test_a_batch_that_meets_the_move_of_its_job_goes_to_the_row_that_has_it_now(organization, vm, monkeypatch):
    send(SENT, vm)
    monitor()
    fetch(vm)
    JobRun.objects.filter(run_id="7").update(first_seen_at=timezone.now() - timedelta(days=300))
    sent = [*SENT[:2], call("new.example", status="Dropped")]
    meanwhile(monkeypatch, lambda: (JobRun.objects.filter(run_id="7").update(first_seen_at=timezone.now()), settle()))
    assert send(sent, vm) == {"stored": 1, "repeated": 2, "malformed": 0, "problems": []}
    run = JobRun.objects.get()
    assert (run.run_id, run.events.count(), told_of(run)) == ("7", 6, (6, 2, 1, 0))
    assert Detection.objects.filter(job_run=run, detection_id="Domain-Blocked").count() == 2
    sums_agree()


def test_detections_that_meet_the_move_of_their_job_are_kept_once(organization, vm, monkeypatch):
    send(SENT, vm)
    monitor()
    fetch(vm)
    moved = JobRun.objects.get(run_id="7")
    JobRun.objects.filter(pk=moved.pk).update(first_seen_at=timezone.now() - timedelta(days=300))

    def move():
        JobRun.objects.filter(pk=moved.pk).update(first_seen_at=timezone.now())
        settle()

    monkeypatch.setattr(actions, "correct_times", lambda *said, **more: (move(), correct_times(*said, **more))[1])
    told = [{"id": "Privileged-Container", "detection": "docker run --privileged"}]
    for kept in ((1, 0), (0, 1)):
        answer = ask("POST", f"{JOBS}/a/detections", vm, told)
        assert (answer.status, answer.json()["stored"], answer.json()["repeated"]) == (200, *kept)
    assert Detection.objects.get(detection_id="Privileged-Container").job_run == moved


def test_a_batch_that_cannot_find_its_moved_job_twice_is_asked_for_again_and_counted_once(
    organization, vm, monkeypatch
):
    send(SENT, vm)
    monitor()
    fetch(vm)
    gone = JobRun(**{**JobRun.objects.filter(run_id="").values().get(), "id": 2**40})
    monkeypatch.setattr(store, "prepare", lambda **values: prepare(**{**values, "run": gone}))
    answer = ask("POST", f"{JOBS}/a/events", vm, SENT)
    assert (answer.status, answer.json()["error"]) == (503, "job_run_moved")
    monkeypatch.undo()
    settle()
    assert send([*SENT, call("new.example")], vm)["stored"] == 1
    assert told_of(JobRun.objects.get()) == (6, 1, 2, 0)
    sums_agree()


@pytest.mark.production
@pytest.mark.django_db(transaction=True)
def test_a_batch_that_waits_while_its_job_is_moved_is_counted_where_the_job_is_then(organization, vm):
    monitor()
    send(SENT)
    fetch(vm)
    moved = threading.Event()

    def send_more():
        moved.wait(PATIENCE_SECONDS)
        send([call("new.example")])

    with in_thread(send_more), transaction.atomic():
        assert settle() == 1
        moved.set()
        wait_until_somebody_waits()
    assert {(workflow, job) for workflow, job, *_ in counted()} == {("ci.yml", "build")}
    assert told_of(JobRun.objects.get())[0] == 6
    assert not EarlyRun.objects.exists()
    sums_agree()
