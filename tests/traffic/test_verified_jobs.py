"""Only jobs that proved to be real count; telemetry of all others is kept apart, bounded, and expires."""

import time
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import AccountEvent, Actor
from policystore.accounts.roles import Role
from policystore.detections import actions
from policystore.detections.models import Detection
from policystore.integrations.models import OutboxMessage
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun, LastFetch, VerifiedRun
from policystore.runners.rate_limit import RateLimit
from policystore.telemetry import limits
from policystore.traffic import retention
from policystore.traffic.aggregates import MARKS
from policystore.traffic.impact import bitmap_store
from policystore.traffic.models import EarlyRun, JobEndpoint, NetworkEvent, RunBitmap, RunEndpoint
from tests import factories
from tests.github_tokens import token
from tests.runners.asking import ask
from tests.traffic.test_ingest import JOBS, call, job_run

pytestmark = pytest.mark.django_db

BASE = "/v1/github/octo-org/hello-world/actions"
EVIL = "attacker-exfil.example"
REPORT = {"id": "Privileged-Container", "detection": "docker run --privileged"}


@pytest.fixture
def organization():
    organization = factories.organization("octo-org")
    policy = factories.policy(organization, "ci", text="egress-policy: block\nallowed-endpoints: github.com:443\n")
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=Actor("ann"))
    factories.integration(organization)
    OutboxMessage.objects.all().delete()
    return organization


@pytest.fixture
def vm(organization):
    return {"authorization": f"vm-api-key {factories.api_key(organization)}"}


@pytest.fixture
def owner(organization):
    client = Client()
    person = factories.member(organization, Role.OWNER, username="olivia")
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


@pytest.fixture
def reader(organization):
    return {"authorization": f"Bearer {factories.management_key(organization)}"}


def monitor(job="made-up", run_id="7", base="/v1"):
    """Register a job as anyone can; returns the headers for its telemetry."""
    target = f"{base}/github/octo-org/hello-world/actions/runs/{run_id}/monitor"
    answer = ask("POST", target, {}, {"correlation_id": job, "job": "build"})
    return {"x-one-time-key": answer.json()["one_time_key"]}


def fetch(vm, job="made-up", run_id="7", repository="hello-world"):
    asked = f"workflow=ci.yml&run_id={run_id}&correlationId={job}"
    target = f"/v1/github/octo-org/{repository}/actions/policies/workflow-policy?{asked}"
    assert ask("GET", target, vm).status == 200
    recorder.flush()


def send(values, headers, job="made-up", kind="events"):
    answer = ask("POST", f"{JOBS}/{job}/{kind}", headers, values)
    assert answer.status == 200
    return answer.json()


def work():
    """What the worker does with telemetry."""
    actions.settle_early(now=timezone.now() + timedelta(seconds=20))
    actions.release_verified()
    bitmap_store.catch_up()


def baselines(reader):
    organization = ask("GET", "/v1/github/octo-org/actions/baseline", reader).json()["data"]
    repository = ask("GET", "/v1/github/octo-org/hello-world/baseline", reader).json()
    endpoints = [[row["endpoint"] for row in found["endpoints"]] for found in (organization, repository)]
    assert endpoints[0] == endpoints[1]
    return endpoints[0], organization["total_workflow_runs"]


def forwarded():
    return sorted(OutboxMessage.objects.values_list("kind", flat=True))


