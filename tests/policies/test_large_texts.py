"""A text too large for any save is refused for that, and kept in the editor, before it is compared with anything."""

import re

import pytest
from django.urls import reverse

from policystore.accounts.models import Actor
from policystore.policies import endpoint_sets
from policystore.policies import staging as staged
from policystore.policies.core import actions as policies
from policystore.policies.models import EndpointSet, Policy, StagedVersion
from policystore.policies.pages import editing
from policystore.policies.pages import endpoint_sets as set_pages
from policystore.policies.pages import staged as staging_view
from policystore.policy_language.yaml_reader import OF_A_POLICY
from tests import factories
from tests.policies.test_pages import browser

pytestmark = pytest.mark.django_db

BEN = Actor("ben")
LARGE = "egress-policy: audit\n" + "# mine\n" * 100_000
SHORT = "egress-policy: audit\n# mine\n"
TOO_LARGE = f"The text is too long: {len(LARGE):,} bytes (maximum {OF_A_POLICY.bytes:,}). Split it."


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    return browser(organization)


@pytest.fixture
def compared(monkeypatch):
    """The texts that were compared."""
    found = []
    for view in (editing, set_pages, staging_view):

        def compare(before, after, compare=view.side_by_side):
            found.extend((before, after))
            return compare(before, after)

        monkeypatch.setattr(view, "side_by_side", compare)
    return found


def refused_for_its_size(answer, compared):
    page = answer.content.decode()
    assert answer.status_code == 422
    assert TOO_LARGE in page
    assert page.count("# mine\n") == LARGE.count("# mine\n")
    return all(len(text) <= OF_A_POLICY.bytes for text in compared)


def test_of_a_policy_that_somebody_else_has_saved(organization, ann, compared):
    policy = factories.policy(organization)
    text = f"{policy.text}# theirs\n"
    policies.UpdatePolicy(policy=policy, name=policy.name, description="", text=text, expected_version=1).apply(by=BEN)
    address = reverse("policies:edit", args=["octo-org", policy.pk])
    written = {"name": policy.name, "text": LARGE, "version": 1}
    assert refused_for_its_size(ann.post(address, written), compared)
    assert Policy.objects.get().text == text
    # Once it is shorter, the conflict is told as ever.
    assert ann.post(address, {**written, "text": SHORT}).status_code == 409
    assert compared == [text, SHORT]


def test_of_a_set_that_somebody_else_has_saved(organization, ann, compared):
    npm = factories.endpoint_set(organization)
    endpoint_sets.UpdateEndpointSet(
        endpoint_set=npm, name="npm", description="", text="theirs.example.com\n", expected_version=1
    ).apply(by=BEN)
    address = reverse("endpoint-sets:edit", args=["octo-org", npm.pk])
    written = {"name": "npm", "text": LARGE, "version": 1, "confirm": "1"}
    assert refused_for_its_size(ann.post(address, written), compared)
    assert EndpointSet.objects.get().text == "theirs.example.com\n"


def test_of_a_staged_version_beside_one_that_somebody_else_has_staged(organization, ann, compared):
    policy = factories.policy(organization)
    staged.StageVersion(policy=policy, text=SHORT, live_version=1, expected_event=None).apply(by=BEN)
    address = reverse("policies:staged", args=["octo-org", policy.pk])
    assert refused_for_its_size(ann.post(address, {"text": LARGE, "version": 1}), compared)
    assert StagedVersion.objects.get().text == SHORT


def test_its_size_is_told_once_whatever_line_ends_the_browser_sends(organization, ann):
    written = {"name": "mine", "text": LARGE.replace("\n", "\r\n")}
    page = ann.post(reverse("policies:new", args=["octo-org"]), written).content.decode()
    assert TOO_LARGE in page
    assert set(re.findall(r"too long: ([\d,]+) bytes", page)) == {f"{len(LARGE):,}"}
