"""Quick search: what it finds for whom, as a page and as a part of the dialog."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import SYSTEM
from policystore.accounts.roles import Role
from policystore.inventory import actions as inventory
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint
from tests import factories
from tests.html import layout_removed

pytestmark = pytest.mark.django_db


def fill(organization):
    """A policy, set, workflow, run and endpoint, with the same names in each organization."""
    policy = factories.policy(organization, "deploy-policy")
    factories.endpoint_set(organization, "deploy-set")
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_repository(organization.login, "shop")]).apply(
        by=SYSTEM
    )
    repository = inventory.add_repository(organization=organization, name="shop")
    inventory.add_workflow(repository=repository, file_name="Deploy.yml")
    now = timezone.now()
    run = JobRun.objects.create(
        organization=organization,
        repository="shop",
        workflow="Deploy.yml",
        job="build",
        run_id="4242",
        correlation_id="correlation-1",
        verified_by="key",
        first_seen_at=now,
    )
    for host, blocked in (("api.github.com", 0), ("evil.example", 3)):
        JobEndpoint.objects.create(
            organization=organization,
            repository="shop",
            workflow="Deploy.yml",
            job="build",
            cluster="",
            host=host,
            port=443,
            calls=3,
            blocked_calls=blocked,
            runs=1,
            first_seen_at=now,
            last_seen_at=now,
        )
    return policy, run


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def client_of(organization, role=Role.SECURITY_ADMIN, username="ann"):
    client = Client()
    person = factories.member(organization, role, username)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def find(client, text, **headers):
    response = client.get(reverse("search", args=["octo-org"]), {"q": text}, headers=headers)
    assert response.status_code == 200
    return response


def groups(response):
    return {group.label: [result.label for result in group.results] for group in response.context["groups"]}


@pytest.mark.parametrize(
    ("text", "label", "results"),
    [
        ("deploy", "Policies", ["deploy-policy"]),
        ("deploy", "Endpoint sets", ["deploy-set"]),
        ("Deploy.yml", "Repositories and workflows", ["shop/Deploy.yml"]),
        ("octo-org/shop/deploy", "Repositories and workflows", ["shop/Deploy.yml"]),
        ("shop", "Repositories and workflows", ["shop", "shop/Deploy.yml"]),
        ("API.github", "Endpoints", ["api.github.com:443"]),
        ("api.github.com:443", "Endpoints", ["api.github.com:443"]),
        ("4242", "Runs", ["shop/Deploy.yml"]),
        ("https://github.com/octo-org/shop/actions/runs/4242/job/7", "Runs", ["shop/Deploy.yml"]),
        ("correlation-1", "Runs", ["shop/Deploy.yml"]),
        ("never allow", "Pages", ["Never-Allow Hosts"]),
        ("network events", "Pages", ["Network Events"]),
    ],
)
def test_each_kind_is_found(organization, text, label, results):
    fill(organization)
    assert groups(find(client_of(organization), text)).get(label, []) == results


@pytest.mark.parametrize(
    "text", ["shop/Deploy.yml", "octo-org/shop/Deploy.yml", "octo-org/shop/.github/workflows/Deploy.yml"]
)
def test_a_workflow_shows_which_policy_applies_to_it(organization, text):
    policy, _ = fill(organization)
    response = find(client_of(organization), text)
    assert groups(response)["Which policy applies"] == ["Which policy applies to shop/Deploy.yml?"]
    page = layout_removed(response.content.decode())
    assert f'By repository <a href="{reverse("policies:view", args=["octo-org", policy.pk])}">deploy-policy</a>' in page
    assert f"{reverse('which', args=['octo-org'])}?repository=shop&amp;workflow=Deploy.yml" in page


def test_a_workflow_without_a_policy_says_so(organization):
    assert b"No policy, unless its cluster has one." in find(client_of(organization), "other/ci.yml").content


def test_a_workflow_of_another_organization_has_no_answer(organization):
    fill(factories.organization("other-org"))
    assert groups(find(client_of(organization), "other-org/shop/Deploy.yml")) == {}


def test_an_endpoint_names_its_jobs_and_the_policies_that_list_it(organization):
    fill(organization)
    factories.policy(organization, "more", "egress-policy: block\nallowed-endpoints: xapi.github.com:443\n")
    client = client_of(organization)
    (endpoint,) = find(client, "api.github.com").context["groups"][-1].results
    assert endpoint.detail == "Observed in 1 job"
    links = {heading: [link.label for link in related] for heading, related in endpoint.related}
    assert links == {"Called by": ["shop/Deploy.yml · build"], "Listed by": ["deploy-policy"]}
    (blocked,) = find(client, "evil").context["groups"][0].results
    assert blocked.detail == "Only blocked, in 1 job"
    assert client.get(blocked.url).status_code == 200


def test_every_result_leads_to_a_page(organization):
    fill(organization)
    client = client_of(organization, Role.OWNER)
    for text in ("deploy", "shop", "shop/Deploy.yml", "api.github.com", "4242", "e"):
        for group in find(client, text).context["groups"]:
            addresses = [result.url for result in group.results]
            addresses += [link.url for result in group.results for _, related in result.related for link in related]
            assert [client.get(address).status_code for address in addresses] == [200] * len(addresses), group.label


def test_nothing_of_another_organization_is_found(organization):
    fill(factories.organization("other-org"))
    client = client_of(organization)
    for text in ("deploy", "shop", "api.github.com", "4242", "correlation-1"):
        assert groups(find(client, text)) == {}


def test_only_pages_that_the_member_may_open_are_found(organization):
    auditor = client_of(organization, Role.AUDITOR)
    assert groups(find(auditor, "members")) == {"Pages": ["History of keys, members and settings"]}
    owner = client_of(organization, Role.OWNER, "olga")
    assert groups(find(owner, "members"))["Pages"] == ["Members", "History of keys, members and settings"]


def test_a_group_shows_five_rows_and_a_link_to_all(organization):
    for number in range(7):
        factories.policy(organization, f"deploy-{number}")
    client = client_of(organization)
    (group,) = find(client, "deploy").context["groups"]
    assert len(group.results) == 5
    page = client.get(group.all_url).content.decode()
    assert all(f"deploy-{number}" in page for number in range(7))


def test_policies_whose_name_matches_come_first(organization):
    factories.policy(organization, "github.com")
    factories.policy(organization, "a-policy")
    assert groups(find(client_of(organization), "github.com"))["Policies"] == ["github.com", "a-policy"]


def test_a_character_alone_searches_nothing(organization):
    client = client_of(organization)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        response = find(client, "d")
    assert response.context["groups"] == []
    assert not [query for query in queries if "policies_policy" in query["sql"]]
    assert b"at least two characters" in response.content


def test_the_dialog_gets_the_same_results_without_the_page(organization):
    fill(organization)
    part = find(client_of(organization), "deploy", HX_Request="true", HX_Target="quick-search-results")
    assert b"deploy-policy" in part.content
    assert b"<html" not in part.content


@pytest.mark.parametrize("text", ["%", "_" * 300, "\\' \" ;--", "a\x00b", "../..", "::", "=1+1"])
def test_odd_texts_are_found_nowhere(organization, text):
    fill(organization)
    assert groups(find(client_of(organization), text)) == {}


def test_statements_do_not_grow_with_the_rows(organization):
    fill(organization)
    client = client_of(organization)

    def asked():
        with CaptureQueriesContext(connection) as queries:
            find(client, "shop")
        return len(queries)

    asked()
    few = asked()
    repository = organization.repositories.get(key="shop")
    for number in range(30):
        factories.policy(organization, f"shop-{number}")
        inventory.add_workflow(repository=repository, file_name=f"{number}.yml")
    assert asked() <= few
