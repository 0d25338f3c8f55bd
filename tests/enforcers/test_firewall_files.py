"""One file of GitHub's firewall for a repository: merged, exported, fetched, and compared with what is committed."""

from __future__ import annotations

import io

import pytest
import yaml
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from policystore.accounts import api_keys
from policystore.accounts.models import Actor, KeyKind, KeySlot, Role
from policystore.enforcers import github_firewall
from policystore.enforcers.policy import EffectivePolicy
from policystore.inventory import actions as inventory
from policystore.policies.core import attachments
from policystore.policies.firewall_files import Files
from policystore.policy_language.scopes import Scope
from tests import factories

ANN = Actor("ann")
API = "/v1/github/octo-org/web/firewall-file"


def test_the_file_has_the_hosts_of_all_workflows_and_says_what_each_gains():
    file = github_firewall.for_repository(
        {
            "ci.yml": EffectivePolicy("block", ("b.example:443", "*.c.example:443")),
            "release.yml": EffectivePolicy("block", ("a.example:443", "b.example:80")),
        }
    )
    assert yaml.safe_load(file.text) == {"mode": "enforce", "allow": ["a.example", "b.example"]}
    assert file.widening == {"ci.yml": ["a.example"]}
    assert file.left_out == ["*.c.example"]


def test_the_file_enforces_only_if_every_policy_blocks():
    file = github_firewall.for_repository({"ci.yml": EffectivePolicy("audit"), "x.yml": EffectivePolicy("block")})
    assert yaml.safe_load(file.text)["mode"] == "log"
    assert file.audited == ["ci.yml"]


@pytest.mark.parametrize(
    ("committed", "added", "missing", "settings"),
    [
        ("mode: enforce\nallow: [a.example]\n", [], [], []),
        ("allow:\n- A.example\nmode: enforce", [], [], []),
        ("mode: enforce\nallow: [a.example, evil.example]\n", ["evil.example"], [], []),
        ("mode: log\n", [], ["a.example"], ["mode is log instead of enforce"]),
        (
            "mode: enforce\nno-default-urls: true\nallow: [a.example]",
            *([], [], ["no-default-urls is true instead of not set"]),
        ),
    ],
)
def test_drift_is_what_differs_in_meaning(committed, added, missing, settings):
    found = github_firewall.drift(committed, "mode: enforce\nallow:\n  - a.example\n")
    assert (found.added, found.missing, found.settings) == (added, missing, settings)
    assert bool(found) is bool(added or missing or settings)


@pytest.mark.parametrize("text", ["", "- a", "allow: x", "allow: [1]", "a: [", "1: 2", "a: &a [*a]" * 3])
def test_a_file_that_cannot_be_read_is_refused(text):
    with pytest.raises(github_firewall.UnreadableFile):
        github_firewall.drift(text, "mode: enforce\nallow: []\n")


@pytest.fixture
def organization(db):
    made = factories.organization("octo-org")
    for name in ("web", "tools", "empty"):
        inventory.add_repository(organization=made, name=name)
    inventory.learn(
        sightings={
            inventory.Sighting(made.pk, "web", "ci.yml", ""),
            inventory.Sighting(made.pk, "web", "release.yml", ""),
        }
    )
    listed = "egress-policy: block\nallowed-endpoints: >\n  {}:443\n"
    attach(made, "ci", listed.format("a.example"), Scope.for_workflow("octo-org", "web", "ci.yml"))
    attach(made, "tools", listed.format("t.example"), Scope.for_repository("octo-org", "tools"))
    return made


def attach(organization, name, text, scope):
    policy = factories.policy(organization, name, text=text)
    attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=ANN)


def test_each_workflow_gets_its_most_specific_policy(organization):
    file = Files(organization).of("WEB")
    assert (file.unprotected, file.widening) == (["release.yml"], {})
    attach(organization, "base", "egress-policy: block\n", Scope.for_organization("octo-org"))
    file = Files(organization).of("web")
    assert file.unprotected == []
    assert file.widening == {"release.yml": ["a.example"], "other workflows": ["a.example"]}


def test_a_repository_without_a_policy_has_no_file(organization):
    assert Files(organization).of("empty") is None
    assert [repository.name for repository, _ in Files(organization).all()] == ["tools", "web"]


def test_the_command_writes_a_folder_for_each_repository(organization, tmp_path):
    out = io.StringIO()
    call_command("export_firewall", tmp_path, "--no-default-urls", stdout=out)
    written = (tmp_path / "web" / github_firewall.PATH).read_text()
    assert yaml.safe_load(written) == {"mode": "enforce", "no-default-urls": True, "allow": ["a.example"]}
    assert "web: no policy applies, but the file does, to release.yml" in out.getvalue()
    assert f"2 files written to {tmp_path}" in out.getvalue()


def key(organization):
    made = api_keys.regenerate(organization=organization, kind=KeyKind.VM, slot=KeySlot.PRIMARY, by=ANN)
    return {"Authorization": f"vm-api-key {made}"}


def test_the_api_gives_the_file_and_compares_a_committed_one(organization):
    headers, client = key(organization), Client()
    file = client.get(API, headers=headers).json()
    assert file["path"] == ".github/egress-firewall.yaml"
    same = client.post(API, {"text": file["text"]}, content_type="application/json", headers=headers).json()
    assert same == {"is_current": True, "added": [], "missing": [], "settings": []}
    other = client.post(API, {"text": "mode: enforce"}, content_type="application/json", headers=headers).json()
    assert other["missing"] == ["a.example"]


@pytest.mark.parametrize(("body", "sentence"), [({}, "Send the committed file"), ({"text": "["}, "not valid YAML")])
def test_the_api_says_what_is_wrong_with_a_committed_file(organization, body, sentence):
    answer = Client().post(API, body, content_type="application/json", headers=key(organization))
    assert answer.status_code == 422
    assert sentence in answer.json()["message"]


def test_the_api_needs_a_key_of_the_organization_and_a_policy(organization):
    assert Client().get(API).status_code == 401
    other = factories.organization("other-org")
    assert Client().get(API, headers=key(other)).status_code == 403
    assert Client().get(API.replace("web", "empty"), headers=key(organization)).status_code == 404


def test_the_page_shows_the_file_and_what_differs(organization):
    client = Client()
    client.force_login(
        factories.member(organization, Role.OWNER, "olga"), backend="policystore.accounts.access.RoleBackend"
    )
    page = reverse("runners-settings:github-firewall", args=["octo-org"])
    assert "Show the file" in client.get(page).content.decode()
    shown = client.post(page, {"repository": "web", "committed": "mode: enforce\nallow: [b.example]"}).content.decode()
    assert "The committed file differs" in shown
    assert "b.example</li>" in shown
    assert "No policy applies to release.yml, but the file does." in shown
    assert "No policy is attached to empty" in client.post(page, {"repository": "empty"}).content.decode()
    broken = client.post(page, {"repository": "web", "committed": "["})
    assert broken.status_code == 422
    assert "not valid YAML" in broken.content.decode()
