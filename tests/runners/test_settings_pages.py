"""The pages on which owners connect their runners."""

import re
import subprocess
from html import unescape

import pytest
import yaml
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import AccountEvent, Actor, ApiKey, Role
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import recorder
from policystore.runners.models import BlocklistEntry, JobRun
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def owner(organization):
    client = Client()
    client.force_login(factories.member(organization, Role.OWNER), backend="policystore.accounts.access.RoleBackend")
    return client


def address(name, *arguments):
    return reverse(name, args=["octo-org", *arguments])


def test_a_management_key_is_shown_once_and_names_its_bearer_in_the_history(organization, owner):
    page = owner.post(address("settings:management-keys"), {"name": "terraform"})
    clear = page.context["fresh_key"]
    assert clear in page.content.decode()
    assert clear not in owner.get(address("settings:management-keys")).content.decode()
    target = "/v1/github/octo-org/actions/policies/ci"
    assert ask("POST", target, {"authorization": f"Bearer {clear}"}, {"egress_policy": "audit"}).status == 200
    policy_page = owner.get(reverse("policies:organization_history", args=["octo-org"])).content.decode()
    assert "terraform" in policy_page


def test_the_page_of_management_keys_names_the_public_address(owner, settings):
    settings.PUBLIC_URL = "https://policies.example.com"
    page = owner.get(address("settings:management-keys")).content.decode()
    assert "<code>https://policies.example.com/v1</code>" in page
    assert "export STEP_SECURITY_API_BASE_URL=https://policies.example.com\n" in page
    assert "testserver" not in page


def test_two_live_keys_do_not_share_a_name(owner):
    owner.post(address("settings:management-keys"), {"name": "terraform"})
    again = owner.post(address("settings:management-keys"), {"name": "Terraform"})
    assert again.status_code == 422
    assert ApiKey.objects.count() == 1


def test_a_key_is_revoked_after_asking(owner):
    clear = owner.post(address("settings:management-keys"), {"name": "terraform"}).context["fresh_key"]
    key = ApiKey.objects.get()
    assert "stops working immediately" in owner.get(address("settings:revoke-key", key.pk)).content.decode()
    assert ApiKey.objects.get().revoked_at is None
    owner.post(address("settings:revoke-key", key.pk))
    headers = {"authorization": f"Bearer {clear}"}
    assert ask("GET", "/v1/github/octo-org/actions/policies/ci", headers).status == 401
    assert AccountEvent.objects.filter(kind="key revoked", actor="ann").exists()
    assert owner.get(address("settings:revoke-key", key.pk)).status_code == 404


def test_the_scripts_carry_the_stores_address_and_can_be_downloaded(owner, settings):
    settings.PUBLIC_URL = settings.RUNNER_URL = "https://store.example:8443"
    page = owner.get(address("runners-settings:job-hooks")).content.decode()
    for name in ("install-job-hooks.sh", "install-job-hooks.ps1", "arc-values.yaml"):
        script = owner.get(address("runners-settings:script", name))
        assert script["content-disposition"] == f'attachment; filename="{name}"'
        assert "https://store.example:8443/v1" in script.content.decode()
        assert name in page
    assert owner.get(address("runners-settings:script", "nothing.sh")).status_code == 404


def test_without_a_proxy_the_scripts_send_fetches_to_the_fetch_process(owner, settings):
    settings.PUBLIC_URL, settings.RUNNER_URL = "https://store.example:8000", "https://store.example:8001"
    for name in ("install-job-hooks.sh", "install-job-hooks.ps1"):
        script = owner.get(address("runners-settings:script", name)).content.decode()
        assert re.search(r"STEP_API *= *'https://store.example:8001/v1'", script)
        assert re.search(r"STEP_TELEMETRY_URL *= *'https://store.example:8000/v1'", script)
    values = owner.get(address("runners-settings:script", "arc-values.yaml"), {"cluster": "dev"}).content
    variables = yaml.safe_load(values)["template"]["spec"]["containers"][0]["env"]
    told = {variable["name"]: variable["value"] for variable in variables}
    assert told["STEP_API"] == "https://store.example:8001/v1/clusters/dev"
    assert told["STEP_TELEMETRY_URL"] == "https://store.example:8000/v1/clusters/dev"
    page = owner.get(address("runners-settings:job-hooks")).content.decode()
    assert "<code>store.example:8000</code> and <code>store.example:8001</code>" in page
    # The fetch process does not answer the action's `policy:` input, and the action has one address for everything.
    hosted = owner.get(address("runners-settings:github-hosted")).content.decode()
    assert "<code>https://store.example:8000/v1</code>" in hosted
    assert "8001" not in hosted


