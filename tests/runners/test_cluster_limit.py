"""ARC keys that are limited to clusters: on their page, at each route that takes a key, and in the history."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import AccountEvent, ApiKey
from policystore.accounts.roles import Role
from policystore.inventory.models import Cluster
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import handler, recorder
from policystore.runners.models import JobRun
from tests import factories
from tests.runners.asking import ask, before_django, through_django

pytestmark = pytest.mark.django_db

JOB = "/github/octo-org/hello-world/actions"
FETCH = f"{JOB}/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=arc-1"
WHICH = f"{JOB}/policies/which?workflow=ci.yml"
EVENTS = f"{JOB}/jobs/arc-1/events"
PROD, DEV = "/v1/clusters/prod-k8s", "/v1/clusters/dev-k8s"


@pytest.fixture
def organization():
    found = factories.organization("octo-org")
    policy = factories.policy(found)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=factories.SYSTEM)
    return found


@pytest.fixture
def owner(organization):
    return signed_in(factories.member(organization, Role.OWNER, "olga"))


@pytest.fixture
def bearer(organization):
    return {"authorization": f"vm-api-key {factories.api_key(organization, kind='arc')}"}


def signed_in(person):
    client = Client()
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def page_of(key):
    return reverse("settings:key-clusters", args=["octo-org", key.pk])


def keys_page():
    return reverse("settings:keys", args=["octo-org"])


def limit(client, clusters, **more):
    return client.post(page_of(ApiKey.objects.get(kind="arc", revoked_at=None)), {"clusters": clusters}, **more)


def refusals(caller, headers):
    return [
        (answer.status, answer.json()["error"])
        for answer in (caller("GET", f"{base}{FETCH}", headers) for base in ("/v1", DEV))
    ]


@pytest.mark.parametrize("caller", [through_django, before_django], ids=["through Django", "before Django"])
def test_a_fetch_with_a_limited_key_is_refused_outside_its_clusters(organization, owner, bearer, caller):
    assert [caller("GET", f"{base}{FETCH}", bearer).status for base in ("/v1", DEV, PROD)] == [200, 200, 200]
    limit(owner, "prod-k8s\nstage-k8s")
    assert refusals(caller, bearer) == [(403, "cluster_not_allowed")] * 2
    assert caller("GET", f"{PROD}{FETCH}", bearer).status == 200
    assert caller("GET", f"/v1{FETCH}&cluster=stage-k8s", bearer).status == 200
    assert caller("GET", f"{DEV}{FETCH}&cluster=prod-k8s", bearer).status == 403
    limit(owner, "")
    assert [caller("GET", f"{base}{FETCH}", bearer).status for base in ("/v1", DEV, PROD)] == [200, 200, 200]


def test_the_refusal_names_the_cluster_the_limit_and_an_address(owner, bearer):
    limit(owner, "prod-k8s")
    assert ask("GET", f"{DEV}{FETCH}", bearer).json()["message"] == (
        "This API key cannot be used for cluster “dev-k8s”. It is limited to prod-k8s."
        " Send the request to the base address of one of these clusters, for example /v1/clusters/prod-k8s."
    )
    assert "cannot be used without a cluster." in ask("GET", f"/v1{FETCH}", bearer).json()["message"]
    limit(owner, " ".join(f"c{number}" for number in range(9)))
    assert "limited to c0, c1, c2, c3, c4, …." in ask("GET", f"/v1{FETCH}", bearer).json()["message"]


def test_what_a_key_was_answered_before_its_limit_is_not_remembered(owner, bearer, monkeypatch):
    handler.clear_cache()
    assert ask("GET", f"{DEV}{FETCH}", bearer).status == 200
    assert ask("GET", f"{PROD}{FETCH}", bearer).status == 200
    limit(owner, "prod-k8s")
    assert ask("GET", f"{DEV}{FETCH}", bearer).status == 403

    def refuse(*_):
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "cursor", refuse)
    assert ask("GET", f"{DEV}{FETCH}", bearer).status == 503
    assert ask("GET", f"{PROD}{FETCH}", bearer).status == 200


def test_which_policy_applies_is_refused_outside_the_clusters(owner, bearer):
    limit(owner, "prod-k8s")
    assert [ask("GET", f"{base}{WHICH}", bearer).status for base in ("/v1", DEV, PROD)] == [403, 403, 200]
    assert ask("GET", f"/v1{WHICH}&cluster=prod-k8s", bearer).status == 200
    assert ask("GET", f"{DEV}{WHICH}", bearer).json()["error"] == "cluster_not_allowed"


def test_telemetry_is_refused_outside_the_clusters_and_about_their_jobs(organization, owner, bearer):
    other = {"authorization": f"vm-api-key {factories.api_key(organization, kind='arc', slot='secondary')}"}
    key = ApiKey.objects.get(kind="arc", slot="primary")
    owner.post(page_of(key), {"clusters": "prod-k8s"})
    assert [ask("POST", f"{base}{EVENTS}", bearer, []).status for base in ("/v1", DEV, PROD)] == [403, 403, 200]
    assert JobRun.objects.get().cluster == "prod-k8s"
    theirs = FETCH.replace("arc-1", "dev-1")
    ask("GET", f"{DEV}{theirs}", other)
    recorder.flush()
    about_theirs = EVENTS.replace("arc-1", "dev-1")
    assert ask("POST", f"{PROD}{about_theirs}", bearer, []).json()["error"] == "cluster_not_allowed"
    assert ask("POST", f"{DEV}{about_theirs}", other, []).status == 200


def test_a_regenerated_key_keeps_the_limit(owner, bearer):
    limit(owner, "prod-k8s")
    address = reverse("settings:regenerate-key", args=["octo-org"])
    form = {"kind": "arc", "slot": "primary", "confirmed": "on"}
    clear = owner.post(address, form).context["fresh_key"]
    fresh = {"authorization": f"vm-api-key {clear}"}
    assert [ask("GET", f"{base}{FETCH}", fresh).status for base in ("/v1", DEV, PROD)] == [403, 403, 200]
    secondary = owner.post(address, {**form, "slot": "secondary"}).context["fresh_key"]
    assert ask("GET", f"/v1{FETCH}", {"authorization": f"vm-api-key {secondary}"}).status == 200


def test_the_page_takes_names_by_line_or_comma_and_shows_the_limit(owner, bearer):
    key = ApiKey.objects.get()
    assert "Works in every cluster" in owner.get(keys_page()).content.decode()
    answer = limit(owner, "stage-k8s, prod-k8s\r\nprod-k8s", follow=True)
    assert answer.redirect_chain == [(keys_page(), 302)]
    assert "Limited to: prod-k8s, stage-k8s" in answer.content.decode()
    assert ">\nprod-k8s\nstage-k8s</textarea>" in owner.get(page_of(key)).content.decode()
    events = AccountEvent.objects.filter(actor="olga").order_by("pk")
    assert [(event.kind, event.subject) for event in events] == [("key limited", "ARC clusters: Primary")]
    assert events[0].detail == f"{key.hint}: prod-k8s, stage-k8s"
    limit(owner, "prod-k8s stage-k8s")
    assert events.count() == 1
    limit(owner, "")
    assert events.last().kind == "key limit lifted"
    assert ApiKey.objects.get().clusters == ""


def test_an_invalid_name_is_refused_with_an_example_and_kept_in_the_form(owner, bearer):
    page = limit(owner, "prod-k8s\nbad/name")
    assert page.status_code == 422
    text = page.content.decode()
    assert "“bad/name” is not a valid cluster name." in text
    assert "for example prod-k8s." in text
    assert "prod-k8s\nbad/name</textarea>" in text
    page = limit(owner, " ".join(f"c{number}" for number in range(101)))
    assert page.status_code == 422
    assert "at most 100 clusters; you entered 101" in page.content.decode()
    assert limit(owner, "x\0y").status_code == 422
    assert ApiKey.objects.get().clusters == ""
    assert not AccountEvent.objects.filter(kind="key limited").exists()


def test_the_longest_names_fit_the_history(owner, bearer):
    names = [f"{number:03}{'a' * 250}" for number in range(100)]
    assert limit(owner, "\n".join(names)).status_code == 302
    event = AccountEvent.objects.get(kind="key limited")
    assert len(event.detail) == 500
    assert event.details["api_key"]["clusters"] == " ".join(names)


def test_only_owners_limit_live_arc_keys_of_their_organization(organization, owner, bearer):
    arc = ApiKey.objects.get()
    factories.api_key(organization, kind="vm")
    assert owner.get(page_of(ApiKey.objects.get(kind="vm"))).status_code == 404
    other = factories.organization("other")
    factories.api_key(other, kind="arc")
    assert owner.get(page_of(other.api_keys.get())).status_code == 404
    assert signed_in(factories.member(organization, Role.SECURITY_ADMIN)).get(page_of(arc)).status_code == 403
    factories.api_key(organization, kind="arc")
    assert owner.post(page_of(arc), {"clusters": "prod-k8s"}).status_code == 404


def test_a_limit_that_was_changed_in_the_database_is_reported(owner, bearer):
    limit(owner, "prod-k8s")
    call_command("verify_history", stdout=StringIO())
    ApiKey.objects.update(clusters="")
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("verify_history", stdout=out)
    assert "clusters" in out.getvalue()


HINT = "No runner has named this cluster yet"


def test_the_attach_page_says_which_clusters_no_runner_has_named(organization, owner, bearer):
    policy = factories.policy(organization, "of-cluster")
    address = reverse("policies:attach", args=["octo-org", policy.pk])
    form = {"type": "cluster", "name": "prod-k8s", "action": "add"}
    page = owner.post(address, form)
    assert page.content.decode().count(HINT) == 1
    owner.post(address, {"add": "cluster:octo-org/prod-k8s", "action": "save"})
    search = {"type": "cluster", "action": "find"}
    assert owner.post(address, search).content.decode().count(HINT) == 2
    assert owner.get(address).content.decode().count(HINT) == 1
    ask("GET", f"{PROD}{FETCH}", bearer)
    recorder.flush()
    assert Cluster.objects.get().named_by_runner
    assert HINT not in owner.post(address, search).content.decode()
    assert HINT not in owner.get(address).content.decode()
    assert HINT not in owner.post(address, form).content.decode()


def test_a_cluster_that_a_runner_named_first_has_no_hint(organization, owner, bearer):
    ask("GET", f"{DEV}{FETCH}", bearer)
    recorder.flush()
    policy = factories.policy(organization, "of-cluster")
    address = reverse("policies:attach", args=["octo-org", policy.pk])
    owner.post(address, {"add": "cluster:octo-org/dev-k8s", "action": "save"})
    for kind in ("cluster", "workflow"):
        assert HINT not in owner.post(address, {"type": kind}).content.decode()
