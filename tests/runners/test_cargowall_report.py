"""What CargoWall's action reports at the end of a job: job runs, events, verdicts, baselines and detections."""

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.detections.models import Detection
from policystore.inventory.models import Organization, Workflow
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners import rate_limit
from policystore.runners.fetch import cargowall, recorder
from policystore.runners.models import Enforcement, JobRun
from policystore.runners.queries import RUN_TAGS
from policystore.telemetry import limits
from policystore.telemetry.cargowall_report import parse_report
from policystore.traffic.event_parser import Malformed
from policystore.traffic.models import JobEndpoint, NetworkEvent
from tests import factories
from tests.runners.asking import ask
from tests.runners.test_cargowall import bearer, fetch

PATH = "/api/cargowall/v1/action/job"
SAMPLE = json.loads((Path(__file__).parent.parent / "contract" / "cargowall_report.json").read_text())
POLICY = "egress-policy: {}\nallowed-endpoints: >\n  github.com:443 pkg.octo.example:443 cdn.example.com:443\n"
ALLOW, DENY = "CARGO_WALL_ACTION_TYPE_ALLOW", "CARGO_WALL_ACTION_TYPE_DENY"
AUDIT = "CARGO_WALL_MODE_AUDIT"
CATEGORY = "CARGO_WALL_EVENT_CATEGORY_{}"
AZURE = "CARGO_WALL_AUTO_ALLOWED_TYPE_AZURE_INFRASTRUCTURE"


def report_of(*events, **values):
    return {
        "job_key": "build",
        "mode": "CARGO_WALL_MODE_ENFORCE",
        "steps": [{"name": "Run", "events": [*events]}],
    } | values


def event(action=ALLOW, category="CONNECTION", **values):
    return {"action": action, "category": CATEGORY.format(category), "timestamp": "2026-11-30T08:00:10Z", **values}


CALL = {"hostname": "Pkg.Octo.Example.", "ip": "198.51.100.10", "port": 443, "protocol": "TCP", "process": "node"}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (event(**CALL), ("connection", "pkg.octo.example", 443, "198.51.100.10", "", "")),
        (event(DENY, **CALL), ("connection", "pkg.octo.example", 443, "198.51.100.10", "blocked", "")),
        (event(DENY, "DNS", hostname="evil.example"), ("dns", "evil.example", 443, "", "blocked", "")),
        (
            event(DENY, ip="203.0.113.66", port=4444),
            ("connection", "203.0.113.66", 4444, "203.0.113.66", "blocked", ""),
        ),
        (event(hostname="a.example", port=22), ("connection", "a.example", 22, "", "", "")),
        (event(ip="2001:DB8::1", port=443), ("connection", "2001:db8::1", 443, "2001:db8::1", "", "")),
        (
            event(DENY, "PROTOCOL", ip="203.0.113.67", protocol="ICMP"),
            ("other", "203.0.113.67", 0, "203.0.113.67", "blocked", "ICMP"),
        ),
        (event(ip="192.0.2.1", port=53, protocol="UDP"), ("connection", "192.0.2.1", 53, "192.0.2.1", "", "UDP")),
        (
            event(hostname="x.blob.core.windows.net", port=443, auto_allowed_type=AZURE),
            (
                "connection",
                "x.blob.core.windows.net",
                443,
                "",
                "allowed",
                "CargoWall opens it whatever the policy lists",
            ),
        ),
        (
            event(hostname="a.example", port=443, matched_rule="*.example"),
            ("connection", "a.example", 443, "", "", "*.example"),
        ),
        ({"action": DENY, "hostname": "a.example"}, ("dns", "a.example", 443, "", "blocked", "")),
        ({"action": DENY, "ip": "192.0.2.1", "port": 80}, ("connection", "192.0.2.1", 80, "192.0.2.1", "blocked", "")),
    ],
)
def test_each_event_is_translated(sent, expected):
    (parsed,) = parse_report(report_of(sent)).events
    assert (parsed.kind, parsed.host, parsed.port, parsed.address, parsed.outcome, parsed.reason) == expected
    assert parsed.step == "Run"


def test_in_audit_mode_a_denied_call_went_through():
    (parsed,) = parse_report(report_of(event(DENY, **CALL), mode=AUDIT)).events
    assert parsed.outcome == "would_be_blocked"


def test_times_have_nanoseconds_and_steps_and_processes_are_kept():
    (parsed,) = parse_report(report_of(event(**CALL | {"timestamp": "2026-11-30T08:00:05.100000001Z"}))).events
    assert parsed.client_at == datetime(2026, 11, 30, 8, 0, 5, 100000, UTC)
    assert (parsed.process, json.loads(parsed.ancestry)) == ("node", [{"name": "node", "sha256": ""}])


