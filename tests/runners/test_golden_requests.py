"""Every recorded request of the real clients, in the order in which it was recorded, and what the contract allows."""

import json
from pathlib import Path

import pytest

from policystore.accounts.models import Actor
from policystore.audit_log.models import HistoryEvent
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from policystore.runners import protocol
from policystore.runners.fetch import handler, recorder
from policystore.runners.models import JobRun
from policystore.traffic.models import NetworkEvent
from tests import factories
from tests.runners.asking import ask, before_django

pytestmark = pytest.mark.django_db

GOLDEN = json.loads((Path(__file__).parent.parent / "contract" / "golden_requests.json").read_text())
BLOCK = "egress-policy: block\nallowed-endpoints: github.com:443\ndisable-sudo: true\n"
REPLY_KEYS = {
    "policy_name": str,
    "owner": str,
    "policyName": str,
    "allowed_endpoints": list,
    "egress_policy": str,
    "disable_sudo": bool,
    "disable_sudo_and_containers": bool,
    "disable_file_monitoring": bool,
    "disable_telemetry": bool,
}


@pytest.fixture(autouse=True)
def _fresh():
    handler.clear_cache()
    recorder.clear()
    protocol.clear()


@pytest.fixture
def store():
    """octo-org with a block policy, and a key of each kind."""
    organization = factories.organization("octo-org")
    policy = policies.create(organization=organization, name="org-default", text=BLOCK, by=Actor("ann"))
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=Actor("ann"))
    return {
        "vm": factories.api_key(organization, kind="vm"),
        "management": factories.management_key(organization, "terraform"),
        "organization": organization,
    }


def sent_headers(call, store):
    """The recorded headers, with this store's keys in the place of the recorded ones."""
    headers = dict(call["headers"])
    for name in headers:
        if name.lower() == "authorization" and headers[name].startswith("vm-api-key"):
            headers[name] = f"vm-api-key {store['vm']}"
        elif name.lower() == "authorization" and "tf_key" in headers[name]:
            headers[name] = f"Bearer {store['management']}"
    return headers


def send(call, store, **changed):
    return ask(call["method"], call["target"], {**sent_headers(call, store), **changed}, call["body"])


def calls(part):
    return [call for call in GOLDEN if part in call["target"]]


def test_there_are_38_recorded_requests_and_each_is_answered_below(store):
    covered = [
        *calls("workflow-policy?"),
        *calls("/policies/named"),
        *calls("/monitor"),
        *calls("tls-inspection-status"),
        *calls("job-markdown-summary"),
        *[call for call in GOLDEN if call["target"] == "/v1"],
        *calls("releases/latest"),
        *calls("workflow-check"),
        *calls("workflow-policy/status"),
        *calls("tf-policy"),
        *calls("global-"),
        *calls("subscription"),
        *calls("/jobs/"),
    ]
    assert len(covered) == len(GOLDEN) == 38


@pytest.mark.parametrize("way", [ask, before_django])
@pytest.mark.parametrize("call", calls("workflow-policy?"), ids=lambda call: f"{call['client']} {call['note']}")
def test_a_fetch_gets_the_policy_in_the_clients_types(store, call, way):
    headers = {name: value for name, value in sent_headers(call, store).items() if name.lower() != "host"}
    answer = way(call["method"], call["target"], headers)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    reply = answer.json()
    assert {name: type(reply[name]) for name in REPLY_KEYS} == REPLY_KEYS
    assert (reply["policy_name"], reply["egress_policy"]) == ("org-default", "block")
    assert reply["allowed_endpoints"] == ["github.com:443"]


@pytest.mark.parametrize("call", calls("/policies/named"))
def test_an_unsigned_token_is_refused(store, call):
    answer = send(call, store)
    assert (answer.status, answer.json()["error"]) == (401, "unauthorized")


@pytest.mark.parametrize("call", calls("/monitor"), ids=lambda call: call["note"])
def test_a_job_registers_itself_and_gets_the_same_key_each_time(store, call):
    first, second = send(call, store), send(call, store)
    assert (first.status, second.status) == (200, 200)
    assert first.json() == second.json()
    assert first.json()["monitoring_started"] is True
    assert first.json()["one_time_key"].startswith("ps_otk_")
    assert first.json()["runner_ip_address"] == "127.0.0.1"
    run = JobRun.objects.get(correlation_id=call["body"]["correlation_id"])
    assert (run.run_id, run.job, run.repository) == ("9876543210", "build", "hello-world")


@pytest.mark.parametrize("call", calls("tls-inspection-status"))
def test_the_action_is_led_to_the_open_agent(store, call):
    assert send(call, store).status not in (200, 404, 500)


@pytest.mark.parametrize("call", calls("job-markdown-summary"), ids=lambda call: call["client"])
def test_a_jobs_summary_tells_its_policy(store, call):
    correlation_id = call["target"].split("/correlation/")[1].split("/")[0]
    target = call["target"].split("/runs/")[0] + "/policies/workflow-policy"
    query = f"?workflow=ci.yml&run_id=9876543210&correlationId={correlation_id}"
    ask("GET", target + query, {"authorization": f"vm-api-key {store['vm']}"})
    recorder.flush()
    answer = send(call, store)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/markdown; charset=utf-8")
    assert b"`org-default`" in answer.body
    assert b"Organization `octo-org`" in answer.body
    assert b"/organizations/octo-org/runs/" in answer.body


