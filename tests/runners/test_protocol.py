"""The runner protocol without a key: answered for runners, rate limited for callers who guess."""

import time
from datetime import timedelta
from io import BytesIO
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners import protocol, rate_limit
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from policystore.runners.protocol import one_time_key, run_id_of
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

REPOSITORY = "/v1/github/octo-org/hello-world/actions"
CHECK = f"{REPOSITORY}/policies/workflow-check"
AUDIT = "egress-policy: audit\n"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    # No minute ends in the middle of a test.
    monkeypatch.setattr(rate_limit, "WINDOW_SECONDS", 10**9)
    protocol.clear()
    yield
    protocol.clear()


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def attach(organization, name, scope, text=factories.TEXT):
    policy = factories.policy(organization, name, text=text)
    attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=Actor("ann"))
    return policy


def test_the_check_follows_precedence_and_mode(organization):
    assert ask("GET", f"{CHECK}?workflow=ci.yml").json() == {"has_policy": False, "should_sleep": False}
    attach(organization, "cluster", Scope.for_cluster("octo-org", "k8s"), AUDIT)
    assert ask("GET", f"{CHECK}?workflow=ci.yml").json() == {"has_policy": False, "should_sleep": False}
    assert ask("GET", f"{CHECK}?workflow=&cluster=k8s").json() == {"has_policy": True, "should_sleep": False}
    attach(organization, "organization", Scope.for_organization("octo-org"))
    assert ask("GET", f"{CHECK}?workflow=ci.yml").json() == {"has_policy": True, "should_sleep": True}
    attach(organization, "workflow", Scope.for_workflow("octo-org", "hello-world", "ci.yml"), AUDIT)
    assert ask("GET", f"{CHECK}?workflow=ci.yml").json() == {"has_policy": True, "should_sleep": False}
    assert ask("GET", f"{CHECK}?workflow=cd.yml").json() == {"has_policy": True, "should_sleep": True}


def test_an_unknown_organization_has_no_policy():
    assert ask("GET", CHECK).json() == {"has_policy": False, "should_sleep": False}


