"""Which policy applies? The page and the JSON, compared with the fetch itself."""

from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import Actor, Role
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from tests import factories
from tests.runners.asking import ask, before_django

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
ROUTE = "/v1/github/octo-org/hello-world/actions/policies/which"
FETCH = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy"
JOB = {"workflow": "ci.yml", "cluster": "dev-k8s"}
LISTED = ["github.com:443", "api.github.com:443"]
SCOPES = {
    "workflow": Scope.for_workflow("octo-org", "hello-world", "ci.yml"),
    "repository": Scope.for_repository("octo-org", "hello-world"),
    "organization": Scope.for_organization("octo-org"),
    "cluster": Scope.for_cluster("octo-org", "dev-k8s"),
}


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def runner(organization):
    return {"authorization": f"vm-api-key {factories.api_key(organization)}"}


@pytest.fixture
def system(organization):
    return {"authorization": f"Bearer {factories.management_key(organization)}"}


@pytest.fixture
def ann(organization):
    client = Client()
    client.force_login(factories.member(organization, Role.AUDITOR), backend="policystore.accounts.access.RoleBackend")
    return client


def attach(organization, *levels, text=factories.TEXT):
    for level in levels:
        policy = factories.policy(organization, f"of-{level}", text=text)
        attachments.ModifyAttachments(policy=policy, add=[SCOPES[level]]).apply(by=ANN)


def which(headers, **query):
    answer = ask("GET", f"{ROUTE}?{urlencode({**JOB, **query})}", headers)
    assert answer.status == 200, answer.body
    return answer.json()


def page(client, **query):
    answer = client.get(reverse("which", args=["octo-org"]), {"repository": "hello-world", **JOB, **query})
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize("attached", [[], ["cluster"], ["organization", "cluster"], list(SCOPES), ["workflow"]])
def test_it_answers_the_very_bytes_of_the_fetch(organization, runner, system, attached):
    attach(organization, *attached)
    fetched = before_django("GET", f"{FETCH}?{urlencode(JOB)}&run_id=1&correlationId=c", runner)
    for headers in (runner, system):
        told = which(headers)
        assert told["served"] == {"status": fetched.status, "body": fetched.body.decode()}


@pytest.mark.parametrize("winner", SCOPES)
def test_it_names_the_winner_why_it_wins_and_what_it_shadows(organization, system, winner):
    levels = list(SCOPES)[list(SCOPES).index(winner) :]
    attach(organization, *levels)
    told = which(system)
    assert told["applies"] == {
        "policy": f"of-{winner}",
        "version": 1,
        "scope": SCOPES[winner].key,
        "egress_policy": "block",
        "break_glass": False,
        "staged": False,
    }
    assert [level["type"] for level in told["levels"]] == list(SCOPES)
    assert [level["type"] for level in told["levels"] if level["applies"]] == [winner]
    assert [level["policy"] for level in told["levels"]] == [
        f"of-{level}" if level in levels else None for level in SCOPES
    ]
    assert told["shadows"] == [SCOPES[level].key for level in levels[1:]]
    assert f"of-{winner} is attached to the {winner}" in told["why"]


def test_where_nothing_applies_it_says_so(organization, system):
    told = which(system)
    assert told["applies"] is None
    assert "404" in told["why"]
    assert told["action"]["egress_policy"] == "audit"


def test_a_job_that_names_neither_workflow_nor_cluster_has_no_such_levels(organization, system):
    told = which(system, workflow="", cluster="")
    assert [level["scope"] for level in told["levels"]] == [
        None,
        "repository:octo-org/hello-world",
        "organization:octo-org",
        None,
    ]


@pytest.mark.parametrize(
    ("query", "asks", "mode", "endpoints"),
    [
        ({}, "policy_store", "block", LISTED),
        ({"allowed-endpoints": "quay.io:443"}, "policy_store", "block", ["quay.io:443"]),
        ({"egress-policy": "audit"}, "policy_store", "block", LISTED),
        ({"policy": "OTHER"}, "policy", "audit", ["ghcr.io:443"]),
        ({"policy": "missing", "egress-policy": "block"}, "policy", "block", []),
        ({"policy": "other", "use-policy-store": "true"}, "policy_store", "block", LISTED),
        ({"use-policy-store": "false", "egress-policy": "audit"}, "workflow", "audit", []),
    ],
)
def test_it_tells_what_the_action_makes_of_its_inputs(organization, system, query, asks, mode, endpoints):
    attach(organization, "organization")
    factories.policy(organization, "other", text="egress-policy: audit\nallowed-endpoints: ghcr.io:443\n")
    action = which(system, **query)["action"]
    assert (action["asks"], action["egress_policy"], action["allowed_endpoints"]) == (asks, mode, endpoints)
    assert action["reasons"]


