"""Telemetry in: what is kept, counted and corrected, and who may send it."""

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.policies import exceptions
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.runners.protocol import one_time_key
from policystore.traffic import aggregates, baseline, store, verdicts
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.event_parser import CLOCK_TOLERANCE, correct_times
from policystore.traffic.models import JobEndpoint, NetworkEvent, RunEndpoint
from tests import factories
from tests.plans import plans
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

JOBS = "/v1/github/octo-org/hello-world/actions/jobs"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def job_run(organization, correlation_id="a", run_id="1", **values):
    said = {
        "repository": "hello-world",
        "workflow": "ci.yml",
        "job": "build",
        "verified_by": "key",
        "first_seen_at": timezone.now(),
        **values,
    }
    return JobRun.objects.create(organization=organization, correlation_id=correlation_id, run_id=run_id, **said)


def with_policy(organization, text):
    policy = policies.create(organization=organization, name="ci", text=text, by=Actor("ann"))
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=Actor("ann"))
    return {
        "policy_id": policy.pk,
        "policy_name": "ci",
        "policy_version": policy.version,
        "egress_policy": policy.egress_policy,
        "scope_key": "organization:octo-org",
    }


def key(correlation_id="a"):
    """The key of the latest job with this correlation id."""
    run = JobRun.objects.filter(correlation_id=correlation_id).order_by("-pk").first()
    run_id = run.run_id if run else "1"
    return {"x-one-time-key": one_time_key("octo-org", "hello-world", correlation_id, run_id)}


def call(host, *, number=0, port="443", at=None, **more):
    moment = at or timezone.now() - timedelta(seconds=30 - number % 30)
    return {
        "type": "networkconnection",
        "domainName": f"{host}.",
        "ipAddress": f"192.0.2.{number % 250 + 1}",
        "port": port,
        "timestamp": moment.isoformat(),
        "tool": {"name": "curl", "sha256": "aa", "parent": {"name": "bash", "sha256": "bb", "parent": None}},
        **more,
    }


def send(values, correlation_id="a", headers=None):
    return ask("POST", f"{JOBS}/{correlation_id}/events", headers or key(correlation_id), values)


def meanwhile(monkeypatch, act):
    """Run `act` after the next batch is prepared and before it is stored."""
    prepare = store.prepare

    def prepare_then_act(**values):
        batch = prepare(**values)
        monkeypatch.undo()
        act()
        return batch

    monkeypatch.setattr(store, "prepare", prepare_then_act)


def test_a_batch_is_stored_counted_and_aggregated(organization):
    run = job_run(organization)
    values = [call("github.com", number=n) for n in range(3)] + [call("ghcr.io", port="443(https)")]
    assert send(values).json() == {"stored": 4, "repeated": 0, "malformed": 0, "problems": []}
    assert NetworkEvent.objects.filter(job_run=run).count() == 4
    rows = JobEndpoint.objects.order_by("host").values_list("host", "port", "calls", "blocked_calls", "runs", "job")
    assert list(rows) == [("ghcr.io", 443, 1, 0, 1, "build"), ("github.com", 443, 3, 0, 1, "build")]
    run.refresh_from_db()
    assert (run.calls, run.blocked_calls, run.off_list_calls, run.new_endpoints) == (4, 0, 0, 0)


def test_events_sent_again_do_not_count_twice(organization):
    run = job_run(organization)
    values = [call("github.com", number=n) for n in range(3)]
    send(values)
    assert send([*values, call("ghcr.io")]).json()["repeated"] == 3
    assert send(values[:1] * 2).json() == {"stored": 0, "repeated": 2, "malformed": 0, "problems": []}
    run.refresh_from_db()
    assert run.calls == 4
    assert JobEndpoint.objects.get(host="github.com").calls == 3


LOOK_UPS = [{"type": "dns", "domainName": f"host-{n}.example", "ipAddress": "192.0.2.1"} for n in range(3)]


