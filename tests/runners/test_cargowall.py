"""CargoWall's action, unmodified: it asks with a GitHub token, and every answer decides what its job may reach."""

import json

import pytest
from django.db import DatabaseError

from policystore.accounts.models import Actor
from policystore.inventory.models import Organization, Workflow
from policystore.policies import break_glass
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import cargowall, recorder
from policystore.runners.models import JobRun
from tests import factories
from tests.github_tokens import token
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

PATH = "/api/cargowall/v1/action/policy"
WORKFLOW = "octo-org/hello-world/.github/workflows/ci.yml@refs/heads/main"
TEXT = "egress-policy: block\nallowed-endpoints: >\n  pkg.octo.example:443\n"


@pytest.fixture(autouse=True)
def _own_cache():
    cargowall.clear_cache()
    recorder.clear()
    yield
    cargowall.clear_cache()


@pytest.fixture
def policy():
    made = factories.policy(factories.organization("octo-org"), "ci", text=TEXT)
    attachments.ModifyAttachments(policy=made, add=[Scope.for_workflow("octo-org", "hello-world", "ci.yml")]).apply(
        by=Actor("ann")
    )
    return made


def bearer(issuer, **claims):
    said = {"aud": "codecargo", "workflow_ref": WORKFLOW, "run_id": "7", "run_attempt": "2", **claims}
    return token(issuer, **said)


def fetch(issuer, target=f"{PATH}?job_key=build", **claims):
    return ask("GET", target, {"authorization": f"Bearer {bearer(issuer, **claims)}"})


def test_a_job_gets_the_policy_of_its_workflow(issuer, policy):
    answer = fetch(issuer)
    assert answer.status == 200
    document = answer.json()
    assert document["mode"] == "CARGO_WALL_MODE_ENFORCE"
    assert [rule["value"] for rule in document["rules"]] == ["pkg.octo.example", "**.pkg.octo.example"]


def test_a_version_in_the_request_changes_nothing(issuer, policy):
    assert fetch(issuer, f"{PATH}?job_key=build&version=v1.3.6").body == fetch(issuer, PATH).body


def test_a_reusable_workflow_gets_the_policy_of_its_caller(issuer, policy):
    called = "octo-org/shared/.github/workflows/build.yml@refs/heads/main"
    assert fetch(issuer, job_workflow_ref=called).status == 200


def test_where_nothing_is_attached_the_workflows_own_list_applies(issuer, policy):
    other = WORKFLOW.replace("ci.yml", "release.yml")
    assert fetch(issuer, workflow_ref=other).status == 404
    assert fetch(issuer, repository_owner="nobody", repository="nobody/x").status == 404


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"aud": "https://github.com/octo-org"}, 401),
        ({"exp": 1}, 401),
        ({"kid": "unknown"}, 401),
        ({"repository_owner_id": "999"}, 403),
        ({"repository_owner_id": "583231"}, 200),
    ],
)
def test_only_a_token_of_this_organization_for_this_audience_is_accepted(issuer, policy, claims, status):
    Organization.objects.update(github_id=583231)
    assert fetch(issuer, **claims).status == status


def test_a_request_without_a_token_is_refused(policy):
    assert ask("GET", PATH, {}).status == 401
    assert ask("GET", PATH, {"authorization": "vm-api-key x"}).status == 401


def test_another_method_is_refused(policy):
    assert ask("POST", PATH, {}).status == 405


def test_a_token_for_cargowall_is_no_key_for_other_routes(issuer, policy):
    answer = ask("GET", "/v1/github/octo-org/actions/policies/ci", {"authorization": f"Bearer {bearer(issuer)}"})
    assert answer.status == 401


def test_while_the_issuer_is_away_the_client_is_asked_to_try_again(issuer, policy):
    issuer.away = True
    answer = fetch(issuer)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_while_the_database_is_away_the_last_good_answer_is_given(issuer, policy, monkeypatch):
    before = fetch(issuer)

    def fail(*_):
        raise DatabaseError("away")

    monkeypatch.setattr(cargowall.database, "first_row", fail)
    after = fetch(issuer)
    assert (after.status, after.body) == (200, before.body)
    assert after.headers["policy-store-answer"] == "remembered"
    assert fetch(issuer, repository_owner_id="999").status == 503


def test_break_glass_audits(issuer, policy):
    break_glass.start(
        organization=policy.organization,
        scope=Scope.for_repository("octo-org", "hello-world"),
        reason="An outage of the registry",
        hours=1,
        by=Actor("ann"),
    )
    assert fetch(issuer).json()["mode"] == "CARGO_WALL_MODE_AUDIT"


def test_a_fetch_is_recorded_as_a_verified_job_run(issuer, policy):
    fetch(issuer)
    fetch(issuer, f"{PATH}?job_key=test")
    recorder.flush()
    runs = JobRun.objects.order_by("correlation_id")
    assert [run.correlation_id for run in runs] == ["cargowall-2-build", "cargowall-2-test"]
    assert {(run.run_id, run.workflow, run.policy_id, run.verified_by, run.api_key_id) for run in runs} == {
        ("7", "ci.yml", policy.pk, "token", None)
    }
    assert Workflow.objects.get(repository__key="hello-world").file_name == "ci.yml"


def test_the_answer_is_read_by_the_client_as_it_is(issuer, policy):
    answer = fetch(issuer)
    assert answer.headers["content-type"] == "application/json"
    assert "location" not in answer.headers
    assert json.loads(answer.body)["defaultAction"] == "CARGO_WALL_ACTION_TYPE_DENY"