def test_the_helm_values_name_the_cluster_by_its_base_address(owner, settings):
    settings.PUBLIC_URL = settings.RUNNER_URL = "https://store.example"
    base = "https://store.example/v1/clusters/prod-k8s"
    page = owner.get(address("runners-settings:job-hooks"), {"cluster": " prod-k8s "}).content.decode()
    assert page.count(f"value: &quot;{base}&quot;") == 2
    assert "?cluster=prod-k8s" in page
    downloaded = owner.get(address("runners-settings:script", "arc-values.yaml"), {"cluster": "prod-k8s"})
    containers = yaml.safe_load(downloaded.content)["template"]["spec"]["containers"]
    values = {variable["name"]: variable["value"] for variable in containers[0]["env"]}
    assert (values["STEP_API"], values["STEP_TELEMETRY_URL"]) == (base, base)
    linux = owner.get(address("runners-settings:script", "install-job-hooks.sh"), {"cluster": "prod-k8s"})
    assert "/v1/clusters/" not in linux.content.decode()
    without = owner.get(address("runners-settings:script", "arc-values.yaml")).content.decode()
    assert yaml.safe_load(without)["template"]["spec"]["containers"][0]["env"][2]["value"] == "https://store.example/v1"


def test_a_name_that_cannot_be_a_clusters_is_refused(owner):
    answer = owner.get(address("runners-settings:job-hooks"), {"cluster": "prod k8s"})
    assert answer.status_code == 422
    assert "“prod k8s”" in answer.content.decode()
    script = address("runners-settings:script", "arc-values.yaml")
    assert owner.get(script, {"cluster": "prod k8s"}).status_code == 404


def test_the_pages_say_what_clients_really_do(owner):
    hosted = owner.get(address("runners-settings:github-hosted")).content.decode()
    assert "v2.20 and newer" in hosted
    assert "Dependabot" in hosted
    assert "Windows hooks always audit" in owner.get(address("runners-settings:job-hooks")).content.decode()


def test_the_linux_script_is_valid_bash(owner, tmp_path):
    path = tmp_path / "install.sh"
    path.write_bytes(owner.get(address("runners-settings:script", "install-job-hooks.sh")).content)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


def test_the_snippet_names_the_stores_inputs(owner):
    page = owner.get(address("runners-settings:github-hosted")).content.decode()
    assert "use-policy-store: true" in page
    assert "${{ secrets.STEP_SECURITY_API_KEY }}" in page


@pytest.mark.parametrize(
    ("public_url", "endpoint"),
    [
        ("https://store.example", "store.example:443"),
        ("https://store.example:8443", "store.example:8443"),
        ("http://127.0.0.1", "127.0.0.1:80"),
    ],
)
@pytest.mark.parametrize("page", ["job-hooks", "github-hosted"])
def test_the_pages_name_the_entry_by_which_blocked_jobs_reach_the_store(owner, settings, page, public_url, endpoint):
    settings.PUBLIC_URL = settings.RUNNER_URL = public_url
    text = owner.get(address(f"runners-settings:{page}")).content.decode()
    assert f"<code>{endpoint}</code>" in text


def test_the_hooks_page_tells_where_their_agent_comes_from(owner, settings):
    assert "AGENT_RELEASE_URL" in owner.get(address("runners-settings:job-hooks")).content.decode()
    settings.AGENT_RELEASE_URL = "https://releases.example"
    assert "AGENT_RELEASE_URL" not in owner.get(address("runners-settings:job-hooks")).content.decode()