@pytest.mark.parametrize(
    ("sent", "calls"), [([call("github.com", number=n, at=datetime.now(UTC)) for n in range(3)], 3), (LOOK_UPS, 0)]
)
def test_a_batch_that_comes_twice_at_once_counts_once(organization, monkeypatch, sent, calls):
    job_run(organization)
    meanwhile(monkeypatch, lambda: send(sent[:2]))
    answer = send(sent).json()
    assert (answer["stored"], answer["repeated"]) == (1, 2)
    assert (JobRun.objects.get().calls, NetworkEvent.objects.count()) == (calls, 3)
    assert sum(JobEndpoint.objects.values_list("calls", flat=True)) == calls


def test_an_endpoint_that_two_batches_of_a_run_tell_at_once_is_new_once(organization, monkeypatch):
    job_run(organization, "b", "2")
    send([call("github.com")], "b")
    job_run(organization)
    meanwhile(monkeypatch, lambda: send([call("fresh.example", number=1)]))
    assert send([call("fresh.example", number=2)]).json()["stored"] == 1
    run = JobRun.objects.get(correlation_id="a")
    assert (run.calls, run.new_endpoints) == (2, 1)


def test_a_batch_is_judged_by_the_policy_that_is_recorded_while_it_is_read(organization, monkeypatch):
    served = with_policy(organization, "egress-policy: block\nallowed-endpoints: github.com:443\n")
    run = job_run(organization)
    recorded = {**served, "fetched_at": timezone.now()}
    meanwhile(monkeypatch, lambda: JobRun.objects.filter(pk=run.pk).update(**recorded))
    send([call("evil.example")])
    assert NetworkEvent.objects.get().status == "would_be_blocked"


def test_good_events_are_kept_and_bad_ones_told(organization):
    job_run(organization)
    values = [
        call("github.com"),
        "text",
        None,
        {"type": "other"},
        call("github.com", port="none"),
        call("github.com", port=70000),
        call("github.com", port="443000"),
        {**call("github.com"), "ipAddress": "not an address"},
        {**call("a b"), "domainName": "a b"},
        {**call("x"), "domainName": ["x"]},
        {"type": "dns"},
        call("ghcr.io"),
    ]
    answer = send(values)
    assert answer.status == 200
    assert (answer.json()["stored"], answer.json()["malformed"]) == (2, 10)
    assert [problem["index"] for problem in answer.json()["problems"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_each_run_counts_once_for_its_job_and_a_first_run_is_not_new(organization):
    job_run(organization, "a", "1")
    second = job_run(organization, "b", "2")
    send([call("github.com")], "a")
    send([call("github.com"), call("ghcr.io")], "b")
    send([call("github.com", number=9)], "b")
    runs = dict(JobEndpoint.objects.values_list("host", "runs"))
    assert runs == {"github.com": 2, "ghcr.io": 1}
    second.refresh_from_db()
    assert second.new_endpoints == 1
    assert list(NetworkEvent.objects.filter(is_new=True).values_list("host", flat=True)) == ["ghcr.io"]


AUDIT = "egress-policy: audit\nallowed-endpoints: github.com:443 *.example.com:8443\n"


@pytest.mark.parametrize(
    ("mode", "event", "status"),
    [
        ("audit", call("github.com"), "allowed"),
        ("audit", call("github.com", port="80"), "off_list"),
        ("audit", call("a.b.example.com", port="8443"), "allowed"),
        ("audit", call("evil.example"), "off_list"),
        ("audit", call("evil.example", status="Dropped"), "blocked"),
        ("audit", {**call("evil.example"), "ipAddress": "54.185.253.63"}, "blocked"),
        ("audit", call("codeload.github.com"), "allowed"),
        ("block", call("evil.example"), "would_be_blocked"),
        ("block", call("github.com"), "allowed"),
    ],
)
def test_a_call_is_judged_by_the_policy_that_was_served(organization, mode, event, status):
    job_run(organization, **with_policy(organization, AUDIT.replace("audit", mode)))
    send([event])
    assert NetworkEvent.objects.get().status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("mirror.example", "allowed"),
        ("a.b.example.com", "allowed"),
        ("github.com", "allowed"),
        ("x.example", "off_list"),
    ],
)
def test_looking_up_a_name_is_judged_without_a_port(organization, host, status):
    listed = "egress-policy: audit\nallowed-endpoints: github.com:443 mirror.example:80 *.example.com:8443\n"
    job_run(organization, **with_policy(organization, listed))
    send([{"type": "dns", "domainName": f"{host}.", "ipAddress": "192.0.2.1"}])
    assert NetworkEvent.objects.get().status == status


