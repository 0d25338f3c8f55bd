"""What runners are served while the glass is broken, and what the store keeps and tells of it."""

import json
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.policies import break_glass
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners import oidc, protocol
from policystore.runners.fetch import handler, query, recorder
from policystore.runners.models import Enforcement, JobRun
from policystore.traffic import job_summary
from policystore.traffic.models import Status
from policystore.traffic.verdicts import verdicts_for
from tests import factories
from tests.runners.asking import ask, before_django, through_django

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
ROUTES = "/v1/github/octo-org/hello-world/actions/policies"
JOB = {"workflow": "ci.yml", "run_id": "1", "correlationId": "c", "cluster": "dev-k8s"}
FOLDER = ".github/workflows"
SCOPES = {
    "workflow": Scope.for_workflow("octo-org", "hello-world", "ci.yml"),
    "repository": Scope.for_repository("octo-org", "hello-world"),
    "organization": Scope.for_organization("octo-org"),
    "cluster": Scope.for_cluster("octo-org", "dev-k8s"),
}
TEXT = "egress-policy: block\nallowed-endpoints: github.com:443\ndisable-sudo: true\nlockdown-mode:\n  enabled: false\n"


@pytest.fixture(params=[through_django, before_django], ids=["through Django", "before Django"])
def ask_fetch(request):
    return request.param


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def bearer(organization):
    return {"authorization": f"vm-api-key {factories.api_key(organization)}"}


@pytest.fixture(autouse=True)
def _fresh():
    protocol.clear()


def attach(organization, level, text=TEXT):
    policy = factories.policy(organization, f"of-{level}", text=text)
    attachments.ModifyAttachments(policy=policy, add=[SCOPES[level]]).apply(by=ANN)
    return policy


def broken(organization, scope, *, hours=4, ago=timedelta(0)):
    return break_glass.start(
        organization=organization, scope=scope, hours=hours, reason="npm is down", by=ANN, at=timezone.now() - ago
    )


def served(asking, bearer, **job):
    return asking("GET", f"{ROUTES}/workflow-policy?{urlencode({**JOB, **job})}", bearer)


@pytest.mark.parametrize("broken_at", SCOPES)
@pytest.mark.parametrize("attached_at", SCOPES)
def test_every_job_in_the_scope_gets_its_policy_with_audit_in_place_of_block(
    organization, bearer, attached_at, broken_at
):
    policy = attach(organization, attached_at)
    broken(organization, SCOPES[broken_at])
    answer = served(before_django, bearer)
    assert answer.status == 200
    assert answer.body.decode() == policy.reply.replace('"egress_policy":"block"', '"egress_policy":"audit"')
    assert answer.body.decode() != policy.reply


@pytest.mark.parametrize(
    "elsewhere",
    [
        Scope.for_workflow("octo-org", "hello-world", "other.yml"),
        Scope.for_repository("octo-org", "other"),
        Scope.for_cluster("octo-org", "other"),
    ],
    ids=lambda scope: scope.key,
)
def test_jobs_elsewhere_are_served_as_before(organization, bearer, elsewhere):
    policy = attach(organization, "organization")
    broken(organization, elsewhere)
    assert served(before_django, bearer).body.decode() == policy.reply


def test_the_glass_of_another_organization_is_not_ours(organization, bearer):
    policy = attach(organization, "organization")
    theirs = factories.organization("theirs")
    broken(theirs, Scope.for_organization("theirs"))
    assert served(before_django, bearer).body.decode() == policy.reply


def test_it_ends_by_itself_exactly_at_its_time_with_no_worker(organization):
    attach(organization, "organization")
    until = broken(organization, SCOPES["organization"]).ends_at

    def mode(at):
        return query.policy_for_job("octo-org", "hello-world", "ci.yml", at=at).egress_policy

    assert [mode(until - timedelta(microseconds=1)), mode(until)] == ["audit", "block"]
    for at in (until.replace(microsecond=0), until.replace(microsecond=500_000)):
        for end in (until.replace(microsecond=0), until.replace(microsecond=500_000)):
            organization.break_glasses.update(ends_at=end)
            assert mode(at) == ("audit" if at < end else "block")