@pytest.mark.parametrize(
    "sent",
    [
        event("CARGO_WALL_ACTION_TYPE_SHAPE", **CALL),
        event(category="HANDSHAKE", **CALL),
        {"category": CATEGORY.format("DNS"), "hostname": "a.example"},
        {"action": 2, "hostname": "a.example"},
        {"action": DENY, "category": ["DNS"], "hostname": "a.example"},
    ],
)
def test_names_that_are_not_known_are_skipped(sent):
    report = parse_report(report_of(sent, event(**CALL)))
    assert (len(report.events), report.malformed) == (1, 0)


@pytest.mark.parametrize(
    "sent", [None, "event", event(), event(hostname=7), event(ip="somewhere"), event(**CALL | {"port": 70000})]
)
def test_events_that_cannot_be_parsed_are_counted(sent):
    report = parse_report(report_of(sent, event(**CALL)))
    assert (len(report.events), report.malformed) == (1, 1)


@pytest.mark.parametrize("sent", [{"steps": {}}, {"steps": [1]}, {"steps": [{"events": 1}]}, {"job_key": 1}])
def test_a_report_of_another_shape_is_refused(sent):
    with pytest.raises(Malformed):
        parse_report(sent)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"type": "CARGO_WALL_DOWNGRADE_TYPE_AUDIT_FALLBACK"}, ("audit", "")),
        (
            {
                "type": "CARGO_WALL_DOWNGRADE_TYPE_LOCKDOWN",
                "failure_class": "CARGO_WALL_FETCH_FAILURE_CLASS_SERVER",
                "http_status": 503,
            },
            ("lockdown", "the store answered with an error (503)"),
        ),
        ({"type": "CARGO_WALL_DOWNGRADE_TYPE_NAP", "failure_class": "X"}, ("", "")),
        ("AUDIT_FALLBACK", ("", "")),
    ],
)
def test_downgrades_are_read(sent, expected):
    report = parse_report({"downgrade": sent})
    assert (report.downgrade, report.downgrade_reason) == expected


def test_an_empty_report_is_read():
    report = parse_report({})
    assert (report.job, report.events, report.malformed, report.started_at) == ("", (), 0, None)


@pytest.fixture(autouse=True)
def _own_state(request):
    if "django_db" in request.keywords:
        cargowall.clear_cache()
        recorder.clear()
        rate_limit.clear()


@pytest.fixture
def policy():
    made = factories.policy(factories.organization("octo-org"), "ci", text=POLICY.format("block"))
    attachments.ModifyAttachments(policy=made, add=[Scope.for_workflow("octo-org", "hello-world", "ci.yml")]).apply(
        by=Actor("ann")
    )
    return made


def send(issuer, body=SAMPLE, **claims):
    return ask("POST", PATH, {"authorization": f"Bearer {bearer(issuer, **claims)}"}, body)


def ran(policy, mode="block"):
    """A job that got the policy, whose report says what SAMPLE says."""
    return JobRun.objects.create(
        organization=policy.organization, repository="hello-world", workflow="ci.yml", run_id="7",
        correlation_id="cargowall-2-build", policy_id=policy.pk, policy_name="ci", policy_version=1,
        egress_policy=mode, verified_by="token", first_seen_at=datetime(2026, 11, 30, 8, tzinfo=UTC),
        fetched_at=datetime(2026, 11, 30, 8, tzinfo=UTC),
    )  # fmt: skip


def statuses():
    return dict(NetworkEvent.objects.values_list("host", "status"))


@pytest.mark.django_db
def test_a_report_completes_the_job_run_of_its_fetch(issuer, policy):
    fetch(issuer)
    answer = send(issuer)
    run = JobRun.objects.get()
    assert (answer.status, answer.json()["job_id"], answer.json()["workflow_run_id"]) == (200, str(run.pk), "7")
    assert answer.json()["workflow_run_url"].endswith(f"/organizations/octo-org/runs/{run.pk}/")
    assert "location" not in answer.headers
    assert (run.job, run.workflow, run.policy_id, run.enforcer) == (
        "build",
        "ci.yml",
        policy.pk,
        "CargoWall v2.0.0-rc.3",
    )
    assert (run.stored_events, run.calls, run.blocked_calls, run.off_list_calls) == (7, 7, 3, 1)
    assert statuses() == {
        "github.com": "allowed",
        "pkg.octo.example": "allowed",
        "cdn.example.com": "allowed",
        "evil.example.org": "blocked",
        "203.0.113.66": "blocked",
        "203.0.113.67": "blocked",
        "api.example.com": "would_be_blocked",
    }
    assert {row.host for row in JobEndpoint.objects.filter(job="build", blocked_calls=0)} == {
        "github.com",
        "pkg.octo.example",
        "cdn.example.com",
        "api.example.com",
    }
    assert set(Detection.objects.filter(detection_id="Domain-Blocked").values_list("host", "port")) == {
        ("evil.example.org", 443),
        ("203.0.113.66", 4444),
        ("203.0.113.67", 0),
    }


