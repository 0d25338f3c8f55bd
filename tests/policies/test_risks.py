"""Risky endpoints of policies: counted at each save, found in the list, told on the pages."""

import json
from html import unescape

import pytest
from django.urls import reverse

from policystore.accounts.models import Actor
from policystore.policies import endpoint_sets, never_allow
from policystore.policies.core import queries
from policystore.policies.models import Policy
from tests import factories
from tests.policies.test_pages import browser

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
RISKY = "egress-policy: block\nallowed-endpoints: >\n  github.com\n  pastebin.com\n"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def count_of(policy):
    return Policy.objects.get(pk=policy.pk).risk_count


def test_the_count_is_of_what_runners_get(organization):
    npm = factories.endpoint_set(organization, "npm", "bit.ly\nregistry.octo1.org\n")
    policy = factories.policy(organization, "ci", RISKY + "endpoint-sets: npm\n")
    assert count_of(policy) == 2
    endpoint_sets.UpdateEndpointSet(
        endpoint_set=npm, name="npm", description="", text="registry.octo1.org\n", expected_version=1
    ).apply(by=ANN)
    assert count_of(policy) == 1
    never_allow.add(organization=organization, host="pastebin.com", reason="x", by=ANN)
    assert count_of(policy) == 0


def test_the_list_marks_risky_policies_and_is_narrowed_to_them(organization):
    ann = browser(organization)
    factories.policy(organization, "fine")
    factories.policy(organization, "risky", RISKY)
    assert queries.counters(organization)["risky"] == 1
    page = ann.get(reverse("policies:list", args=["octo-org"]), {"show": "risky"}).content.decode()
    assert "1 risky</span>" in page
    assert ">risky</a>" in page
    assert ">fine</a>" not in page
    assert ">Risky</span>" in page


def test_the_page_of_a_policy_says_how_data_could_be_carried_out(organization):
    ann = browser(organization)
    factories.endpoint_set(organization, "npm", "*.s3.amazonaws.com\n")
    policy = factories.policy(organization, "ci", RISKY + "endpoint-sets: npm\n")
    page = unescape(ann.get(reverse("policies:view", args=["octo-org", policy.pk])).content.decode())
    assert "2 risky" in page
    assert "<code>pastebin.com:443</code> is a paste site: anyone can read what a job sends there." in page
    assert "<code>*.s3.amazonaws.com:443</code> covers hosts that anyone can get, not only yours." in page
    assert "<h2>Warnings</h2>" not in page


def test_the_editor_tells_risks_beside_their_lines(organization):
    ann = browser(organization)
    page = ann.post(reverse("policies:check", args=["octo-org"]), {"text": RISKY + "  bit.ly\n"}).content.decode()
    annotations = json.loads(unescape(page.partition('data-annotations="')[2].partition('"')[0]))
    assert [(one["row"], one["type"]) for one in annotations] == [(3, "warning"), (4, "info")]
    assert '<li class="note">' in page
    assert "List the host that the address leads to." in page