def test_the_first_runner_is_seen_to_arrive(organization, owner):
    key = factories.api_key(organization)
    before = owner.get(address("runners-settings:last-calls")).content.decode()
    assert "No call yet" in before
    policy = factories.policy(organization, "org-default")
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=Actor("ann"))
    target = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=a"
    ask("GET", target, {"authorization": f"vm-api-key {key}"})
    recorder.flush()
    fragment = owner.get(address("runners-settings:last-calls"), headers={"HX-Request": "true"}).content.decode()
    assert "hello-world/ci.yml" in fragment
    assert "org-default" in fragment
    assert "<html" not in fragment


def test_a_job_of_cargowall_is_seen_to_arrive(organization, owner):
    page = owner.get(address("runners-settings:cargowall")).content.decode()
    last_calls = f"{address('runners-settings:last-calls')}?of=cargowall"
    assert f'hx-get="{last_calls}"' in page
    assert "No call yet" in owner.get(last_calls).content.decode()
    shared = {"organization": organization, "repository": "r", "first_seen_at": timezone.now()}
    JobRun.objects.create(workflow="ci.yml", correlation_id="cargowall-1-build", verified_by="token", **shared)
    JobRun.objects.create(workflow="keyed.yml", correlation_id="a", verified_by="key", **shared)
    JobRun.objects.create(workflow="guessed.yml", correlation_id="cargowall-9-build", **shared)
    fragment = owner.get(last_calls, headers={"HX-Request": "true"}).content.decode()
    assert "r/ci.yml" in fragment
    assert "No policy" in fragment
    assert "keyed.yml" not in fragment
    assert "guessed.yml" not in fragment


@pytest.mark.parametrize(
    ("public_url", "is_reachable"),
    [("https://store.example", True), ("https://store.example:8443", False), ("http://store.example", False)],
)
def test_the_step_for_cargowall_names_this_store(owner, settings, public_url, is_reachable):
    settings.PUBLIC_URL = public_url
    page = owner.get(address("runners-settings:cargowall")).content.decode()
    step = yaml.safe_load(unescape(page.split('id="snippet"')[1].split(">", 1)[1].split("</pre>")[0]))
    assert step["permissions"]["id-token"] == "write"
    assert step["steps"][0]["with"] == {"api-url": public_url}
    assert ("cannot send their report" not in page) == is_reachable


def test_the_page_of_cargowall_links_to_what_differs_in_a_policy(organization, owner):
    policy = factories.policy(organization)
    link = f"/organizations/octo-org/policy-store/{policy.pk}/enforcers/?enforcer=cargowall"
    assert link in owner.get(address("runners-settings:cargowall")).content.decode()


def test_owners_keep_the_blocklist_and_its_changes_are_recorded(organization, owner):
    owner.post(address("runners-settings:blocklist"), {"endpoint": "*.evil.example", "reason": "exfiltration"})
    entry = BlocklistEntry.objects.get()
    assert (entry.kind, entry.created_by) == ("wildcard_domain", "ann")
    refused = owner.post(address("runners-settings:blocklist"), {"endpoint": "https://x", "reason": "x"})
    assert refused.status_code == 422
    twice = owner.post(address("runners-settings:blocklist"), {"endpoint": "*.evil.example", "reason": "again"})
    assert twice.status_code == 422
    owner.post(address("runners-settings:remove-entry", entry.pk))
    assert not BlocklistEntry.objects.exists()
    kinds = list(AccountEvent.objects.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["blocklist entry added", "blocklist entry removed"]


def test_an_entry_of_another_organization_is_not_there(owner):
    other = factories.organization("other")
    entry = BlocklistEntry.objects.create(organization=other, kind="domain", endpoint="x.example", reason="x")
    assert owner.post(address("runners-settings:remove-entry", entry.pk)).status_code == 404
    assert BlocklistEntry.objects.exists()
