"""The product's main job, from signing in to the history, through the same front door as in production."""

import io
import json
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from django.test import Client
from django.urls import reverse

from policystore.accounts import sign_in
from policystore.accounts.roles import Role
from policystore.config.wsgi import application
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from tests import factories

pytestmark = pytest.mark.django_db

GOLDEN = json.loads((Path(__file__).parent.parent / "contract" / "golden_requests.json").read_text())
FETCHES = [call for call in GOLDEN if "/workflow-policy?" in call["target"]]
# As a public workflow has it, comments and folding included.
REAL = """\
# Taken over from the release workflow.
egress-policy: block
disable-sudo: true
allowed-endpoints: >
  api.github.com:443
  fulcio.sigstore.dev:443
  ghcr.io:443 # images
  github.com:443
  proxy.golang.org:443
  rekor.sigstore.dev:443
  storage.googleapis.com:443
"""
SCOPES = [
    ("cluster", {"type": "cluster", "name": "dev-k8s"}),
    ("organization", {"type": "organization"}),
    ("repository", {"type": "repository", "name": "hello-world"}),
    ("workflow", {"type": "workflow", "name": "hello-world/ci.yml"}),
]


def fetch(call, key, *, cluster=""):
    """A recorded fetch, byte for byte, through the server's own entry point."""
    path, _, query = call["target"].partition("?")
    environ = {
        "REQUEST_METHOD": call["method"],
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query + (f"&cluster={cluster}" if cluster else ""),
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "HTTP_HOST": "testserver",
        "HTTP_AUTHORIZATION": f"vm-api-key {key}",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
    }
    started = []
    body = b"".join(application(environ, lambda status, headers: started.append(int(status[:3]))))
    return started[0], json.loads(body)


def address(name, *arguments):
    return reverse(f"policies:{name}", args=["octo-org", *arguments])


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    """A browser in which ann, a security admin, has followed her sign-in link."""
    client = Client()
    link = reverse("sign-in-link", args=[sign_in.issue_link(user=factories.member(organization, Role.SECURITY_ADMIN))])
    client.post(link)
    assert client.get(address("list")).status_code == 200
    return client


def create(client, name, text=REAL):
    answer = client.post(address("new"), {"name": name, "description": "", "text": text})
    assert answer.status_code == 302, answer.content.decode()
    return int(re.search(r"/policy-store/(\d+)/", answer["location"]).group(1))


def attach(client, policy_id, chosen):
    added = client.post(address("attach", policy_id), {**chosen, "action": "add"})
    assert added.status_code == 200, added.content.decode()
    pending = re.findall(r'name="add" value="([^"]+)"', added.content.decode())
    assert client.post(address("attach", policy_id), {"add": pending, "action": "save"}).status_code == 302


def test_a_policy_is_written_attached_fetched_edited_fetched_again_and_its_history_told(organization, ann):
    key = factories.api_key(organization)
    plain = FETCHES[0]
    assert fetch(plain, key)[0] == 404

    # Each scope in turn, from the least to the most specific: the newest attachment wins for the job that it names.
    for number, (kind, chosen) in enumerate(SCOPES):
        policy_id = create(ann, f"{kind}-default", REAL if number % 2 else REAL.replace("block", "audit"))
        attach(ann, policy_id, chosen)
        status, reply = fetch(plain, key, cluster="dev-k8s")
        assert (status, reply["policy_name"]) == (200, f"{kind}-default")
        assert reply["egress_policy"] == ("block" if number % 2 else "audit")
        assert reply["allowed_endpoints"][2] == "ghcr.io:443"
        assert len(reply["allowed_endpoints"]) == 7

    # Every recorded fetch: the workflow's own policy for ci.yml, the repository's for all others.
    for call in FETCHES:
        status, reply = fetch(call, key)
        expected = "workflow-default" if "workflow=ci.yml&" in call["target"] else "repository-default"
        assert (status, reply["policy_name"]) == (200, expected)

    # An edit is what the very next fetch gets.
    page = ann.get(address("edit", policy_id))
    changed = REAL.replace("  ghcr.io:443 # images\n", "  quay.io:443\n")
    form = {
        "name": "workflow-default-2",
        "description": "",
        "text": changed,
        "version": page.context["form"]["version"].value(),
    }
    assert ann.post(address("edit", policy_id), form).status_code == 302
    status, reply = fetch(plain, key)
    assert (status, reply["policy_name"]) == (200, "workflow-default-2")
    assert "quay.io:443" in reply["allowed_endpoints"]
    assert "ghcr.io:443" not in reply["allowed_endpoints"]

    # The history tells all of it, newest first, with the changed line on both sides.
    history = ann.get(address("history", policy_id)).content.decode()
    positions = [history.index(f"<h3>{label}") for label in ("Policy Updated", "Policy Attached", "Policy Created")]
    assert positions == sorted(positions)
    edited = re.search(r"diff=(\d+)", history)[1]
    lines = ann.get(address("history", policy_id), {"diff": edited}).content.decode()
    assert "quay.io:443" in re.sub(r"</?mark>", "", lines)
    assert "octo-org/hello-world/ci.yml" in history

    # And the runs page shows who asked.
    recorder.flush()
    assert JobRun.objects.filter(organization=organization, policy_name="workflow-default-2").exists()
    assert "hello-world/ci.yml" in ann.get(reverse("runs:list", args=["octo-org"])).content.decode()