@pytest.mark.django_db
def test_the_same_report_twice_changes_nothing(issuer, policy):
    ran(policy)
    send(issuer)
    before = JobRun.objects.values().get()
    assert send(issuer).status == 200
    assert JobRun.objects.values().get() == before
    assert NetworkEvent.objects.count() == 7
    assert Detection.objects.filter(detection_id="Domain-Blocked").count() == 3


@pytest.mark.django_db
def test_a_part_that_was_stored_before_is_not_counted_again(issuer, policy, monkeypatch):
    ran(policy)
    half = deepcopy(SAMPLE)
    del half["steps"][2]["events"][3:]
    send(issuer, half)
    monkeypatch.setattr("policystore.telemetry.cargowall.MAX_EVENTS", 2)
    send(issuer)
    assert NetworkEvent.objects.count() == JobRun.objects.get().calls == 7


@pytest.mark.django_db
def test_a_job_that_could_not_fetch_is_added_with_its_workflow(issuer):
    factories.organization("octo-org")
    began = timezone.now() - timedelta(minutes=5)
    assert send(issuer, {**SAMPLE, "started_at": began.isoformat()}).status == 200
    run = JobRun.objects.get()
    assert (run.correlation_id, run.workflow, run.job, run.verified_by) == (
        "cargowall-2-build",
        "ci.yml",
        "build",
        "token",
    )
    assert run.first_seen_at == began
    assert statuses()["evil.example.org"] == "blocked"
    assert Workflow.objects.get().file_name == "ci.yml"


@pytest.mark.django_db
def test_without_a_policy_the_outcomes_are_those_of_the_workflows_lists(issuer, client):
    organization = factories.organization("octo-org")
    assert fetch(issuer).status == 404
    send(issuer)
    run = JobRun.objects.get()
    assert (run.policy_id, run.blocked_calls, run.enforcement) == (None, 3, Enforcement.AUDIT)
    assert statuses()["api.example.com"] == "allowed"
    client.force_login(factories.member(organization))
    assert (
        "The lists in its workflow applied." in client.get(f"/organizations/octo-org/runs/{run.pk}/").content.decode()
    )
    send(issuer, {**SAMPLE, "mode": AUDIT}, run_attempt="3")
    later = NetworkEvent.objects.filter(job_run__correlation_id="cargowall-3-build")
    assert later.get(host="evil.example.org").status == "would_be_blocked"


@pytest.mark.django_db
def test_in_audit_mode_nothing_counts_as_blocked(issuer, policy):
    ran(policy, "audit")
    send(issuer, {**SAMPLE, "mode": AUDIT})
    run = JobRun.objects.get()
    # The refused name is called by nobody; the packet is no call.
    assert (run.calls, run.blocked_calls, run.off_list_calls) == (5, 0, 2)
    assert statuses()["203.0.113.66"] == "would_be_blocked"
    assert statuses()["api.example.com"] == "off_list"
    assert run.enforcement == Enforcement.AUDIT
    assert not Detection.objects.filter(detection_id="Domain-Blocked").exists()


@pytest.mark.django_db
def test_an_audit_policy_without_a_list_calls_nothing_unlisted(issuer, policy):
    made = factories.policy(policy.organization, "watch", text="egress-policy: audit\n")
    ran(made, "audit")
    send(issuer, {**SAMPLE, "mode": AUDIT})
    assert set(statuses().values()) == {"allowed"}


