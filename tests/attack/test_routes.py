"""Every `/v1` route, by every method, asked by everybody: a route that is not in the table fails."""

from __future__ import annotations

import json
import re

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from policystore.accounts.models import SYSTEM, Role
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from tests import factories
from tests.test_permissions import PAGES

pytestmark = pytest.mark.django_db

IDENTITIES = (
    "nobody",
    "auditor",
    "security admin",
    "owner",
    "their owner",
    "vm key",
    "arc key",
    "management key",
    "vm key as bearer",
    "management key as runner",
    "their vm key",
    "their management key",
    "revoked vm key",
)
PEOPLE = ("auditor", "security admin", "owner", "their owner")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ORG, REPO = "v1/github/<str:owner>/", "v1/github/<str:owner>/<str:repository>/"


def routes(resolver=None, prefix=""):
    for entry in (resolver or get_resolver()).url_patterns:
        if isinstance(entry, URLResolver):
            yield from routes(entry, prefix + str(entry.pattern))
        elif isinstance(entry, URLPattern) and (prefix + str(entry.pattern)).startswith(("v1", "^v1")):
            yield prefix + str(entry.pattern), entry.callback.methods


@pytest.fixture
def world():
    """octo-org with a policy for all and a job run, another organization, and each identity's key and client."""
    octo, theirs = factories.organization("octo-org"), factories.organization("theirs")
    attachments.ModifyAttachments(policy=factories.policy(octo, "ci"), add=[Scope.for_organization("octo-org")]).apply(
        by=SYSTEM
    )
    revoked = factories.api_key(octo, slot="secondary")
    factories.api_key(octo, slot="secondary")
    vm, management = factories.api_key(octo), factories.management_key(octo)
    headers = {
        "nobody": "",
        "vm key": f"vm-api-key {vm}",
        "arc key": f"vm-api-key {factories.api_key(octo, 'arc')}",
        "management key": f"Bearer {management}",
        "vm key as bearer": f"Bearer {vm}",
        "management key as runner": f"vm-api-key {management}",
        "their vm key": f"vm-api-key {factories.api_key(theirs)}",
        "their management key": f"Bearer {factories.management_key(theirs)}",
        "revoked vm key": f"vm-api-key {revoked}",
    }
    people = {
        "auditor": factories.member(octo, Role.AUDITOR, "auditor"),
        "security admin": factories.member(octo, Role.SECURITY_ADMIN, "admin"),
        "owner": factories.member(octo, Role.OWNER),
        "their owner": factories.member(theirs, Role.OWNER, "them"),
    }
    client = Client()
    path = "/v1/github/octo-org/hello/actions/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=job-1"
    assert client.get(path, headers={"Authorization": headers["vm key"]}).status_code == 200
    recorder.flush()
    assert JobRun.objects.count() == 1
    clients = {identity: Client(raise_request_exception=False) for identity in IDENTITIES}
    for identity, person in people.items():
        clients[identity].force_login(person, backend="policystore.accounts.access.RoleBackend")
    return headers, clients


INVALID_CLUSTER = r"^v1/clusters(?:/(?P<name>[^/]*)[\s\S]*)?$"
UNKNOWN = r"^v1(?:/[\s\S]*)?$"
UNLISTED = {INVALID_CLUSTER: "/v1/clusters/-/github", UNKNOWN: "/v1/no/such/route"}
VALUES = {
    "<str:owner>": "octo-org",
    "<str:repository>": "hello",
    "<str:name>": "ci",
    "<str:run_id>": "1",
    "<str:correlation_id>": "job-1",
    "<str:platform>": "linux",
    "<str:version>": "latest",
}
BODIES = {
    "monitor": {"correlation_id": "job-1", "job": "build"},
    "attach": {"org": {"name": "octo-org", "apply_to_org": True, "repos": []}, "clusters": []},
    "dns": {"domainName": "github.com.", "ipAddress": "140.82.112.3"},
    "networkconnection": {"domainName": "github.com.", "ipAddress": "140.82.112.3", "port": "443"},
    "events": [],
    "firewall-file": {"text": "mode: enforce"},
    "detections": [],
    "<str:name>": {"owner": "octo-org", "policyName": "ci", "allowed_endpoints": None, "egress_policy": "audit"},
}


