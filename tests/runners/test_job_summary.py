"""The job summary, as a job's last step fetches it."""

from datetime import timedelta
from urllib.parse import quote

import pytest
from django.utils import timezone

from policystore.accounts.models import SYSTEM
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners import protocol
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from policystore.traffic.models import NetworkEvent, Status
from tests import factories
from tests.runners.asking import RunnerClient, ask

pytestmark = pytest.mark.django_db

BASE = "/v1/github/octo-org/hello-world/actions"
VENDOR = "agent.api.stepsecurity.io"
EVENT = {"ipAddress": "140.82.121.3", "port": "443", "domainName": "github.com.", "timestamp": "2026-01-02T03:04:05Z"}


@pytest.fixture(autouse=True)
def _fresh():
    protocol.clear()
    yield
    protocol.clear()


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def register(job="a86e0103-ab28-4994-b364-6f125aef2177", *, fetches_with=None, base="/v1"):
    """A job that ran a while ago: registered, perhaps fetched, and with one call reported."""
    root = f"{base}{BASE.removeprefix('/v1')}"
    if fetches_with:
        target = f"{root}/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId={job}"
        ask("GET", target, {"authorization": f"vm-api-key {fetches_with}"})
        recorder.flush()
    registered = ask("POST", f"{root}/runs/1/monitor", body={"correlation_id": job, "job": "build"}).json()
    key = {"x-one-time-key": registered["one_time_key"]}
    assert ask("POST", f"{root}/jobs/{job}/networkconnection", key, EVENT).status == 200
    JobRun.objects.update(first_seen_at=timezone.now() - timedelta(seconds=15))
    return job


def summary(job, host="testserver"):
    answer = RunnerClient().get(f"{BASE}/runs/1/correlation/{quote(job)}/job-markdown-summary", headers={"host": host})
    assert answer.status_code == 200
    return answer.content.decode()


def test_it_links_to_the_stores_public_address_whatever_name_the_runner_used(organization, settings):
    settings.PUBLIC_URL, settings.ALLOWED_HOSTS = "https://store.example", ["store.example", VENDOR, "testserver"]
    text = summary(register(), host=VENDOR)
    assert f"(https://store.example/organizations/octo-org/runs/{JobRun.objects.get().pk}/)" in text
    assert VENDOR not in text


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ("a86e0103-ab28-4994-b364-6f125aef2177", "No policy applied: the job did not fetch one from this store."),
        ("smith-01|x", "No policy applied: the job registered as runner `smith-01/x`, which did not fetch a policy."),
    ],
)
def test_a_job_that_fetched_nothing_had_no_policy(organization, job, sentence):
    factories.policy(organization)
    text = summary(register(job))
    assert sentence in text
    assert "The job called 1 endpoint." in text
    assert "the policy lists" not in text


def test_a_job_to_which_no_policy_is_attached_had_none(organization):
    key = factories.api_key(organization)
    text = summary(register(fetches_with=key))
    assert "No policy applied: none is attached to this job's workflow, repository or organization." in text
    assert "The job called 1 endpoint." in text
    assert "the policy lists" not in text
    on_cluster = summary(register("arc-1", fetches_with=key, base="/v1/clusters/prod-k8s"))
    assert "workflow, repository, organization or cluster" in on_cluster


def test_a_job_whose_calls_are_all_listed(organization):
    attachments.ModifyAttachments(
        policy=factories.policy(organization), add=[Scope.for_organization("octo-org")]
    ).apply(by=SYSTEM)
    text = summary(register(fetches_with=factories.api_key(organization)))
    assert "The job called 1 endpoint, and the policy lists it." in text
    assert "No policy applied" not in text


def test_the_endpoints_beyond_the_first_are_counted(organization):
    job = register()
    event = NetworkEvent.objects.get()
    event.status, event.process = Status.BLOCKED, "curl"
    for number in range(251):
        event.pk, event.digest, event.host = None, str(number), f"host-{number:03}.example"
        event.save(force_insert=True)
    text = summary(job)
    assert "| `host-049.example:443` | 1 | `curl` |" in text
    assert "host-050.example" not in text
    assert "and 201 more" in text