def test_past_the_limit_the_check_makes_the_job_wait_and_says_nothing_else(organization, monkeypatch):
    monkeypatch.setattr(protocol, "_calls", rate_limit.ProcessRateLimit(2))
    replies = [ask("GET", f"{CHECK}?workflow=ci.yml") for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert [reply.json()["has_policy"] for reply in replies] == [False, False, True]
    assert replies[2].json()["should_sleep"]


def test_one_address_cannot_use_up_the_limit_of_others(organization, monkeypatch, client, settings):
    settings.TRUST_FORWARDED_HEADERS = True
    attach(organization, "workflow", Scope.for_workflow("octo-org", "hello-world", "ci.yml"), AUDIT)
    monkeypatch.setattr(protocol, "_calls", rate_limit.ProcessRateLimit(2))
    addresses = ["203.0.113.7"] * 3 + ["198.51.100.9", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
    replies = [
        client.get(f"{CHECK}?workflow=ci.yml", headers={"x-forwarded-for": address}).json() for address in addresses
    ]
    assert [reply["should_sleep"] for reply in replies] == [False, False, True, False, False, False, True]


def test_a_release_that_cannot_be_looked_up_is_not_looked_up_again_with_each_request(settings, monkeypatch):
    settings.AGENT_RELEASE_URL = "https://releases.example"
    answers, looked_up = {"v1": b'{"tag": "v1", "assets": []}'}, []

    def urlopen(request, timeout):
        looked_up.append(version := request.full_url.rpartition("/")[2])
        if version not in answers:
            raise OSError("connection refused")
        return BytesIO(answers[version])

    monkeypatch.setattr(protocol.urllib.request, "urlopen", urlopen)
    releases = "/v1/harden-runner-agent/github/linux/single/releases"
    assert ask("GET", f"{releases}/v1").json()["tag"] == "v1"
    answers.clear()
    monkeypatch.setattr(protocol, "RELEASE_IS_FRESH_SECONDS", 0)
    assert [ask("GET", f"{releases}/v1").json()["tag"] for _ in range(3)] == ["v1", "v1", "v1"]
    assert [ask("GET", f"{releases}/v2").status for _ in range(3)] == [503, 503, 503]
    assert looked_up == ["v1", "v1", "v2"]
    later = time.monotonic() + protocol.RELEASE_PAUSE_SECONDS
    monkeypatch.setattr(protocol, "time", SimpleNamespace(monotonic=lambda: later))
    answers["v2"] = b'{"tag": "v2", "assets": []}'
    assert ask("GET", f"{releases}/v2").json()["tag"] == "v2"


def test_the_status_is_not_told_for_another_repository_or_organization_nor_for_ever(organization, settings):
    key = factories.api_key(organization)
    attach(organization, "organization", Scope.for_organization("octo-org"))
    fetch = f"{REPOSITORY}/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=runner-1"
    ask("GET", fetch, {"authorization": f"vm-api-key {key}"})
    recorder.flush()
    status = "actions/policies/workflow-policy/status?correlation_id=runner-1"
    assert ask("GET", f"/v1/github/octo-org/hello-world/{status}").json() == {"status": "APPLIED"}
    assert ask("GET", f"/v1/github/octo-org/other/{status}").json() == {"status": "NOT_APPLIED"}
    assert ask("GET", f"/v1/github/other/hello-world/{status}").json() == {"status": "NOT_APPLIED"}
    JobRun.objects.update(first_seen_at="2020-01-01T00:00:00Z")
    assert ask("GET", f"/v1/github/octo-org/hello-world/{status}").json() == {"status": "NOT_APPLIED"}


def test_the_fetch_of_a_runners_last_job_does_not_count_for_its_next_one(organization):
    key = factories.api_key(organization)
    attach(organization, "organization", Scope.for_organization("octo-org"))
    headers = {"authorization": f"vm-api-key {key}"}
    fetch = f"{REPOSITORY}/policies/workflow-policy?workflow=ci.yml&correlationId=runner-1"
    status = f"{REPOSITORY}/policies/workflow-policy/status?correlation_id=runner-1"
    ask("GET", f"{fetch}&run_id=1", headers)
    recorder.flush()
    assert ask("GET", status).json() == {"status": "APPLIED"}
    JobRun.objects.update(fetched_at=timezone.now() - timedelta(minutes=2))
    assert ask("GET", status).json() == {"status": "NOT_APPLIED"}
    ask("GET", f"{fetch}&run_id=2", headers)
    recorder.flush()
    assert ask("GET", status).json() == {"status": "APPLIED"}


def test_guessing_correlation_ids_is_rate_limited(organization, monkeypatch):
    monkeypatch.setattr(protocol, "_misses", rate_limit.ProcessRateLimit(3))
    target = f"{REPOSITORY}/policies/workflow-policy/status?correlation_id="
    assert [ask("GET", f"{target}{number}").status for number in range(5)] == [200, 200, 200, 429, 429]
    assert ask("GET", f"/v1/github/other{target.removeprefix('/v1/github/octo-org')}x").status == 200


def test_a_rate_limit_restarts_with_each_window(monkeypatch):
    monkeypatch.setattr(rate_limit, "WINDOW_SECONDS", 60)
    limit = rate_limit.ProcessRateLimit(2)
    assert [limit.allows("a", now=0), limit.allows("a", now=1), limit.allows("a", now=2)] == [True, True, False]
    assert limit.allows("b", now=2)
    assert limit.allows("a", now=60)


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        ("runs/1/monitor", {"correlation_id": "", "job": "build"}, 400),
        ("runs/1/monitor", {"job": "build"}, 400),
        ("runs/1/monitor", {"correlation_id": 7}, 400),
        ("runs/1/monitor", {"correlation_id": "x" * 256}, 400),
        ("runs/one/monitor", {"correlation_id": "a", "job": "build"}, 400),
        ("runs/1/monitor", b"", 400),
    ],
)
def test_a_job_that_registers_itself_badly_is_refused(organization, target, body, status):
    assert ask("POST", f"{REPOSITORY}/{target}", {}, body).status == status
    assert not JobRun.objects.exists()