def test_ended_by_hand_the_next_job_is_served_the_policy(organization, bearer, ask_fetch):
    policy = attach(organization, "organization")
    found = broken(organization, SCOPES["organization"])
    assert served(ask_fetch, bearer).json()["egress_policy"] == "audit"
    break_glass.end(break_glass=found, by=ANN)
    assert served(ask_fetch, bearer).body.decode() == policy.reply


def test_of_two_the_one_that_lasts_longer_counts(organization, bearer):
    attach(organization, "organization")
    longer = broken(organization, SCOPES["organization"], hours=72)
    broken(organization, SCOPES["repository"], hours=1)
    assert query.policy_for_job("octo-org", "hello-world", "ci.yml").stored.break_glass_until == longer.ends_at


def test_where_no_policy_applies_there_is_still_none(organization, bearer, ask_fetch):
    broken(organization, SCOPES["organization"])
    assert served(ask_fetch, bearer).status == 404


def test_one_statement_answers_also_then(organization, bearer, ask_fetch, django_assert_num_queries):
    attach(organization, "organization")
    broken(organization, SCOPES["organization"])
    with django_assert_num_queries(1):
        assert served(ask_fetch, bearer).status == 200


def refuse(*_, **__):
    raise OperationalError("the server closed the connection unexpectedly")


def at_time(monkeypatch, moment):
    monkeypatch.setattr("policystore.runners.fetch.fallback_cache.timezone", SimpleNamespace(now=lambda: moment))


def test_a_remembered_answer_does_not_outlive_the_break_glass(organization, bearer, ask_fetch, monkeypatch):
    policy = attach(organization, "organization")
    until = broken(organization, SCOPES["organization"]).ends_at
    before = served(ask_fetch, bearer)
    monkeypatch.setattr(connection, "cursor", refuse)
    at_time(monkeypatch, until - timedelta(seconds=1))
    during = served(ask_fetch, bearer)
    at_time(monkeypatch, until)
    after = served(ask_fetch, bearer)
    assert (during.body, after.body.decode()) == (before.body, policy.reply)
    assert {during.headers["policy-store-answer"], after.headers["policy-store-answer"]} == {"remembered"}


@pytest.mark.django_db(transaction=True)
def test_it_is_the_same_outside_of_a_transaction_as_runners_ask(organization, bearer, monkeypatch):
    policy = attach(organization, "organization")
    until = broken(organization, SCOPES["organization"]).ends_at
    answer = served(before_django, bearer)
    assert answer.json()["egress_policy"] == "audit"
    monkeypatch.setattr(handler.database, "first_row", refuse)
    at_time(monkeypatch, until)
    assert served(before_django, bearer).body.decode() == policy.reply


def check(**query):
    return ask("GET", f"{ROUTES}/workflow-check?{urlencode({'workflow': 'ci.yml', **query})}").json()


def test_the_check_lets_nobody_wait_for_a_block_meanwhile(organization, monkeypatch):
    attach(organization, "organization")
    until = broken(organization, SCOPES["organization"]).ends_at
    assert check() == {"has_policy": True, "should_sleep": False}
    monkeypatch.setattr(connection, "cursor", refuse)
    at_time(monkeypatch, until)
    assert check() == {"has_policy": True, "should_sleep": True}


def test_the_agent_has_applied_its_policy_also_then(organization, bearer):
    attach(organization, "organization")
    broken(organization, SCOPES["organization"])
    served(before_django, bearer)
    recorder.flush()
    assert ask("GET", f"{ROUTES}/workflow-policy/status?correlation_id=c").json() == {"status": "APPLIED"}


def test_the_run_keeps_what_was_served_and_that_it_was_a_break_glass(organization, bearer):
    policy = attach(organization, "organization")
    broken(organization, SCOPES["organization"])
    served(before_django, bearer)
    recorder.flush()
    run = JobRun.objects.get()
    assert (run.policy_id, run.policy_version, run.egress_policy, run.break_glass) == (policy.pk, 1, "audit", True)
    assert run.enforcement == Enforcement.BREAK_GLASS
    assert not run.is_downgraded
    assert "break glass is active" in job_summary.markdown(run, run_url="https://store.example/")
    call = SimpleNamespace(kind="connection", outcome="", host="elsewhere.example", port=443)
    assert verdicts_for(run).of(call) == Status.OFF_LIST


