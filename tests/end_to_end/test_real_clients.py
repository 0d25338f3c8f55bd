"""The public action and the public job hooks themselves, under Node, against `quickstart --tls`.

They are not part of this repository: `pytest --clients FOLDER` names where they are (see CONTRIBUTING). FOLDER/action
holds the action's `dist`, and so does each further FOLDER/action-… (another version of it); FOLDER/hooks holds the job
hooks with their built `dist`.
"""

import base64
import getpass
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.end_to_end.public_clients import Runner
from tests.end_to_end.store_for_clients import BLOCK, PAGES

pytestmark = [pytest.mark.clients, pytest.mark.browser]

ENDPOINTS = "github.com:443 ghcr.io:443"


def pytest_generate_tests(metafunc):
    """Each test of the action runs with each version that is there."""
    if "action" in metafunc.fixturenames:
        folder = Path(metafunc.config.getoption("clients") or ".").resolve()
        versions = sorted(path for path in folder.glob("action*") if (path / "dist").is_dir())
        metafunc.parametrize("action", versions or [folder / "action"], ids=lambda path: path.name)


@pytest.fixture
def hooks(request):
    folder = Path(request.config.getoption("clients")).resolve() / "hooks"
    assert (folder / "dist" / "pre.js").exists(), f"{folder} has no dist/pre.js; CONTRIBUTING describes how to build it"
    return folder


@pytest.fixture
def runner(tmp_path, store):
    return Runner(tmp_path, store)


@pytest.fixture
def asks(store):
    """The inputs with which a workflow asks the store."""
    return {"use_policy_store": "true", "api_key": store.key}


def test_the_action_blocks_where_the_policy_blocks(action, runner, asks):
    ended = runner.action(action, repository="blocked", **asks)
    assert "Policy found: blocking" in ended.said
    assert (ended.mode["egress_policy"], ended.mode["allowed_endpoints"]) == ("block", ENDPOINTS)
    assert (ended.mode["disable_sudo"], ended.mode["disable_telemetry"]) == (True, False)
    # What counts in the end: an agent that is on the machine is told each endpoint, and to apply them.
    entries = [base64.b64encode(entry.encode()).decode() for entry in ENDPOINTS.split()]
    told = [*(f"step_policy_endpoint_{entry}" for entry in entries), "step_policy_apply_2"]
    assert ended.agent_was_told == told


def test_the_action_audits_where_the_policy_audits_whatever_the_workflow_says(action, runner, asks):
    ended = runner.action(action, repository="audited", **asks)
    assert "Policy found: auditing" in ended.said
    assert (ended.mode["egress_policy"], ended.agent_was_told) == ("audit", [])


def test_the_workflows_own_policy_wins_even_with_a_space_in_its_name(action, runner, asks):
    ended = runner.action(action, repository="blocked", workflow="ci audit.yml", **asks)
    assert "Policy found: for-ci" in ended.said
    assert ended.mode["egress_policy"] == "audit"


@pytest.mark.parametrize(("repository", "key"), [("other", None), ("blocked", "ps_vm_wrong")])
def test_without_a_policy_or_with_a_wrong_key_the_action_audits(action, runner, asks, repository, key):
    ended = runner.action(action, repository=repository, **asks | ({"api_key": key} if key else {}))
    assert "No policy found" in ended.said or "Policy not found" in ended.said
    assert (ended.mode["egress_policy"], ended.agent_was_told) == ("audit", [])


@pytest.mark.parametrize(("policy", "mode"), [("blocking", "block"), ("auditing", "audit")])
def test_the_policy_input_asks_with_githubs_token(action, runner, github, policy, mode):
    environment = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{github.address}/token?x=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request",
    }
    ended = runner.action(action, repository="any", policy=policy, environment=environment)
    assert ended.mode["egress_policy"] == mode
    assert ended.mode["allowed_endpoints"] == (ENDPOINTS if mode == "block" else "github.com:443")


def test_on_a_hosted_runner_the_action_registers_the_job_and_shows_the_summary(action, runner, store, asks):
    hosted = {"RUNNER_ENVIRONMENT": "github-hosted"}
    ended = runner.action(action, repository="blocked", environment=hosted, **asks)
    assert ended.mode["egress_policy"] == "block"
    assert "TLS_NOT_ENABLED: octo-org" in ended.said
    assert (ended.state["monitorStatusCode"], ended.state["addSummary"]) == ("200", "true")

    # The agent would have got its key from the same call, which gives it again.
    base = "/v1/github/octo-org/blocked/actions"
    job = ended.state["correlation_id"]
    registered = store.browser.post(f"{base}/runs/9876543210/monitor", json={"correlation_id": job, "job": "build"})
    event = {"domainName": "evil.example.com.", "ipAddress": "54.185.253.63", "timestamp": "2026-01-02T03:04:05Z"}
    key = {"x-one-time-key": registered.json()["one_time_key"]}
    assert store.browser.post(f"{base}/jobs/{job}/dns", json=event, headers=key).status_code == 200

    (runner.folder / "agent" / "done.json").write_text("{}")
    store.wait_until_recorded(job)
    told = hosted | {f"STATE_{name}": value for name, value in ended.state.items()}
    assert "actions/runs/9876543210" in runner.action(action, "main", repository="blocked", environment=told).said
    after = runner.action(action, "post", repository="blocked", environment=told)
    assert "`blocking`" in runner.summary.read_text(), after.said
    assert "evil.example.com" in runner.summary.read_text()