def test_nothing_of_it_is_recorded_as_a_job_run(organization, system):
    which(system)
    assert not JobRun.objects.exists()


@pytest.mark.parametrize("authorization", ["", "Bearer nonsense", "vm-api-key nonsense", "Basic {key}", "{key}"])
def test_no_or_a_bad_key_is_a_401(organization, system, authorization):
    key = system["authorization"].split()[1]
    answer = ask("GET", ROUTE, {"authorization": authorization.format(key=key)})
    assert (answer.status, answer.json()["error"]) == (401, "unauthorized")


def test_a_key_of_another_organization_learns_nothing(organization):
    attach(organization, "organization")
    theirs = factories.management_key(factories.organization("other"))
    answer = ask("GET", ROUTE, {"authorization": f"Bearer {theirs}"})
    assert (answer.status, answer.json()["error"]) == (403, "forbidden")
    assert b"of-organization" not in answer.body


def test_the_owner_may_be_written_as_on_an_enterprise_server(organization, system):
    attach(organization, "organization")
    answer = ask("GET", "/v1/github/customer::ghe::Octo-Org/hello-world/actions/policies/which", system)
    assert answer.json()["applies"]["policy"] == "of-organization"


@pytest.mark.parametrize(
    ("query", "named"),
    [("egress-policy=Block", "egress-policy"), ("disable-sudo=yes", "disable-sudo"), ("workflow=%00", "workflow")],
)
def test_a_bad_parameter_is_a_400_that_names_it(organization, system, query, named):
    answer = ask("GET", f"{ROUTE}?{query}", system)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_parameter")
    assert answer.json()["message"].startswith(f"{named}: ")


# The page


def test_the_page_shows_levels_winner_merge_and_the_literal_json(organization, ann, runner):
    attach(organization, "repository", "organization", "cluster")
    fetched = before_django("GET", f"{FETCH}?{urlencode(JOB)}&run_id=1&correlationId=c", runner)
    html = page(ann, **{"allowed-endpoints": "quay.io:443"})
    assert "of-repository is attached to the repository; nothing more specific has a policy." in html
    assert html.count("Shadowed") == 2
    assert html.count(">Applies<") == 1
    assert "replace the store&#x27;s list" in html
    assert "<code>quay.io:443</code>" in html
    assert fetched.body.decode().replace('"', "&quot;") in html


def test_the_page_asks_nothing_in_advance(organization, ann):
    attach(organization, "organization")
    assert (
        "of-organization is attached to the organization"
        in ann.get(reverse("which", args=["octo-org"])).content.decode()
    )


@pytest.mark.parametrize("query", [{"egress-policy": "nonsense"}, {"workflow": "\0"}, {"repository": "r" * 300}])
def test_the_page_refuses_nonsense_with_a_sentence(organization, ann, query):
    answer = ann.get(reverse("which", args=["octo-org"]), query)
    assert answer.status_code == 422
    assert "errorlist" in answer.content.decode()


def test_names_that_cannot_be_scopes_are_shown_as_not_named(organization, ann):
    assert page(ann, repository="<script>", workflow="no yaml").count("not named") == 2


@pytest.mark.parametrize("level", SCOPES)
def test_each_scope_on_a_policys_pages_leads_to_it(organization, ann, level):
    attach(organization, level)
    policy = organization.policies.get()
    for name in ("view", "history"):
        html = ann.get(reverse(f"policies:{name}", args=["octo-org", policy.pk])).content.decode()
        address = f"{reverse('which', args=['octo-org'])}?{SCOPES[level].query}".replace("&", "&amp;")
        assert f'href="{address}"' in html
        assert ann.get(address.replace("&amp;", "&")).status_code == 200


def test_the_inventory_leads_to_it(organization, ann):
    attach(organization, "workflow", "cluster")
    html = ann.get(reverse("settings:inventory", args=["octo-org"])).content.decode()
    address = reverse("which", args=["octo-org"])
    for query in ("repository=hello-world", "repository=hello-world&amp;workflow=ci.yml", "cluster=dev-k8s"):
        assert f'href="{address}?{query}"' in html