def test_a_made_up_job_counts_nowhere_until_a_fetch_with_a_key_proves_it(organization, vm, reader, owner, settings):
    settings.BASELINE_STABLE_RUNS = 1
    known = job_run(organization, "known", "1", calls=1, **dict.fromkeys(MARKS, True))
    JobEndpoint.objects.create(
        organization=organization, repository="hello-world", workflow="ci.yml", job="build", cluster="",
        host="github.com", port=443, calls=1, blocked_calls=0, runs=1, cluster_runs=1, repository_runs=1,
        first_seen_at=known.first_seen_at, last_seen_at=known.first_seen_at,
    )  # fmt: skip
    key = monitor()
    sent = [call(EVIL), call("github.com"), call("stopped.example", status="Dropped")]
    assert send(sent, key)["stored"] == 3
    send([REPORT], key, kind="detections")
    work()
    run = JobRun.objects.get(correlation_id="made-up")
    assert baselines(reader) == (["github.com:443"], 1)
    assert not RunEndpoint.objects.filter(job_run=run).exists()
    assert not RunBitmap.objects.exists()
    assert (run.calls, run.new_endpoints, run.stored_events) == (0, 0, 3)
    assert ask("GET", "/v1/github/octo-org/actions/detections", reader).json()["data"]["count"] == 0
    assert forwarded() == []
    for page in ("insights/", "insights/network-events/", "runs/", "baseline/", "detections/"):
        assert EVIL not in (text := owner.get(f"/organizations/octo-org/{page}").content.decode())
        assert "stopped.example" not in text

    fetch(vm)
    # What comes between the fetch and the worker's turn counts once, with the rest.
    assert send([*sent, call(EVIL, number=9)], key)["stored"] == 1
    work()
    work()
    run.refresh_from_db()
    assert baselines(reader) == ([f"{EVIL}:443", "github.com:443"], 2)
    counted = RunEndpoint.objects.filter(job_run=run).order_by("host").values_list("host", "calls", "blocked_calls")
    assert list(counted) == [(EVIL, 2, 0), ("github.com", 1, 0), ("stopped.example", 1, 1)]
    assert (run.calls, run.blocked_calls, run.off_list_calls, run.new_endpoints) == (4, 1, 2, 1)
    assert set(Detection.objects.values_list("detection_id", "status")) == {
        ("Domain-Blocked", "new"),
        ("New-Outbound-Network-Call", "new"),
        ("Privileged-Container", "new"),
    }
    assert len(forwarded()) == 3
    assert not EarlyRun.objects.exists()
    assert send([call(EVIL, number=10)], key)["stored"] == 1
    assert RunEndpoint.objects.get(job_run=run, host=EVIL).calls == 3


def test_a_batch_with_an_api_key_proves_its_job_and_what_came_before(organization, vm, reader):
    send([call("first.example")], monitor())
    send([call("second.example")], vm)
    work()
    assert baselines(reader) == (["first.example:443", "second.example:443"], 1)
    assert sum(RunEndpoint.objects.values_list("calls", flat=True)) == 2


def test_a_batch_with_a_key_moves_to_the_run_that_waits_to_be_verified(organization, vm, reader):
    both = call("both.example")
    send([call("first.example"), both], vm)
    send([both, call("second.example", status="Dropped")], monitor())
    for _ in range(3):
        work()
    run = JobRun.objects.get()
    assert (run.run_id, run.verified_by, run.calls, run.events.count()) == ("7", "sender", 3, 3)
    assert baselines(reader)[0] == ["both.example:443", "first.example:443"]
    assert sum(RunEndpoint.objects.values_list("calls", flat=True)) == 3


def test_a_token_from_github_proves_the_jobs_of_its_workflow_run(organization, issuer, reader):
    headers = {"authorization": f"Bearer {token(issuer, run_id='7', repository='octo-org/hello-world')}"}
    send([call("before.example")], monitor("registered-before"), "registered-before")
    assert ask("GET", "/v1/github/octo-org/actions/policies/ci", headers).status == 200
    recorder.flush()
    send([call("after.example")], monitor("registered-after"), "registered-after")
    send([call("other.example")], monitor("other", run_id="8"), "other")
    work()
    assert baselines(reader)[0] == ["after.example:443", "before.example:443"]
    assert set(JobRun.objects.values_list("correlation_id", "verified_by")) == {
        ("registered-before", "token"),
        ("registered-after", "token"),
        ("other", ""),
    }