@pytest.mark.parametrize(("repository", "mode"), [("blocked", "block"), ("audited", "audit"), ("other", "audit")])
def test_the_vm_hook_starts_the_agent_in_the_policys_mode(hooks, runner, repository, mode):
    runner.has_an_agent()
    said = runner.hook(hooks, "pre", repository=repository, STEP_LINUX_HOOK_MODE="vm")
    assert "process=init status=ready" in said
    told = runner.agent_configuration
    assert (told["egress_policy"], told["api_url"]) == (mode, f"{runner.store.fetch_address}/v1")
    if mode == "block":
        assert "Policy status=found name=blocking" in said
        assert (told["allowed_endpoints"], told["disable_sudo"]) == (ENDPOINTS, True)
    runner.store.wait_until_recorded(told["correlation_id"])
    done = runner.hook(hooks, "post", repository=repository, STEP_LINUX_HOOK_MODE="vm")
    assert "runtime=vm status=completed" in done
    summary = runner.summary.read_text()
    assert ("No policy applied" if repository == "other" else mode.capitalize()) in summary, done


def test_the_installation_script_makes_every_job_of_a_machine_ask(hooks, runner, store):
    runner.has_an_agent()
    page = f"{PAGES}/settings/harden-runner-installation/job-hooks/install-job-hooks.sh"
    script = store.browser.get(page).text
    for path, name in {"/opt/step-security": "hooks", "/home/agent": "agent"}.items():
        assert path in script
        script = script.replace(path, str(runner.folder / name))
    (runner.folder / ".env").write_text("LANG=C.UTF-8")
    (runner.folder / "install.sh").write_text(script)
    said = {"STEP_API_KEY": store.key, "RUNNER_USER": getpass.getuser(), "CA_FILE": str(store.authority)}
    said |= {"HOOKS_URL": (hooks / "dist").as_uri(), "PATH": os.environ["PATH"], "RUNNER_FOLDER": str(runner.folder)}
    command = ["bash", str(runner.folder / "install.sh")]
    for _ in range(2):
        done = subprocess.run(command, env=said, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert "The store answers" in done.stdout
    others, started, completed = (runner.folder / ".env").read_text().splitlines()
    assert others == "LANG=C.UTF-8"
    assert completed.startswith("ACTIONS_RUNNER_HOOK_JOB_COMPLETED=")
    hook = started.removeprefix("ACTIONS_RUNNER_HOOK_JOB_STARTED=")
    job = {"program": "bash", "repository": "blocked", "STEP_AGENT_ROOT": str(runner.folder / "agent")}
    said = runner.node(hook, **job)
    assert "Policy status=found name=blocking" in said
    assert runner.agent_configuration["egress_policy"] == "block"
    store.wait_until_recorded(runner.agent_configuration["correlation_id"])
    runner.node(completed.split("=", 1)[1], **job)
    assert "`blocking`" in runner.summary.read_text()


def test_the_vm_hook_audits_with_a_wrong_key(hooks, runner):
    said = runner.hook(hooks, "pre", repository="blocked", STEP_LINUX_HOOK_MODE="vm", STEP_API_KEY="ps_vm_wrong")
    assert "status=fetch-failed fallback=audit" in said
    assert runner.agent_configuration["egress_policy"] == "audit"


def test_the_arc_hook_waits_where_the_policy_blocks_until_it_is_fetched(hooks, runner, store):
    fetch = "/v1/github/octo-org/blocked/actions/policies/workflow-policy"
    asked = {"workflow": "build.yml", "run_id": "9876543210", "correlationId": "arc-runner-1"}
    headers = {"authorization": f"vm-api-key {store.key}"}
    agent = threading.Timer(2, lambda: store.browser.get(fetch, params=asked, headers=headers))
    agent.start()
    environment = {"STEP_LINUX_HOOK_MODE": "k8s", "RUNNER_NAME": "arc-runner-1"}
    said = runner.hook(hooks, "pre", repository="blocked", **environment)
    agent.join()
    assert "waiting for policy" in said
    assert "Policy applied successfully" in said
    done = runner.hook(hooks, "post", repository="blocked", **environment)
    summary = runner.summary.read_text()
    assert "`blocking`" in summary, done
    assert "Repository `octo-org/blocked`" in summary


CLUSTER = "/v1/clusters/prod-k8s"


def fetching_agent(store, runner_name, repository, workflow="build.yml"):
    """An agent of the cluster that fetches the job's policy two seconds from now."""
    asked = {"workflow": workflow, "run_id": "9876543210", "correlationId": runner_name}
    fetch = f"{CLUSTER}/github/octo-org/{repository}/actions/policies/workflow-policy"
    headers = {"authorization": f"vm-api-key {store.key}"}
    timer = threading.Timer(2, lambda: store.browser.get(fetch, params=asked, headers=headers))
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("repository", "workflow", "policy", "scope", "blocks"),
    [
        ("other", "build.yml", "on-cluster", "Cluster `prod-k8s`", True),
        ("blocked", "build.yml", "blocking", "Repository `octo-org/blocked`", True),
        ("audited", "build.yml", "auditing", "Repository `octo-org/audited`", False),
        ("blocked", "ci audit.yml", "for-ci", "Workflow `octo-org/blocked/ci audit.yml`", False),
    ],
)
def test_the_arc_hook_with_the_base_address_of_a_cluster(
    hooks, runner, store, repository, workflow, policy, scope, blocks
):
    name = f"arc-{policy}"
    environment = {"STEP_LINUX_HOOK_MODE": "k8s", "RUNNER_NAME": name, "base": CLUSTER, "workflow": workflow}
    agent = fetching_agent(store, name, repository, workflow)
    said = runner.hook(hooks, "pre", repository=repository, **environment)
    agent.join()
    assert "Policy found" in said
    assert ("Policy applied successfully" in said) is blocks
    store.wait_until_recorded(name)
    done = runner.hook(hooks, "post", repository=repository, **environment)
    summary = runner.summary.read_text()
    assert f"`{policy}`" in summary, done
    assert scope in summary


