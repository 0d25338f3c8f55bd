"""What the pages of an organization without any run link to."""

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import Role
from policystore.runners.models import JobRun
from tests import factories

pytestmark = pytest.mark.django_db

PAGES = [
    "baseline:organization",
    "baseline:jobs",
    "runs:list",
    "insights",
    "network-events",
    "coverage",
    "detections:list",
]


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def page(name, organization, role):
    client = Client()
    client.force_login(factories.member(organization, role), backend="policystore.accounts.access.RoleBackend")
    return client.get(reverse(name, args=[organization.key])).content.decode().split("<main")[1]


@pytest.mark.parametrize("name", PAGES)
def test_an_owner_is_led_to_the_installation(organization, name):
    assert f'href="{reverse("settings:keys", args=["octo-org"])}"' in page(name, organization, Role.OWNER)


@pytest.mark.parametrize("name", PAGES)
def test_an_auditor_is_led_to_an_owner(organization, name):
    shown = page(name, organization, Role.AUDITOR)
    assert "Ask an owner to connect a runner" in shown
    assert reverse("settings:keys", args=["octo-org"]) not in shown


@pytest.mark.parametrize("name", ["baseline:organization", "baseline:jobs", "insights"])
def test_who_has_connected_a_runner_is_led_to_its_runs(organization, name):
    now = timezone.now()
    JobRun.objects.create(
        organization=organization, repository="r", first_seen_at=now, fetched_at=now, verified_by="key"
    )
    shown = page(name, organization, Role.OWNER)
    assert f'href="{reverse("runs:list", args=["octo-org"])}"' in shown
    assert "Connect a runner" not in shown


def test_an_empty_list_links_to_the_help(organization):
    for name, topic in (("endpoint-sets:list", "endpoint-sets"), ("never-allow:list", "endpoint-sets")):
        help_page = reverse("help:topic", args=["octo-org", topic])
        assert page(name, organization, Role.OWNER).split("</h1>")[1].count(help_page) == 2
        organization.memberships.all().delete()