def answer(address, method, identity, world):
    """The status that one identity gets."""
    headers, clients = world
    path = "/" + re.sub(r"<\w+:\w+>", lambda found: VALUES[found.group()], address)
    path = UNLISTED.get(address, path)
    query = "?workflow=ci.yml&correlationId=job-1&correlation_id=job-1"
    body = json.dumps(BODIES.get(address.rsplit("/", 1)[-1], {}))
    sent = {"Authorization": headers[identity]} if headers.get(identity) else {}
    sending = clients[identity].generic
    return sending(method, path + query, body, content_type="application/json", headers=sent).status_code


def everybody(status):
    return (status,) * len(IDENTITIES)


# Answers in the order of IDENTITIES.
RUNNERS = (401, 401, 401, 401, 401, 200, 200, 401, 401, 403, 403, 401, 401)
ANY_KEY = (401, 401, 401, 401, 401, 200, 200, 200, 200, 200, 403, 403, 401)
SYSTEMS = (401, 401, 401, 401, 401, 401, 401, 200, 403, 401, 401, 403, 401)
DELETING = (401, 401, 401, 401, 401, 401, 401, 204, 403, 401, 401, 403, 401)
# These take the key after any scheme, or after none.
READERS = (401, 401, 401, 401, 401, 403, 403, 200, 403, 200, 403, 403, 401)
ROUTES = {
    "v1": {"GET": everybody(200)},
    "v1/openapi.json": {"GET": everybody(200)},
    "v1/global-feature-flags": {"GET": everybody(200)},
    "v1/global-blocklist": {"GET": (*everybody(200)[:-1], 401)},
    "v1/harden-runner-agent/github/<str:platform>/single/releases/<str:version>": {"GET": everybody(404)},
    f"{REPO}actions/policies/workflow-policy": {"GET": RUNNERS},
    f"{REPO}actions/policies/workflow-check": {"GET": everybody(200)},
    f"{REPO}actions/policies/workflow-policy/status": {"GET": everybody(200)},
    f"{REPO}actions/policies/which": {"GET": ANY_KEY},
    f"{REPO}actions/runs/<str:run_id>/monitor": {"POST": everybody(200)},
    f"{REPO}actions/runs/<str:run_id>/correlation/<str:correlation_id>/job-markdown-summary": {"GET": everybody(200)},
    f"{REPO}actions/subscription": {"GET": everybody(200)},
    f"{REPO}actions/jobs/<str:correlation_id>/dns": {"POST": ANY_KEY},
    f"{REPO}actions/jobs/<str:correlation_id>/networkconnection": {"POST": ANY_KEY},
    f"{REPO}actions/jobs/<str:correlation_id>/events": {"POST": ANY_KEY},
    f"{REPO}actions/jobs/<str:correlation_id>/detections": {"POST": ANY_KEY},
    f"{REPO}baseline": {"GET": READERS},
    f"{REPO}firewall-file": {"GET": ANY_KEY, "POST": ANY_KEY},
    f"{ORG}actions/tls-inspection-status": {"GET": everybody(403)},
    f"{ORG}actions/policies/<str:name>": {"GET": SYSTEMS, "POST": SYSTEMS, "DELETE": DELETING},
    f"{ORG}actions/policies/<str:name>/attach": {"POST": SYSTEMS, "DELETE": SYSTEMS},
    f"{ORG}actions/baseline": {"GET": READERS},
    f"{ORG}actions/detections": {"GET": READERS},
    INVALID_CLUSTER: dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), everybody(400)),
    UNKNOWN: dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), everybody(404)),
}


def test_every_route_is_in_the_table():
    assert {address: set(methods) for address, methods in routes()} == {
        address: set(answers) for address, answers in ROUTES.items()
    }


@pytest.mark.parametrize("address", ROUTES)
def test_each_identity_gets_what_the_table_says(world, address):
    for method in METHODS:
        expected = ROUTES[address].get("GET" if method == "HEAD" else method, everybody(405))
        told = tuple(answer(address, method, identity, world) for identity in IDENTITIES)
        if method == "DELETE" and address.endswith("<str:name>"):
            # What the first of them deleted is gone.
            told = tuple(DELETING[place] if status == 404 else status for place, status in enumerate(told))
        assert told == expected, method


@pytest.mark.parametrize("identity", [identity for identity in IDENTITIES if identity not in PEOPLE])
def test_no_key_opens_a_page(world, identity):
    headers, _ = world
    browser = Client(headers={"Authorization": headers[identity]} if headers[identity] else {})
    for address, (to_nobody, *_) in PAGES.items():
        path = re.sub(r"<int:\w+>", "1", address).replace("<str:owner>", "octo-org")
        assert browser.get(f"/{path}").status_code == to_nobody, path
    assert browser.get("/admin/").status_code == 302
