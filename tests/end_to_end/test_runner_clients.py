"""Runners over https against a whole store, through a client of this project's own under Node.

It asks, waits, tries again and falls back to audit as the public clients do; `test_real_clients.py` holds it against
them.
"""

import re

import pytest

from tests.end_to_end.store_for_clients import AUDIT, BLOCK, PAGES

pytestmark = [pytest.mark.browser, pytest.mark.needs_node]

ENDPOINTS = "github.com:443 ghcr.io:443"
SWITCHES = ("disable_sudo", "disable_sudo_and_containers", "disable_file_monitoring")
DYNAMIC = "octo-org/blocked/dynamic/github-code-scanning/codeql@refs/heads/main"


@pytest.mark.parametrize(
    ("repository", "job", "policy", "mode"),
    [
        ("blocked", {}, "blocking", "block"),
        ("audited", {}, "auditing", "audit"),
        ("blocked", {"workflow": "ci audit.yml"}, "for-ci", "audit"),
        ("Blocked", {"owner": "Octo-Org"}, "blocking", "block"),
        ("blocked", {"workflow_ref": DYNAMIC}, "blocking", "block"),
        ("blocked", {"workflow_ref": ""}, "blocking", "block"),
        ("blocked", {"workflow": "übel & gefährlich?.yml"}, "blocking", "block"),
    ],
)
@pytest.mark.parametrize("client", ["action", "vm-hook"])
def test_a_job_ends_in_the_mode_of_the_most_specific_policy(store, client, repository, job, policy, mode):
    told = store.ask(client, repository, **job)
    assert (told["policy"], told["ends"]["egress_policy"], told["statuses"]) == (policy, mode, [200])
    if mode == "block":
        assert told["ends"]["allowed_endpoints"] == ENDPOINTS
        assert [told["ends"][name] for name in SWITCHES] == [True, False, False]


def test_the_hooks_of_github_enterprise_server_find_the_organization_in_their_owner(store):
    told = store.ask("vm-hook", owner="customer::ghes.example.com::octo-org", newest=True)
    assert (told["policy"], told["ends"]["egress_policy"]) == ("blocking", "block")


def test_the_workflows_list_beats_the_stores_and_the_stores_switches_beat_the_workflows(store):
    inputs = {"allowed_endpoints": "example.com:443", "disable_sudo": False, "disable_file_monitoring": True}
    ends = store.ask("action", inputs=inputs)["ends"]
    assert (ends["egress_policy"], ends["allowed_endpoints"]) == ("block", "example.com:443")
    assert [ends[name] for name in SWITCHES] == [True, False, False]
    assert store.ask("action", "audited", inputs=inputs)["ends"]["egress_policy"] == "audit"


def test_no_policy_costs_one_request_and_a_wrong_key_is_tried_three_times_without_an_annotation(store):
    told = store.ask("action", "other")
    assert (told["ends"]["egress_policy"], told["statuses"]) == ("audit", [404])
    told = store.ask("action", key="ps_vm_wrong")
    assert (told["ends"]["egress_policy"], told["statuses"], told["annotated"]) == ("audit", [401] * 3, False)
    assert store.ask("vm-hook", "other")["statuses"] == [404]
    assert store.ask("vm-hook", key="ps_vm_wrong")["statuses"] == [401]


def test_keys_are_exchanged_without_a_gap(store):
    first, second = store.regenerate("primary", "arc"), store.regenerate("secondary", "arc")
    assert store.ask("vm-hook", key=second)["ends"]["egress_policy"] == "block"
    newest = store.regenerate("primary", "arc")
    answers = [store.ask("vm-hook", key=key)["statuses"] for key in (first, second, newest)]
    assert answers == [[401], [200], [200]]


def test_a_change_counts_for_the_very_next_job(store):
    policy_id = store.attach("changing", AUDIT, "repository:octo-org/changing")
    assert store.ask("action", "changing")["ends"]["egress_policy"] == "audit"
    store.edit(policy_id, "changed", BLOCK)
    told = store.ask("action", "changing")
    assert (told["policy"], told["ends"]["egress_policy"]) == ("changed", "block")
    store.post(f"{PAGES}/policy-store/{policy_id}/detach/", {})
    assert store.ask("action", "changing")["statuses"] == [404]


def test_the_policy_input_is_answered_to_tokens_of_the_owners_jobs_alone(store, github):
    told = store.ask("action", policy="blocking", token=github.token())
    assert (told["ends"]["egress_policy"], told["ends"]["allowed_endpoints"]) == ("block", ENDPOINTS)
    assert store.ask("action", policy="auditing", token=github.token())["ends"]["egress_policy"] == "audit"
    for token in (github.token(owner="others"), github.token(lifetime=-300), "no.token.atall"):
        told = store.ask("action", policy="blocking", token=token)
        # The action goes on in the workflow's own mode, with nothing allowed.
        assert (told["statuses"], told["ends"]["egress_policy"]) == ([401] * 3, "block")
        assert told["ends"]["allowed_endpoints"] == ""
    assert store.ask("action", policy="missing", token=github.token())["statuses"] == [404] * 3