def test_a_fetch_for_another_repository_proves_nothing(organization, vm, reader):
    send([call(EVIL)], monitor())
    fetch(vm, repository="other")
    fetch(vm, run_id="8")
    work()
    assert baselines(reader) == ([], 0)


def test_registering_a_job_under_another_repository_takes_nothing_from_a_real_one(organization, vm, reader):
    target = "/v1/github/octo-org/made-up/actions/runs/7/monitor"
    key = {"x-one-time-key": ask("POST", target, {}, {"correlation_id": "a", "job": "x"}).json()["one_time_key"]}
    assert ask("POST", "/v1/github/octo-org/made-up/actions/jobs/a/events", key, [call(EVIL)]).status == 200
    fetch(vm, "a")
    assert send([call("github.com")], monitor("a"), "a")["stored"] == 1
    work()
    assert baselines(reader) == (["github.com:443"], 1)
    assert set(JobRun.objects.values_list("repository", "verified_by")) == {("made-up", ""), ("hello-world", "key")}


def choose(client, cluster, counts):
    address = reverse("runners-settings:count-unverified", args=["octo-org", cluster.pk])
    return client.post(address, {"counts": counts}, follow=True).content.decode()


def test_an_owner_can_count_the_unverified_jobs_of_a_cluster(organization, owner, reader):
    cluster = organization.clusters.create(name="prod-k8s")
    address = "/v1/clusters/prod-k8s"
    send([call("before.example")], monitor("a", base=address), "a")
    page = choose(owner, cluster, "1")
    assert "Counts unverified jobs" in page
    assert "Anyone who can reach this store can then forge reports" in page
    send([call("after.example")], monitor("b", base=address), "b")
    send([call(EVIL)], monitor("c", base="/v1/clusters/other"), "c")
    work()
    assert baselines(reader)[0] == ["after.example:443", "before.example:443"]
    assert "Counts unverified jobs" not in choose(owner, cluster, "")
    choose(owner, cluster, "")
    send([call("too-late.example")], monitor("d", base=address), "d")
    work()
    assert baselines(reader)[0] == ["after.example:443", "before.example:443"]
    kinds = list(AccountEvent.objects.filter(kind__contains="unverified").order_by("pk").values_list("kind", "actor"))
    assert kinds == [
        ("unverified jobs counted", "olivia"),
        ("unverified jobs not counted", "olivia"),
    ]


def test_a_cluster_of_another_organization_cannot_be_changed(organization, owner):
    theirs = factories.organization("theirs").clusters.create(name="prod-k8s")
    address = reverse("runners-settings:count-unverified", args=["octo-org", theirs.pk])
    assert owner.post(address, {"counts": "1"}).status_code == 404


def test_pages_mark_unverified_jobs_and_say_why_they_do_not_count(organization, owner):
    key = monitor()
    send([call(EVIL)], key)
    send([REPORT], key, kind="detections")
    run = JobRun.objects.get()
    runs = owner.get("/organizations/octo-org/runs/?tag=unverified").content.decode()
    assert f"/organizations/octo-org/runs/{run.pk}/" in runs
    assert "Nothing proves that these jobs are real" in runs
    page = owner.get(f"/organizations/octo-org/runs/{run.pk}/").content.decode()
    assert "This job is unverified" in page
    assert EVIL in page
    reported = owner.get("/organizations/octo-org/detections/?status=unverified").content.decode()
    assert "Privileged-Container" in reported
    found = Detection.objects.get()
    owner.post(reverse("detections:change-status", args=["octo-org", found.pk]), {"status": "new"})
    found.refresh_from_db()
    assert found.status == "unverified"