@pytest.mark.django_db
def test_what_cargowall_opens_by_itself_is_no_downgrade(issuer, policy):
    ran(policy)
    opened = event(hostname="x.blob.core.windows.net", port=443, protocol="TCP", auto_allowed_type=AZURE)
    send(issuer, report_of(opened))
    run = JobRun.objects.get()
    assert (run.calls, run.off_list_calls, run.enforcement) == (1, 0, Enforcement.ENFORCING)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("values", "downgrade", "reason"),
    [
        (
            {
                "mode": AUDIT,
                "downgrade": {
                    "type": "CARGO_WALL_DOWNGRADE_TYPE_AUDIT_FALLBACK",
                    "failure_class": "CARGO_WALL_FETCH_FAILURE_CLASS_TRANSPORT",
                },
            },
            "audit",
            "the store did not answer",
        ),
        ({"downgrade": {"type": "CARGO_WALL_DOWNGRADE_TYPE_LOCKDOWN"}}, "lockdown", ""),
        ({"mode": AUDIT}, "audit", "it reported audit mode although block was served"),
    ],
)
def test_downgrades_are_tagged(issuer, policy, client, values, downgrade, reason):
    ran(policy)
    send(issuer, report_of(**values))
    run = JobRun.objects.get(RUN_TAGS["downgraded"][1])
    assert (run.downgrade, run.downgrade_reason, run.enforcement) == (downgrade, reason, Enforcement.DOWNGRADED)
    assert not JobRun.objects.filter(RUN_TAGS["enforcing"][1]).exists()
    client.force_login(factories.member(policy.organization))
    page = client.get(f"/organizations/octo-org/runs/{run.pk}/").content.decode()
    assert run.get_downgrade_display() in page
    assert reason in page
    # Another job of the matrix that got its policy does not hide it.
    send(issuer, report_of(job_run_id="2"))
    run.refresh_from_db()
    assert run.downgrade == downgrade


@pytest.mark.django_db
def test_the_jobs_of_a_matrix_are_one_job_run_with_the_events_of_each(issuer, policy):
    ran(policy)
    for job_run_id in ("1", "2"):
        send(issuer, {**SAMPLE, "job_run_id": job_run_id, "job_name": f"Build ({job_run_id})"})
    run = JobRun.objects.get()
    assert (run.job, run.calls) == ("build", 14)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"aud": "https://github.com/octo-org"}, 401),
        ({"exp": 1}, 401),
        ({"repository_owner_id": "999"}, 403),
        ({"repository_owner": "stranger", "repository": "stranger/x"}, 403),
        ({"repository_owner_id": "583231"}, 200),
    ],
)
def test_only_a_token_of_this_organization_for_this_audience_is_accepted(issuer, policy, claims, status):
    Organization.objects.filter(key="octo-org").update(github_id=583231)
    assert send(issuer, **claims).status == status
    assert NetworkEvent.objects.exists() == (status == 200)


@pytest.mark.django_db
def test_without_a_token_nothing_is_read(policy):
    assert ask("POST", PATH, {}, SAMPLE).status == 401
    assert ask("POST", PATH, {"x-one-time-key": "x"}, SAMPLE).status == 401
    assert ask("GET", PATH, {}).status == 405


@pytest.mark.django_db
def test_while_the_issuer_is_away_the_answer_is_to_try_again(issuer, policy):
    issuer.away = True
    answer = send(issuer)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b'{"steps":1}', 400), (b'{"a":' * 17 + b"1" + b"}" * 17, 400), (b" " * (1 << 21), 413)],
)
def test_bodies_are_limited_as_other_telemetry(issuer, policy, body, status):
    assert send(issuer, body).status == status
    assert not JobRun.objects.exists()


@pytest.mark.django_db
def test_reports_are_limited_for_each_workflow_run(issuer, policy, monkeypatch):
    monkeypatch.setattr(limits, "REPORTS", limits.REPORTS.__class__("few-reports", 2, part=1))
    assert [send(issuer).status for _ in range(3)] == [200, 200, 429]
    assert send(issuer, run_id="8").status == 200


@pytest.mark.django_db
def test_a_job_cannot_send_more_events_than_others(issuer, policy):
    ran(policy)
    JobRun.objects.update(stored_events=limits.MAX_EVENTS_OF_JOB)
    assert send(issuer).status == 429


@pytest.mark.django_db
def test_nobody_else_gets_a_key_for_the_telemetry_of_such_a_job(policy):
    ran(policy)
    path = "/v1/github/octo-org/hello-world/actions/runs/7/monitor"
    assert ask("POST", path, {}, {"correlation_id": "cargowall-2-build"}).status == 400
    assert ask("POST", path, {}, {"correlation_id": "cargowall-runner"}).status == 200


@pytest.mark.django_db
def test_the_address_in_the_answer_is_safe_in_markdown(issuer):
    factories.organization("octo_org")
    url = send(issuer, repository_owner="octo_org", repository="octo_org/x").json()["workflow_run_url"]
    assert not set(url) & set("()[]<> |`*!")
