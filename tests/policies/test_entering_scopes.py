"""Scopes as people paste them from GitHub, wherever one can be entered."""

import io
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.roles import Role
from policystore.inventory.actions import import_csv
from policystore.inventory.models import Repository, Workflow
from policystore.policies.models import BreakGlass
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

CI = [
    "hello-world/.github/workflows/ci.yml",
    "octo-org/hello-world/.github/workflows/ci.yml@refs/heads/main",
    "https://github.com/octo-org/hello-world/blob/main/.github/workflows/ci.yml",
]
CODEQL = "octo-org/hello-world/dynamic/github-code-scanning/codeql"
FILE_KEY, CODEQL_KEY = "workflow:octo-org/hello-world/ci.yml", f"workflow:octo-org/hello-world/{CODEQL}"
ENTERED = [
    *(("workflow", text, FILE_KEY) for text in CI),
    ("workflow", "hello-world/dynamic/github-code-scanning/codeql", CODEQL_KEY),
    ("repository", "Hello-World/", "repository:octo-org/hello-world"),
]
FOREIGN = "https://github.com/acme/hello-world/blob/main/.github/workflows/ci.yml"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def owner(organization):
    client = Client()
    client.force_login(factories.member(organization, Role.OWNER), backend="policystore.accounts.access.RoleBackend")
    return client


@pytest.mark.parametrize(("scope_type", "text", "key"), ENTERED)
def test_the_attach_page_understands_it_and_a_runner_gets_the_policy(organization, owner, scope_type, text, key):
    policy = factories.policy(organization)
    address = reverse("policies:attach", args=["octo-org", policy.pk])
    page = owner.post(address, {"type": scope_type, "name": text, "action": "add"})
    assert [target.scope.key for target in page.context["pending"]] == [key]
    owner.post(address, {"add": key, "action": "save"})
    workflow = CODEQL.replace("octo-org", "Octo-Org") if key == CODEQL_KEY else "ci.yml"
    check = f"/v1/github/Octo-Org/Hello-World/actions/policies/workflow-check?workflow={workflow}"
    assert ask("GET", check).json()["has_policy"] is True


def test_the_attach_page_refuses_what_belongs_to_another_organization(organization, owner):
    address = reverse("policies:attach", args=["octo-org", factories.policy(organization).pk])
    for scope_type, text in (("workflow", FOREIGN), ("repository", "acme/hello-world"), ("organization", "acme")):
        page = owner.post(address, {"type": scope_type, "name": text, "action": "add"})
        assert page.status_code == 422
        assert page.context["pending"] == []


@pytest.mark.parametrize("text", [*CI, "ci.yml", "dynamic/github-code-scanning/codeql", CODEQL])
def test_which_policy_applies_understands_it_on_the_page_and_over_the_api(organization, owner, text):
    job = {"repository": "Hello-World/", "workflow": text}
    page = owner.get(reverse("which", args=["octo-org"]), job)
    expected = CODEQL_KEY if "codeql" in text else FILE_KEY
    assert page.context["found"].levels[0].scope.key == expected
    headers = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    answer = ask("GET", f"/v1/github/octo-org/hello-world/actions/policies/which?workflow={text}", headers)
    assert answer.json()["levels"][0]["scope"] == expected


def test_which_policy_applies_takes_the_repository_from_the_workflow_and_refuses_another_one(organization, owner):
    page = owner.get(reverse("which", args=["octo-org"]), {"workflow": CI[2]})
    assert page.context["found"].levels[0].scope.key == FILE_KEY
    for job in ({"workflow": FOREIGN}, {"repository": "other", "workflow": CI[0]}):
        assert owner.get(reverse("which", args=["octo-org"]), job).status_code == 422
    headers = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    answer = ask("GET", f"/v1/github/octo-org/hello-world/actions/policies/which?workflow={FOREIGN}", headers)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_parameter")


def test_break_glass_understands_it(organization, owner):
    form = {"type": "workflow", "name": CI[2], "hours": "1", "reason": "incident"}
    owner.post(reverse("policies:break_glass", args=["octo-org"]), form)
    glass = BreakGlass.objects.get()
    assert glass.scope_key == FILE_KEY
    assert glass.ends_at < timezone.now() + timedelta(hours=2)


def test_the_csv_import_understands_it(organization):
    rows = [f"octo-org,hello-world,{text}" for text in CI] + ["octo-org,https://github.com/octo-org/Other/,"]
    rows += ["octo-org,hello-world,dynamic/github-code-scanning/codeql", f"octo-org,hello-world,{FOREIGN}"]
    result = import_csv(file=io.StringIO("owner,repository,workflow\n" + "\n".join(rows)))
    assert result.taken == 5
    [(line, reason)] = result.refused
    assert line == 7
    assert "does not belong to octo-org" in reason
    assert sorted(Repository.objects.values_list("key", flat=True)) == ["hello-world", "other"]
    assert sorted(Workflow.objects.values_list("file_name", flat=True)) == ["ci.yml", CODEQL]