def test_unverified_events_of_an_organization_are_bounded(organization, vm, monkeypatch):
    monkeypatch.setattr(limits, "UNVERIFIED_A_DAY", RateLimit("unverified", 5, part=2, seconds=86400))
    keys = [monitor(f"job-{number}", run_id=str(number)) for number in range(3)]
    answers = [
        ask("POST", f"{JOBS}/job-{number}/events", keys[number], [call(f"{n}.example") for n in range(2)])
        for number in range(3)
    ]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) > 0
    fetch(vm, "job-2", run_id="2")
    assert send([call(f"{n}.example") for n in range(9)], keys[2], "job-2")["stored"] == 9


def test_a_job_cannot_send_events_without_end(organization, monkeypatch):
    monkeypatch.setattr(limits, "MAX_EVENTS_OF_JOB", 3)
    key = monitor()
    send([call(f"{n}.example") for n in range(3)], key)
    answer = ask("POST", f"{JOBS}/made-up/events", key, [call("one-more.example")])
    assert (answer.status, answer.headers["retry-after"]) == (429, "3600")


def test_unverified_jobs_expire_after_a_day(organization, vm):
    now = timezone.now()
    JobRun.objects.bulk_create(
        JobRun(organization=organization, repository="x", run_id="1", correlation_id=str(n), first_seen_at=now)
        for n in range(1500)
    )
    key = monitor("job-1")
    send([call(EVIL)], key, "job-1")
    send([REPORT], key, "job-1", kind="detections")
    fetch(vm, "job-2", run_id="2")
    assert not retention.delete_unverified_runs(seconds=60, now=now + timedelta(hours=23))
    assert JobRun.objects.count() == 1502
    assert not retention.delete_unverified_runs(seconds=60, now=now + timedelta(hours=25))
    assert list(JobRun.objects.values_list("correlation_id", "verified_by")) == [("job-2", "key")]
    assert not NetworkEvent.objects.exists()
    assert not Detection.objects.exists()
    assert not EarlyRun.objects.exists()


def test_only_the_newest_unverified_jobs_of_an_organization_are_kept(organization, vm, monkeypatch):
    monkeypatch.setattr(retention, "MOST_UNVERIFIED", 5)
    monkeypatch.setattr(retention, "RUNS_PER_STEP", 2)
    job_run(factories.organization("other"), "theirs", verified_by="")
    fetch(vm, "verified")
    for number in range(9):
        monitor(f"job-{number}", run_id=str(number))
    assert not retention.delete_unverified_runs(seconds=60)
    left = list(JobRun.objects.order_by("pk").values_list("correlation_id", flat=True))
    assert left == ["theirs", "verified", *(f"job-{number}" for number in range(4, 9))]


def test_one_turn_of_deleting_unverified_jobs_has_one_time_limit_for_all_organizations(organization, monkeypatch):
    factories.organization("other")
    limits = []

    def repeat(step, *, size, seconds):
        limits.append(seconds)
        time.sleep(0.1)
        return False

    monkeypatch.setattr(retention.transactions, "repeat_in_batches", repeat)
    assert not retention.delete_unverified_runs(seconds=1.0)
    assert limits[0] <= 1.0
    assert limits[1] <= 0.9


def test_job_runs_expire_and_baselines_stay(organization, vm, reader, settings):
    settings.JOB_RUN_RETENTION_DAYS = 10
    for job, days in (("old", 11), ("kept", 9)):
        fetch(vm, job)
        send([call(f"{job}.example")], monitor(job), job)
        at = timezone.now() - timedelta(days=days)
        JobRun.objects.filter(correlation_id=job).update(first_seen_at=at)
        LastFetch.objects.update(at=at)
        VerifiedRun.objects.create(organization=organization, repository="x", run_id=job, at=at)
    work()
    assert not retention.delete_expired_runs(seconds=60)
    assert list(JobRun.objects.values_list("correlation_id", flat=True)) == ["kept"]
    assert list(RunEndpoint.objects.values_list("host", flat=True)) == ["kept.example"]
    assert not VerifiedRun.objects.exists()
    assert baselines(reader)[0] == ["kept.example:443", "old.example:443"]