def test_a_later_version_does_not_change_what_was_served(organization):
    served = with_policy(organization, AUDIT)
    job_run(organization, **served)
    policy = policies.Policy.objects.get()
    text = "egress-policy: audit\nallowed-endpoints: only.example:443\n"
    policies.UpdatePolicy(policy=policy, name="ci", description="", text=text, expected_version=1).apply(
        by=Actor("ann")
    )
    send([call("github.com")])
    assert NetworkEvent.objects.get().status == "allowed"


def test_the_exceptions_of_a_policy_that_was_deleted_count_for_whom_they_were_served(organization):
    factories.member(organization, username="ann")
    served = with_policy(organization, "egress-policy: block\nallowed-endpoints: github.com:443\n")
    now = timezone.now()
    policy = policies.Policy.objects.get()
    for endpoint in ("open.example:443", "ended.example:443"):
        exceptions.AddException(
            policy=policy, endpoint=endpoint, reason="x", owner="ann", expires_at=now + timedelta(hours=1)
        ).apply(by=Actor("ann"), at=now - timedelta(hours=2))
    exceptions.end(exception=policy.exceptions.get(endpoint="ended.example:443"), by=Actor("ann"))
    job_run(organization, "before", fetched_at=now - timedelta(hours=1), **served)
    job_run(organization, "after", fetched_at=timezone.now(), **served)
    policies.DeletePolicy(policy=policies.Policy.objects.get()).apply(by=Actor("ann"))
    found = {}
    for correlation_id in ("before", "after"):
        send([call("open.example"), call("ended.example"), call("other.example")], correlation_id)
        rows = NetworkEvent.objects.filter(job_run__correlation_id=correlation_id)
        found[correlation_id] = [row.host for row in rows.order_by("host") if row.status == "allowed"]
    assert found == {"before": ["ended.example", "open.example"], "after": ["open.example"]}


def test_an_audit_policy_without_a_list_has_nothing_off_it(organization):
    job_run(organization, **with_policy(organization, "egress-policy: audit\n"))
    send([call("evil.example")])
    assert NetworkEvent.objects.get().status == "allowed"


def test_a_blocked_call_is_no_part_of_the_run_counts_as_allowed(organization):
    run = job_run(organization, **with_policy(organization, AUDIT))
    send([call("evil.example", status="Dropped"), call("other.example")])
    run.refresh_from_db()
    assert (run.calls, run.blocked_calls, run.off_list_calls) == (2, 1, 1)
    assert RunEndpoint.objects.get(host="evil.example").blocked_calls == 1


@pytest.mark.parametrize(("called", "stored"), [("*", "%2a"), ("*.Example.com", "%2a.example.com"), ("*" * 253, None)])
def test_a_star_in_a_name_that_was_called_becomes_no_wildcard(organization, called, stored):
    job_run(organization)
    assert send([call(called)]).status == 200
    [found] = baseline.endpoints(organization, BaselineScope())
    assert "*" not in found.host
    assert found.host == stored or (stored is None and len(found.host) == 255)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_baseline_tells_of_calls_that_went_through_alone(organization, at_once):
    began = timezone.now() - timedelta(hours=8)
    moments = [began + timedelta(hours=hours) for hours in range(5)]
    # Stopped at first and at last, reached between; another run is stopped only.
    sent = [call("x.example", at=at, status="Dropped" if n in (0, 4) else "") for n, at in enumerate(moments)]
    for correlation_id, values in (("a", sent), ("b", sent[:1])):
        job_run(organization, correlation_id, first_seen_at=began)
        for batch in [values] if at_once else [[value] for value in values]:
            send(batch, correlation_id)
    [found] = baseline.endpoints(organization, BaselineScope())
    assert (found.calls, found.runs) == (3, 1)
    assert (found.first_seen_at, found.last_seen_at) == (moments[1], moments[3])
    stored = JobEndpoint.objects.values_list("calls", "blocked_calls").get()
    assert stored == (6, 3)


