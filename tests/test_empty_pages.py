"""What the pages of an organization without any run link to."""

import pytest
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import Role
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
