"""A policy in the form of an enforcer: its page, the API and the command."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from policystore.accounts import api_keys
from policystore.accounts.models import Actor, Role
from policystore.enforcers.registry import ENFORCERS
from policystore.policies.core import actions as policies
from tests import factories

pytestmark = pytest.mark.django_db

TEXT = "egress-policy: block\nallowed-endpoints: >\n  github.com:443\n  *.example.com:443\n"


@pytest.fixture
def policy():
    organization = factories.organization("octo-org")
    return policies.create(organization=organization, name="ci", text=TEXT, by=Actor("ann"))


@pytest.fixture
def reader(policy):
    client = Client()
    user = factories.member(policy.organization, Role.AUDITOR, "rita")
    client.force_login(user, backend="policystore.accounts.access.RoleBackend")
    return client


def address(policy):
    return reverse("policies:enforcers", args=["octo-org", policy.pk])


@pytest.mark.parametrize("key", ENFORCERS)
def test_the_page_shows_the_form_and_how_the_enforcer_differs(policy, reader, key):
    page = reader.get(address(policy), {"enforcer": key}).content.decode()
    assert f"How {ENFORCERS[key].name} differs from the policy".replace("'", "&#x27;") in page
    assert "example.com" in page


def test_an_unknown_enforcer_shows_the_first(policy, reader):
    assert (
        "How Harden-Runner differs from the policy" in reader.get(address(policy), {"enforcer": "x"}).content.decode()
    )


def test_the_form_can_be_downloaded(policy, reader):
    answer = reader.get(address(policy), {"enforcer": "github", "format": "text"})
    assert answer["Content-Disposition"] == 'attachment; filename="ci-egress-firewall.yaml"'
    assert answer.content.decode() == "mode: enforce\nallow:\n  - github.com\n"


def fetched(policy, **parameters):
    token = api_keys.create_management(organization=policy.organization, name="tf", by=Actor("ann"))
    path = "/v1/github/octo-org/actions/policies/ci"
    return Client().get(path, parameters, headers={"Authorization": f"Bearer {token}"})


def test_the_api_gives_the_form_with_its_differences(policy):
    answer = fetched(policy, format="cargowall").json()
    assert json.loads(answer["text"])["mode"] == "CARGO_WALL_MODE_ENFORCE"
    storage = next(d for d in answer["differences"] if d["hosts"] == [".blob.core.windows.net"])
    assert (storage["effect"], storage["ports"]) == ("opens", [443])


def test_the_api_refuses_an_unknown_format(policy):
    answer = fetched(policy, format="squid")
    assert answer.status_code == 422
    assert "must be one of harden-runner, cargowall" in answer.content.decode()


def test_the_command_prints_the_form_and_apart_from_it_what_differs(policy):
    out, err = io.StringIO(), io.StringIO()
    call_command("render_policy", "CI", "github", stdout=out, stderr=err)
    assert out.getvalue() == "mode: enforce\nallow:\n  - github.com\n"
    assert "Blocks: *.example.com:443. The file cannot list wildcards" in err.getvalue()


def test_the_command_names_a_policy_that_is_missing(policy):
    with pytest.raises(CommandError, match="octo-org has no policy named other"):
        call_command("render_policy", "other", "github")


def test_while_a_policy_is_written_its_editor_names_what_others_would_block(policy):
    client = Client()
    user = factories.member(policy.organization, Role.SECURITY_ADMIN, "ann")
    client.force_login(user, backend="policystore.accounts.access.RoleBackend")
    check = reverse("policies:check", args=["octo-org"])
    shown = client.post(check, {"text": TEXT}, headers={"HX-Request": "true"}).content.decode()
    assert "1 other enforcer would block calls that the policy" in " ".join(shown.split())
    assert "<strong>GitHub&#x27;s firewall:</strong>" in shown
    plain = client.post(check, {"text": "egress-policy: block\nallowed-endpoints: a.example:443\n"})
    assert "other enforcer" not in plain.content.decode()