def test_gzip_is_unpacked_and_bombs_are_refused(organization):
    job_run(organization)
    headers = {**key(), "content-encoding": "gzip"}
    assert send(gzip.compress(json.dumps([call("github.com")]).encode()), headers=headers).json()["stored"] == 1
    assert send(gzip.compress(b" " * (4 * 1024 * 1024 - 2) + b"[]"), headers=headers).status == 200
    assert send(gzip.compress(b" " * (4 * 1024 * 1024 - 1) + b"[]"), headers=headers).status == 413
    assert send(b"no gzip", headers=headers).status == 400
    assert send(gzip.compress(b"[]")[:-4], headers=headers).status == 400
    assert send(b"[]", headers={**key(), "content-encoding": "br"}).status == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b"", 400),
        (b"[" * 50_000, 400),
        (b"[" * 17 + b"]" * 17, 400),
        ([{}] * 1001, 413),
        ([{}] * 1000, 200),
        ([], 200),
    ],
)
def test_a_body_that_is_no_batch_is_refused(organization, body, status):
    job_run(organization)
    assert send(body).status == status


def test_who_may_send(organization):
    job_run(organization)
    vm = factories.api_key(organization)
    foreign = factories.api_key(factories.organization("other"))
    table = [
        ({}, 401),
        (key("b"), 401),
        ({"x-one-time-key": "ps_otk_x"}, 401),
        ({"authorization": "vm-api-key nonsense"}, 401),
        ({"authorization": f"vm-api-key {foreign}"}, 403),
        ({"authorization": f"vm-api-key {vm}"}, 200),
        ({"authorization": vm}, 200),
        (key(), 200),
    ]
    for headers, status in table:
        response = Client().generic("POST", f"{JOBS}/a/events", b"[]", content_type="application/json", headers=headers)
        assert response.status_code == status, headers


def test_a_late_event_reaches_the_job_whose_key_it_carries(organization):
    base = "/v1/github/octo-org/hello-world/actions/runs"
    keys = {}
    for run_id in ("1", "2"):
        body = {"correlation_id": "runner-1", "job": f"job-{run_id}"}
        told = ask("POST", f"{base}/{run_id}/monitor", {}, body).json()
        keys[run_id] = {"x-one-time-key": told["one_time_key"]}
    assert send([call("late.example")], "runner-1", keys["1"]).json()["stored"] == 1
    assert send([call("second.example")], "runner-1", keys["2"]).json()["stored"] == 1
    post = {"domainName": "single.example", "ipAddress": "192.0.2.1", "port": "443"}
    assert ask("POST", f"{JOBS}/runner-1/networkconnection", keys["1"], post).json()["stored"] == 1
    stored = NetworkEvent.objects.order_by("host").values_list("host", "job_run__job")
    assert list(stored) == [("late.example", "job-1"), ("second.example", "job-2"), ("single.example", "job-1")]


def test_an_api_key_may_tell_of_a_job_that_was_never_seen(organization):
    vm = factories.api_key(organization)
    assert send([call("github.com")], "fresh", {"authorization": f"vm-api-key {vm}"}).status == 200
    assert JobRun.objects.get().correlation_id == "fresh"
    assert send([call("github.com")], "unseen", key("unseen")).status == 403


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"\xff", b'"text"', b"[" * 50_000])
def test_an_agents_post_is_answered_with_200_whatever_is_in_it(organization, body):
    run = job_run(organization)
    for kind in ("dns", "networkconnection"):
        answer = ask("POST", f"{JOBS}/a/{kind}", key(), body)
        assert (answer.status, answer.json()["stored"], answer.json()["malformed"]) == (200, 0, 1)
        assert answer.json()["problems"][0]["message"]
    assert ask("POST", f"{JOBS}/a/dns", {}, body).status == 401
    assert not run.events.exists()