def test_the_arc_hook_without_a_cluster_does_not_get_its_policy(hooks, runner):
    environment = {"STEP_LINUX_HOOK_MODE": "k8s", "RUNNER_NAME": "arc-none"}
    assert "No policy configured" in runner.hook(hooks, "pre", repository="other", **environment)


@pytest.mark.parametrize(("repository", "policy"), [("other", "on-cluster"), ("blocked", "blocking")])
def test_the_vm_hook_with_the_base_address_of_a_cluster(hooks, runner, repository, policy):
    runner.has_an_agent()
    said = runner.hook(hooks, "pre", repository=repository, base=CLUSTER, STEP_LINUX_HOOK_MODE="vm")
    assert f"Policy status=found name={policy}" in said
    told = runner.agent_configuration
    assert (told["egress_policy"], told["api_url"]) == ("block", f"{runner.store.fetch_address}{CLUSTER}")
    runner.store.wait_until_recorded(told["correlation_id"])
    runner.hook(hooks, "post", repository=repository, base=CLUSTER, STEP_LINUX_HOOK_MODE="vm")
    assert f"`{policy}`" in runner.summary.read_text()


def test_an_organization_wide_policy_reaches_the_vm_and_the_arc_hook(hooks, runner, store):
    policy_id = store.attach("for-all", BLOCK, "organization:octo-org")
    try:
        said = runner.hook(hooks, "pre", repository="other", STEP_LINUX_HOOK_MODE="vm")
        assert "Policy status=found name=for-all" in said
        agent = fetching_agent(store, "arc-organization", "other")
        environment = {"STEP_LINUX_HOOK_MODE": "k8s", "RUNNER_NAME": "arc-organization", "base": CLUSTER}
        assert "Policy applied successfully" in runner.hook(hooks, "pre", repository="other", **environment)
        agent.join()
        store.wait_until_recorded("arc-organization")
        runner.hook(hooks, "post", repository="other", **environment)
        # The organization takes precedence over the cluster.
        assert "Organization `octo-org`" in runner.summary.read_text()
    finally:
        store.post(f"{PAGES}/policy-store/{policy_id}/detach/", {})


def test_the_arc_hook_does_not_wait_where_nothing_blocks(hooks, runner):
    environment = {"STEP_LINUX_HOOK_MODE": "k8s", "RUNNER_NAME": "arc-runner-2"}
    assert "Policy found" in runner.hook(hooks, "pre", repository="audited", **environment)
    assert "No policy configured" in runner.hook(hooks, "pre", repository="other", **environment)
