"""What canaries of a staged version are served, and what the store keeps of it."""

from types import SimpleNamespace
from urllib.parse import urlencode

import pytest

from policystore.accounts.models import Actor
from policystore.policies import break_glass
from policystore.policies import staging as staged
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners import oidc
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from policystore.traffic import job_summary
from policystore.traffic.models import Status
from policystore.traffic.verdicts import verdicts_for
from tests import factories
from tests.runners.asking import ask, before_django, through_django

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
ROUTES = "/v1/github/octo-org/hello-world/actions/policies"
JOB = {"workflow": "ci.yml", "run_id": "1", "correlationId": "c", "cluster": "dev-k8s"}
ORGANIZATION = Scope.for_organization("octo-org")
CANARIES = {
    "workflow": Scope.for_workflow("octo-org", "hello-world", "ci.yml"),
    "repository": Scope.for_repository("octo-org", "hello-world"),
    "organization": ORGANIZATION,
    "cluster": Scope.for_cluster("octo-org", "dev-k8s"),
}
LIVE = "egress-policy: audit\nallowed-endpoints: github.com:443\n"
STAGED = "egress-policy: block\nallowed-endpoints: ghcr.io:443\n"


@pytest.fixture(params=[through_django, before_django], ids=["through Django", "before Django"])
def ask_fetch(request):
    return request.param


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def bearer(organization):
    return {"authorization": f"vm-api-key {factories.api_key(organization)}"}


@pytest.fixture
def policy(organization):
    made = factories.policy(organization, "ci", text=LIVE)
    attachments.ModifyAttachments(policy=made, add=[ORGANIZATION]).apply(by=ANN)
    return made


def stage(policy, *canaries, text=STAGED):
    version = staged.StageVersion(policy=policy, text=text, live_version=policy.version, expected_event=None).apply(
        by=ANN
    )
    staged.SetCanaries(policy=policy, scopes=canaries, expected_event=version.event_id).apply(by=ANN)
    return version


def served(asking, bearer, **job):
    return asking("GET", f"{ROUTES}/workflow-policy?{urlencode({**JOB, **job})}", bearer)


@pytest.mark.parametrize("canary", CANARIES)
def test_canaries_get_the_staged_version_and_all_others_the_live_one(policy, bearer, ask_fetch, canary):
    version = stage(policy, CANARIES[canary])
    assert served(ask_fetch, bearer).body.decode() == version.reply
    elsewhere = ask_fetch("GET", "/v1/github/octo-org/other/actions/policies/workflow-policy?workflow=x.yml", bearer)
    assert elsewhere.body.decode() == (version.reply if canary == "organization" else policy.reply)


def test_a_staged_version_without_canaries_is_served_to_nobody(policy, bearer, ask_fetch):
    stage(policy)
    assert served(ask_fetch, bearer).body.decode() == policy.reply


def test_a_canary_scope_of_another_policy_changes_nothing(organization, policy, bearer):
    other = factories.policy(organization, "other")
    attachments.ModifyAttachments(policy=other, add=[CANARIES["cluster"]]).apply(by=ANN)
    stage(other, CANARIES["repository"])
    assert served(before_django, bearer).body.decode() == policy.reply


def test_one_statement_answers(policy, bearer, ask_fetch, django_assert_num_queries):
    stage(policy, ORGANIZATION)
    with django_assert_num_queries(1):
        assert served(ask_fetch, bearer).status == 200


def test_discarded_or_promoted_everybody_gets_the_same_again(policy, bearer, ask_fetch):
    version = stage(policy, CANARIES["repository"])
    staged.discard(policy=policy, expected_event=version.event_id, by=ANN)
    assert served(ask_fetch, bearer).body.decode() == policy.reply
    version = stage(policy, CANARIES["repository"])
    staged.PromoteStaged(policy=policy, expected_event=version.event_id).apply(by=ANN)
    policy.refresh_from_db()
    assert served(ask_fetch, bearer).body.decode() == policy.reply == version.reply


def test_a_break_glass_holds_for_canaries_too(organization, policy, bearer, ask_fetch):
    version = stage(policy, ORGANIZATION)
    break_glass.start(organization=organization, scope=ORGANIZATION, hours=1, reason="x", by=ANN)
    expected = version.reply.replace('"egress_policy":"block"', '"egress_policy":"audit"')
    assert served(ask_fetch, bearer).body.decode() == expected


def test_the_check_knows_what_a_canary_gets(policy):
    stage(policy, CANARIES["repository"])
    for repository, sleeps in (("hello-world", True), ("other", False)):
        target = f"/v1/github/octo-org/{repository}/actions/policies/workflow-check?workflow=ci.yml"
        assert ask("GET", target).json() == {"has_policy": True, "should_sleep": sleeps}


def test_a_job_that_asks_by_name_is_a_canary_too(policy, monkeypatch):
    version = stage(policy, CANARIES["repository"])
    for repository, expected in (("octo-org/hello-world", version.reply), ("octo-org/other", policy.reply)):
        claims = {"repository_owner": "octo-org", "repository": repository}
        monkeypatch.setattr(oidc, "verified_claims", lambda token, claims=claims: claims)
        answer = ask("GET", "/v1/github/octo-org/actions/policies/ci", {"authorization": "Bearer a.b.c"})
        assert answer.body.decode() == expected


def test_the_run_keeps_which_version_it_got_and_is_judged_by_it_ever_after(policy, bearer):
    version = stage(policy, CANARIES["repository"])
    served(before_django, bearer)
    recorder.flush()
    run = JobRun.objects.get()
    assert (run.policy_version, run.staged_event_id, run.egress_policy) == (1, version.event_id, "block")
    assert "| staged |" in job_summary.markdown(run, run_url="https://store.example/")
    calls = {
        host: SimpleNamespace(kind="connection", outcome="", host=host, port=443) for host in ("ghcr.io", "github.com")
    }
    staged.discard(policy=policy, expected_event=version.event_id, by=ANN)
    policies.UpdatePolicy(policy=policy, name="ci", description="", text=LIVE + "# v2\n", expected_version=1).apply(
        by=ANN
    )
    verdicts = verdicts_for(run)
    assert verdicts.of(calls["ghcr.io"]) == Status.ALLOWED
    assert verdicts.of(calls["github.com"]) == Status.WOULD_BE_BLOCKED


def test_runs_of_the_live_version_are_judged_by_it_while_another_is_staged(policy, bearer):
    stage(policy)
    served(before_django, bearer)
    recorder.flush()
    policies.UpdatePolicy(policy=policy, name="ci", description="", text=LIVE + "# v2\n", expected_version=1).apply(
        by=ANN
    )
    run = JobRun.objects.get()
    assert run.staged_event_id is None
    call = SimpleNamespace(kind="connection", outcome="", host="github.com", port=443)
    assert verdicts_for(run).of(call) == Status.ALLOWED


def test_which_policy_applies_says_the_same_as_the_fetch_and_why(policy, bearer):
    stage(policy, CANARIES["repository"])
    fetched = served(before_django, bearer)
    told = ask("GET", f"{ROUTES}/which?{urlencode(JOB)}", bearer).json()
    assert told["served"]["body"] == fetched.body.decode()
    assert told["applies"]["staged"] is True
    assert told["applies"]["egress_policy"] == "block"
    assert [level["canary"] for level in told["levels"]] == [False, True, False, False]