def test_telemetry_right_behind_the_fetch_counts_under_what_the_fetch_told(organization):
    policy = factories.policy(organization, "ci", text="egress-policy: audit\nallowed-endpoints: github.com:443\n")
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_repository("octo-org", "hello-world")]).apply(
        by=Actor("ann")
    )
    vm = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    asked = "workflow=ci.yml&run_id=7&correlationId=a"
    base = "/v1/github/octo-org/hello-world/actions"
    assert ask("GET", f"{base}/policies/workflow-policy?{asked}", vm).status == 200
    ask("POST", f"{base}/runs/7/monitor", {}, {"correlation_id": "a", "job": "build"})
    send([call("evil.example")])
    assert NetworkEvent.objects.get().status == "off_list"
    assert list(JobEndpoint.objects.values_list("workflow", "job")) == [("ci.yml", "build")]


def test_a_name_that_was_only_looked_up_is_no_new_endpoint(organization):
    job_run(organization, "a", "1")
    send([call("github.com")], "a")
    second = job_run(organization, "b", "2")
    looked_up = {"type": "dns", "domainName": "mirror.example", "ipAddress": "192.0.2.1"}
    send([looked_up, call("mirror.example", port="8080")], "b")
    assert [event.endpoint for event in NetworkEvent.objects.filter(is_new=True)] == ["mirror.example:8080"]
    second.refresh_from_db()
    assert second.new_endpoints == 1


def test_what_is_told_long_after_a_job_that_was_never_seen_keeps_its_times(organization):
    vm = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    yesterday = timezone.now() - timedelta(hours=20)
    send([call("github.com", at=yesterday)], "fresh", vm)
    assert NetworkEvent.objects.get().occurred_at == yesterday


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("client", "stored"),
    [
        ([NOW - HOUR / 2, NOW], [NOW - HOUR / 2, NOW]),
        ([NOW + 5 * HOUR, NOW + 4 * HOUR], [NOW, NOW - HOUR]),
        ([NOW - 99 * HOUR, NOW - 98 * HOUR], [NOW - HOUR, NOW]),
        ([None, NOW - HOUR / 2], [NOW, NOW - HOUR / 2]),
        ([None], [NOW]),
        ([], []),
        ([NOW - 99 * HOUR, NOW], [NOW - HOUR - CLOCK_TOLERANCE, NOW]),
        ([datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)], [NOW, NOW - HOUR - CLOCK_TOLERANCE]),
    ],
)
def test_a_wrong_clock_is_corrected_by_the_time_of_arrival(client, stored):
    assert correct_times(client, received_at=NOW, job_began_at=NOW - HOUR) == stored


def test_both_times_are_kept(organization):
    job_run(organization)
    wrong = timezone.now() + timedelta(days=400)
    send([call("github.com", at=wrong)])
    event = NetworkEvent.objects.get()
    assert event.client_at == wrong
    assert event.occurred_at <= event.received_at


@pytest.mark.parametrize(("job", "index"), [("build", "job_run_of_named_job"), ("", "job_run_of_folded_repository")])
def test_whether_a_job_ran_before_is_looked_up_and_not_searched_for(organization, job, index):
    run = job_run(organization, job=job)
    others = [{"correlation_id": f"other-{number}", "repository": f"other-{number}"} for number in range(300)]
    JobRun.objects.bulk_create(
        JobRun(
            verified_by="key", organization=organization, job="build", first_seen_at=run.first_seen_at, calls=1, **other
        )
        for other in others
    )
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE runners_jobrun")
    *_, plan = plans(lambda: aggregates.new_endpoints(run, {("a.example.com", 443)}, aggregates.job_of(run)))
    assert index in plan


def test_an_earlier_version_is_looked_up_and_not_searched_for(organization):
    served = with_policy(organization, AUDIT)
    run = job_run(organization, **{**served, "policy_version": 0})
    for number in range(60):
        factories.policy(organization, f"other-{number}")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE audit_log_historyevent")
    [plan] = [plan for plan in plans(lambda: verdicts.verdicts_for(run)) if "history" in plan]
    assert "history_of_policy" in plan
    assert "owner" in plan
