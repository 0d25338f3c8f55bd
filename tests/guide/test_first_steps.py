"""The first hour: each step is ticked when it has really happened, and leads to the page where it is done."""

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import SYSTEM, ApiKey
from policystore.accounts.roles import Role
from policystore.policies.core import attachments
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint
from tests import factories

pytestmark = pytest.mark.django_db

AUDIT = "egress-policy: audit\nallowed-endpoints: github.com:443\n"
STEPS = ("key", "step", "call", "baseline", "policy", "attach", "block")


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def signed_in(organization, role=Role.OWNER):
    client = Client()
    client.force_login(factories.member(organization, role), backend="policystore.accounts.access.RoleBackend")
    return client


@pytest.fixture
def owner(organization):
    return signed_in(organization)


def steps(client, **headers):
    """The steps that the list of policies shows, as {name: (done, link)}; {} if it shows none."""
    page = client.get(reverse("policies:list", args=["octo-org"]), headers=headers).content.decode()
    if 'id="first-steps"' not in page:
        return {}
    items = re.findall(r"<li>(.*?)</li>", page.split('id="first-steps"')[1].split("</ol>")[0], re.DOTALL)
    assert len(items) == len(STEPS)
    return {name: ("Done:" in item, _link(item)) for name, item in zip(STEPS, items, strict=True)}


def _link(item):
    found = re.search(r'<a\b[^>]*href="([^"]*)"', item)
    return found[1].replace("&amp;", "&") if found else ""


def done(client):
    return [name for name, (is_done, _) in steps(client).items() if is_done]


def a_call(organization, **values):
    values = {"fetched_at": timezone.now(), "verified_by": "key", **values}
    return JobRun.objects.create(
        organization=organization, repository="r", correlation_id="a", first_seen_at=timezone.now(), **values
    )


def a_baseline(organization, **values):
    now = timezone.now()
    values = {"calls": 2, "blocked_calls": 0, "runs": 1, **values}
    JobEndpoint.objects.create(
        organization=organization,
        repository="r",
        host="github.com",
        port=443,
        first_seen_at=now,
        last_seen_at=now,
        **values,
    )


def an_attached_policy(organization, text=AUDIT):
    policy = factories.policy(organization, text=text)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization(organization.key)]).apply(by=SYSTEM)
    return policy


def test_each_step_is_ticked_as_it_happens_and_then_the_list_disappears(organization, owner):
    assert done(owner) == []
    factories.api_key(organization)
    assert done(owner) == ["key"]
    a_call(organization)
    assert done(owner) == ["key", "step", "call"]
    a_baseline(organization)
    assert done(owner) == ["key", "step", "call", "baseline"]
    policy = factories.policy(organization, text=AUDIT)
    assert done(owner) == ["key", "step", "call", "baseline", "policy"]
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    assert done(owner) == ["key", "step", "call", "baseline", "policy", "attach"]
    an_edit = {"name": policy.name, "description": "", "text": AUDIT.replace("audit", "block"), "version": 1}
    owner.post(reverse("policies:edit", args=["octo-org", policy.pk]), an_edit)
    assert steps(owner) == {}


def test_what_has_not_really_happened_is_not_ticked(organization, owner):
    factories.management_key(organization)
    factories.api_key(organization)
    ApiKey.objects.exclude(kind="management").update(revoked_at=timezone.now())
    a_call(organization, verified_by="")
    a_baseline(organization, calls=2, blocked_calls=2)
    other = factories.organization("other")
    a_call(other)
    an_attached_policy(other, factories.TEXT)
    assert done(owner) == []
    # It blocks, but nowhere.
    factories.policy(organization)
    assert done(owner) == ["policy"]


def test_a_job_that_proves_itself_without_a_key_needs_none(organization, owner):
    a_call(organization, verified_by="token")
    assert done(owner) == ["key", "step", "call"]