def test_a_policy_that_audits_anyway_is_not_counted_as_one(organization, bearer):
    attach(organization, "organization", text="egress-policy: audit\n")
    broken(organization, SCOPES["organization"])
    served(before_django, bearer)
    recorder.flush()
    assert JobRun.objects.get().break_glass is False


def test_a_later_fetch_of_the_same_job_is_told_as_it_was(organization, bearer):
    attach(organization, "organization")
    found = broken(organization, SCOPES["organization"])
    served(before_django, bearer)
    break_glass.end(break_glass=found, by=ANN)
    served(before_django, bearer)
    recorder.flush()
    run = JobRun.objects.get()
    assert (run.egress_policy, run.break_glass) == ("block", False)


def test_systems_still_read_the_policy_as_it_is_written(organization):
    attach(organization, "organization")
    broken(organization, SCOPES["organization"])
    headers = {"authorization": f"Bearer {factories.management_key(organization)}"}
    told = ask("GET", "/v1/github/octo-org/actions/policies/of-organization", headers).json()
    assert told["egress_policy"] == "block"


@pytest.mark.parametrize(
    ("claims", "mode"),
    [
        ({"repository": "octo-org/Hello-World"}, "audit"),
        ({"repository": "octo-org/other", "workflow_ref": f"octo-org/other/{FOLDER}/strict.yml@refs/heads/m"}, "audit"),
        ({"repository": "octo-org/other", "workflow_ref": f"octo-org/other/{FOLDER}/ci.yml@refs/heads/m"}, "block"),
        ({"repository": "octo-org/other"}, "block"),
        ({}, "block"),
    ],
    ids=["of the repository", "of the workflow", "of another workflow", "of another repository", "that says nothing"],
)
def test_a_job_that_asks_by_name_gets_audit_too(organization, monkeypatch, claims, mode):
    policy = factories.policy(organization, "named")
    broken(organization, SCOPES["repository"])
    broken(organization, Scope.for_workflow("octo-org", "other", "strict.yml"))
    monkeypatch.setattr(oidc, "verified_claims", lambda token: {"repository_owner": "octo-org", **claims})
    answer = ask("GET", "/v1/github/octo-org/actions/policies/Named", {"authorization": "Bearer a.b.c"})
    assert answer.json() == {**json.loads(policy.reply), "egress_policy": mode}


def test_which_policy_applies_says_the_same_as_the_fetch_and_why(organization, bearer):
    attach(organization, "repository")
    found = broken(organization, SCOPES["organization"])
    fetched = served(before_django, bearer)
    told = ask("GET", f"{ROUTES}/which?{urlencode(JOB)}", bearer).json()
    assert told["served"]["body"] == fetched.body.decode()
    assert told["applies"]["break_glass"] is True
    assert told["applies"]["egress_policy"] == told["action"]["egress_policy"] == "audit"
    assert [level["break_glass_until"] for level in told["levels"]] == [None, None, found.ends_at.isoformat(), None]
    assert told["levels"][1]["egress_policy"] == "block"


def test_the_runs_page_can_be_narrowed_to_it(organization, bearer, client):
    attach(organization, "organization")
    found = broken(organization, SCOPES["organization"])
    served(before_django, bearer, correlationId="during", run_id="7001")
    break_glass.end(break_glass=found, by=ANN)
    served(before_django, bearer, correlationId="after", run_id="7002")
    recorder.flush()
    client.force_login(factories.member(organization), backend="policystore.accounts.access.RoleBackend")
    page = client.get("/organizations/octo-org/runs/?tag=break-glass")
    assert [run.correlation_id for run in page.context["page"].rows] == ["during"]
    assert "Break glass" in page.content.decode()
    handler.clear_cache()