def test_a_job_of_an_unknown_organization_cannot_register():
    answer = ask("POST", f"{REPOSITORY}/runs/1/monitor", {}, {"correlation_id": "a", "job": "build"})
    assert (answer.status, answer.json()["error"]) == (403, "unknown_organization")


def test_registering_is_bounded(organization, monkeypatch):
    monkeypatch.setattr(protocol, "_calls", rate_limit.ProcessRateLimit(1))
    body = {"correlation_id": "a", "job": "build"}
    assert [ask("POST", f"{REPOSITORY}/runs/{n}/monitor", {}, body).status for n in (1, 2)] == [200, 429]


def test_nobody_fills_the_inventory_without_a_key(organization):
    ask("POST", "/v1/github/octo-org/made-up/actions/runs/1/monitor", {}, {"correlation_id": "a", "job": "build"})
    assert JobRun.objects.filter(repository="made-up").exists()
    assert not organization.repositories.exists()


def test_registering_keeps_what_the_fetch_told(organization):
    key = factories.api_key(organization)
    attach(organization, "organization", Scope.for_organization("octo-org"))
    fetch = f"{REPOSITORY}/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=a"
    ask("GET", fetch, {"authorization": f"vm-api-key {key}"})
    ask("POST", f"{REPOSITORY}/runs/1/monitor", {}, {"correlation_id": "a", "job": "build"})
    recorder.flush()
    run = JobRun.objects.get()
    assert (run.workflow, run.job, run.policy_name) == ("ci.yml", "build", "organization")
    assert run.monitored_at
    assert run.fetched_at


def test_a_one_time_key_names_one_run_of_one_job():
    key = one_time_key("octo-org", "hello-world", "a", "7")
    assert run_id_of(key, "Octo-Org", "Hello-World", "a") == "7"
    assert run_id_of(key, "octo-org", "hello-world", "b") is None
    assert run_id_of(key, "octo-org", "other", "a") is None
    assert run_id_of(key.replace("_7_", "_8_"), "octo-org", "hello-world", "a") is None
    assert run_id_of("é", "octo-org", "hello-world", "a") is None


def test_asking_again_gives_the_same_key_and_another_run_gets_another(organization):
    body = {"correlation_id": "runner-1", "job": "build"}
    asked = [ask("POST", f"{REPOSITORY}/runs/{run}/monitor", {}, body).json() for run in (1, 1, 2)]
    first, again, other = [answer["one_time_key"] for answer in asked]
    assert first == again != other


@pytest.mark.parametrize(
    ("correlation_id", "sentence"),
    [
        ("a86e0103-ab28-4994-b364-6f125aef2177", "No policy applied: the job did not fetch one from this store."),
        (
            "blacksmith-01|x",
            "No policy applied: the job registered as runner `blacksmith-01/x`, which did not fetch a policy.",
        ),
    ],
)
def test_the_summary_of_a_job_that_only_registered_claims_no_more_than_the_store_knows(
    organization, correlation_id, sentence
):
    ask("POST", f"{REPOSITORY}/runs/1/monitor", body={"correlation_id": correlation_id, "job": "build"})
    summary = f"{REPOSITORY}/runs/1/correlation/{quote(correlation_id)}/job-markdown-summary"
    assert "its policy may not be recorded yet" in ask("GET", summary).body.decode()
    JobRun.objects.update(first_seen_at=timezone.now() - timedelta(seconds=15))
    assert sentence in ask("GET", summary).body.decode()