@pytest.mark.parametrize("call", calls("job-markdown-summary"), ids=lambda call: call["client"])
def test_the_summary_of_a_job_that_was_never_seen_is_refused(store, call):
    assert send(call, store).status == 403


@pytest.mark.parametrize("call", [call for call in GOLDEN if call["target"] == "/v1"], ids=lambda call: call["client"])
def test_the_hooks_find_the_store(store, call):
    answer = send(call, store)
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("call", calls("releases/latest"))
def test_there_is_no_agent_release_unless_an_address_is_configured(store, call):
    assert send(call, store).status == 404


@pytest.mark.parametrize("call", calls("workflow-check"))
def test_the_arc_hook_learns_two_booleans_and_no_more(store, call):
    answer = send(call, store)
    assert (answer.status, answer.json()) == (200, {"has_policy": True, "should_sleep": True})


@pytest.mark.parametrize("call", calls("workflow-policy/status")[:1])
def test_the_status_turns_to_applied_once_the_policy_was_fetched(store, call):
    assert send(call, store).json() == {"status": "NOT_APPLIED"}
    target = call["target"].split("/status")[0]
    query = "?workflow=ci.yml&run_id=9876543210&correlationId=arc-runner-abc12-runner-xyz"
    ask("GET", target + query, {"authorization": f"vm-api-key {store['vm']}"})
    recorder.flush()
    assert send(call, store).json() == {"status": "APPLIED"}


def test_the_recorded_life_of_a_terraform_policy_leaves_the_history_that_a_person_expects(store):
    attachments.DetachPolicy(policy=Policy.objects.get(name="org-default")).apply(by=Actor("ann"))
    statuses = []
    bodies = []
    for call in calls("tf-policy"):
        answer = send(call, store)
        statuses.append((call["method"], call["target"].rpartition("tf-policy")[2], answer.status))
        bodies.append(answer.json() if answer.body else None)
    assert [status for *_, status in statuses] == [200] * 9 + [204, 404]
    created, read, updated, attached, read_attached, detached = bodies[:6]
    gone, _, missing = bodies[8:]
    assert created == read
    assert created["allowed_endpoints"] == ["github.com:443", "*.amazonaws.com:443"]
    assert created["lockdown"] == {"enabled": True, "detections": ["Privileged-Container", "Reverse-Shell"]}
    assert "attachments" not in created
    assert (updated["egress_policy"], updated["allowed_endpoints"], "lockdown" in updated) == ("audit", [], False)
    assert read_attached["attachments"] == attached["attachments"]
    assert attached["attachments"] == {
        "org": {
            "name": "octo-org",
            "apply_to_org": False,
            "repos": [
                {"name": "critical-repo", "apply_to_repo": True},
                {"name": "hello-world", "apply_to_repo": False, "workflows": ["ci.yml", "deploy.yml"]},
            ],
        },
        "clusters": ["dev-k8s"],
    }
    assert "attachments" not in detached
    assert "attachments" not in gone
    assert missing["error"] == "no_policy"
    history = HistoryEvent.objects.filter(subject_name="tf-policy").order_by("pk")
    assert {(event.actor, event.actor_kind) for event in history} == {("terraform", "api_key")}
    assert list(history.values_list("kind", flat=True)) == [
        "created",
        "updated",
        "attached",
        "detached",
        "attached",
        "attached",
        "detached",
        "deleted",
    ]


@pytest.mark.parametrize("call", calls("global-feature-flags"))
def test_the_agent_gets_its_switches(store, call):
    assert send(call, store).json() == {
        "agent_type": "agent-oss",
        "enable_armour": False,
        "enable_custom_detection_rules": False,
    }


@pytest.mark.parametrize("call", calls("global-blocklist"))
def test_the_agent_gets_the_blocklist_in_its_shape(store, call):
    assert send(call, store).json() == {"ip_addresses": [], "domains": [], "wildcard_domains": []}


@pytest.mark.parametrize("call", calls("subscription"))
def test_a_private_repository_is_not_forced_into_audit(store, call):
    assert send(call, store).status == 200


def test_telemetry_is_taken_with_exactly_200_and_tied_to_its_job(store):
    correlation_id = "2e93f7eb-1c1b-4a6f-9c3c-a1f33e8292af"
    monitor = {"correlation_id": correlation_id, "job": "build"}
    answer = ask("POST", "/v1/github/octo-org/hello-world/actions/runs/9876543210/monitor", {}, monitor)
    key = answer.json()["one_time_key"]
    for call in calls("/jobs/"):
        assert send(call, store, **{"X-One-Time-Key": key}).status == 200
    events = NetworkEvent.objects.filter(job_run__correlation_id=correlation_id).order_by("pk")
    assert [(event.kind, event.endpoint, event.status) for event in events] == [
        ("dns", "registry.yarnpkg.com:443", "allowed"),
        ("dns", "attacker.example:443", "blocked"),
        ("dns", "evil.example:443", "blocked"),
        ("connection", "registry.yarnpkg.com:443", "allowed"),
        ("connection", "54.185.253.63:443", "blocked"),
    ]
    assert events[2].reason == "GLOBAL_BLOCKLIST: ioc"
    assert [parent["name"] for parent in events[3].ancestry] == ["node", "bash", "Runner.Worker"]


@pytest.mark.parametrize("call", calls("/jobs/"), ids=lambda call: call["target"].rpartition("/")[2])
def test_telemetry_with_another_key_is_refused(store, call):
    assert send(call, store).status == 401