def test_each_step_leads_to_the_page_where_it_is_done(organization, owner):
    links = {name: link for name, (_, link) in steps(owner).items()}
    assert all(owner.get(link).status_code == 200 for link in links.values() if link)
    assert (links["attach"], links["block"]) == ("", "")
    assert links["policy"] == reverse("policies:new", args=["octo-org"])
    a_baseline(organization)
    assert steps(owner)["policy"][1] == reverse("baseline:create-policy", args=["octo-org"])
    policy = factories.policy(organization, text=AUDIT)
    attach = steps(owner)["attach"][1]
    assert attach.startswith(reverse("policies:attach", args=["octo-org", policy.pk]))
    assert 'name="add" value="organization:octo-org"' in owner.get(attach).content.decode()
    a_call(organization)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    assert steps(owner)["block"][1] == reverse("policies:edit", args=["octo-org", policy.pk])


def test_roles_that_cannot_do_a_step_are_told_whom_to_ask(organization):
    auditor = signed_in(organization, Role.AUDITOR)
    found = steps(auditor)
    assert (found["key"][1], found["policy"][1]) == ("", "")
    assert all(auditor.get(link).status_code == 200 for _, link in found.values() if link)
    page = auditor.get(reverse("policies:list", args=["octo-org"])).content.decode()
    assert "Ask an owner." in page
    assert "Ask a security admin." in page
    assert "Generate key" not in page


def test_the_list_looks_again_while_a_runner_is_awaited_and_more_and_more_rarely(organization, owner):
    address = reverse("policies:list", args=["octo-org"])
    assert "hx-trigger" not in owner.get(address).content.decode().split("<main")[1].split("</section>")[0]
    factories.api_key(organization)
    waited, waits = "", []
    for _ in range(7):
        part = owner.get(
            f"{address}?waited={waited}", headers={"HX-Request": "true", "HX-Target": "first-steps"}
        ).content.decode()
        assert "<main" not in part
        waited = re.search(r"\?waited=(\d+)", part)[1]
        assert f"delay:{waited}s" in part
        waits.append(int(waited))
    assert waits == [3, 6, 12, 24, 48, 60, 60]
    a_call(organization)
    a_baseline(organization)
    part = owner.get(address, headers={"HX-Request": "true", "HX-Target": "first-steps"}).content.decode()
    assert "hx-get" not in part


def test_the_part_is_empty_once_all_is_done(organization, owner):
    factories.api_key(organization)
    a_call(organization)
    a_baseline(organization)
    an_attached_policy(organization, factories.TEXT)
    address = reverse("policies:list", args=["octo-org"])
    part = owner.get(address, headers={"HX-Request": "true", "HX-Target": "first-steps"})
    assert part.content.decode().strip() == ""


def test_a_store_in_use_pays_one_statement(organization, owner):
    factories.api_key(organization)
    a_call(organization)
    a_baseline(organization)
    policy = an_attached_policy(organization, factories.TEXT)
    for address, number in (
        (reverse("policies:list", args=["octo-org"]), 1),
        (reverse("policies:view", args=["octo-org", policy.pk]), 1),
        (reverse("runs:list", args=["octo-org"]), 0),
    ):
        with CaptureQueriesContext(connection) as captured:
            owner.get(address)
        found = [query["sql"] for query in captured if "traffic_jobendpoint" in query["sql"]]
        assert len(found) == number, address


def next_step(client, address, **posted):
    response = client.post(address, posted, follow=True) if posted else client.get(address)
    assert response.status_code == 200
    page = response.content.decode()
    found = re.search(r'next-step">.*?href="([^"]*)"', page, re.DOTALL)
    return found[1].replace("&amp;", "&") if found else None


def test_each_page_of_the_way_leads_to_the_next(organization, owner):
    github_hosted = next_step(owner, reverse("settings:regenerate-key", args=["octo-org"]), kind="vm", slot="primary")
    assert github_hosted == reverse("runners-settings:github-hosted", args=["octo-org"])
    new = next_step(owner, github_hosted)
    assert new == reverse("policies:new", args=["octo-org"])
    attach = next_step(owner, new, name="first", description="", text=AUDIT)
    policy = Policy.objects.get()
    assert attach.startswith(reverse("policies:attach", args=["octo-org", policy.pk]))
    # Attached, but no runner has called yet: that is what is missing.
    saved = {"action": "save", "add": "organization:octo-org"}
    assert next_step(owner, attach, **saved) == github_hosted
    a_call(organization)
    assert next_step(owner, reverse("policies:view", args=["octo-org", policy.pk])) is None