def test_a_hosted_job_registers_tells_of_its_calls_and_shows_them_in_its_summary(store):
    moment = "2026-01-02T03:04:05.678901234Z"
    sunk = {"domainName": "evil.example.com.", "ipAddress": "54.185.253.63", "timestamp": moment}
    tool = {"name": "curl", "sha256": "0" * 64, "parent": {"name": "bash", "sha256": "1" * 64, "parent": None}}
    dropped = {"ipAddress": "203.0.113.7", "port": "443(https)", "timestamp": moment, "tool": tool, "status": "Dropped"}
    allowed = {"ipAddress": "140.82.121.3", "port": "443", "domainName": "github.com.", "timestamp": moment}
    calls = [
        ["dns", sunk],
        ["networkconnection", dropped],
        ["networkconnection", {**allowed, "tool": tool}],
    ]
    told = store.ask("action", github_hosted=True, calls=calls, lasts=True)
    assert told["monitor"]["status"] == 200
    assert told["agent"] == "community"
    assert told["telemetry"] == [200, 200, 200]
    assert "`blocking`" in told["summary"]
    assert "Repository `octo-org/blocked`" in told["summary"]
    assert "`evil.example.com" in told["summary"]
    assert "203.0.113.7" in told["summary"]
    assert "github.com:443" not in told["summary"]
    page = re.search(r"https://\S+/runs/\d+/", told["summary"]).group()
    assert "evil.example.com" in store.browser.get(page.removeprefix(store.address)).text


def test_the_arc_hook_waits_until_the_agent_has_fetched_a_policy_that_blocks(store):
    told = store.ask("arc-hook", runner_name="arc-1", agent_fetches_after=2, ends=True)
    assert told["ends"] == {"has_policy": True, "waited": "APPLIED"}
    assert told["waits"] >= 2
    assert set(told["statuses"]) == {200}
    assert "`blocking`" in told["summary"]


@pytest.mark.parametrize(("repository", "has_policy"), [("audited", True), ("other", False)])
@pytest.mark.parametrize("newest", [True, False])
def test_the_arc_hook_does_not_wait_where_nothing_blocks(store, repository, has_policy, newest):
    told = store.ask("arc-hook", repository, runner_name="arc-2", newest=newest)
    assert told["ends"] == {"has_policy": has_policy, "waited": None}
    assert told["requests"] == 2


CLUSTER = "/v1/clusters/prod-k8s"


def test_the_arc_hook_on_a_cluster_gets_the_policy_of_the_cluster(store):
    api = f"{store.address}{CLUSTER}"
    assert store.ask("arc-hook", "other", runner_name="arc-3")["ends"]["has_policy"] is False
    told = store.ask("arc-hook", "other", api=api, runner_name="arc-3", agent_fetches_after=1, ends=True)
    assert told["ends"] == {"has_policy": True, "waited": "APPLIED"}
    assert set(told["statuses"]) == {200}
    assert "`on-cluster`" in told["summary"]
    assert "Cluster `prod-k8s`" in told["summary"]


@pytest.mark.parametrize(
    ("repository", "workflow", "waits"),
    [("audited", "build.yml", False), ("blocked", "build.yml", True), ("blocked", "ci audit.yml", False)],
)
def test_a_repository_or_workflow_takes_precedence_over_the_cluster(store, repository, workflow, waits):
    job = {"runner_name": f"arc-{repository}-{len(workflow)}", "agent_fetches_after": 1, "ends": True}
    told = store.ask("arc-hook", repository, workflow, api=f"{store.address}{CLUSTER}", **job)
    assert told["ends"] == {"has_policy": True, "waited": "APPLIED" if waits else None}
    if waits:
        assert "`blocking`" in told["summary"]


@pytest.mark.parametrize(
    ("repository", "policy", "mode"),
    [("other", "on-cluster", "block"), ("audited", "auditing", "audit"), ("blocked", "blocking", "block")],
)
@pytest.mark.parametrize("client", ["action", "vm-hook"])
def test_each_client_takes_the_base_address_of_a_cluster(store, client, repository, policy, mode):
    told = store.ask(client, repository, api=f"{store.address}{CLUSTER}", github_hosted=client == "action")
    assert (told["policy"], told["ends"]["egress_policy"], told["statuses"][0]) == (policy, mode, 200)
    if client == "action":
        assert told["monitor"]["status"] == 200
        assert told["agent"] == "community"


def test_every_answer_comes_far_inside_the_clients_patience(store):
    job = "/v1/github/octo-org/blocked/actions"
    fetch = {"workflow": "build.yml", "run_id": "9876543210", "correlationId": "quick"}
    register = {"correlation_id": "quick", "job": "build"}
    headers = {"authorization": f"vm-api-key {store.key}"}
    asked = [
        lambda: store.browser.get(f"{job}/policies/workflow-policy", params=fetch, headers=headers),
        lambda: store.browser.get(f"{job}/policies/workflow-check", params={"workflow": "build.yml"}),
        lambda: store.browser.get(f"{job}/policies/workflow-policy/status", params={"correlation_id": "quick"}),
        lambda: store.browser.post(f"{job}/runs/1/monitor", json=register),
        lambda: store.browser.get(f"{job}/runs/1/correlation/quick/job-markdown-summary"),
        lambda: store.browser.get("/v1/github/octo-org/actions/tls-inspection-status"),
        lambda: store.browser.get("/v1/global-blocklist"),
        lambda: store.browser.head("/v1"),
    ]
    # The quickest of several: how busy the machine is says nothing about the store.
    quickest = [min(answer().elapsed.total_seconds() for _ in range(8)) for answer in asked]
    assert max(quickest) < 1
