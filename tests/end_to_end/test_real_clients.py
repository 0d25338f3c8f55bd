"""The public action and the public job hooks themselves, under Node, against `quickstart --tls`.

They are not part of this repository: `pytest --clients FOLDER` names where they are, as the README tells. FOLDER/action
holds the action's `dist`, FOLDER/hooks the job hooks with their built `dist`.
"""

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

pytestmark = [pytest.mark.clients, pytest.mark.browser]


@pytest.fixture(scope="module")
def clients(request):
    folder = Path(request.config.getoption("clients")).resolve()
    for path in ("action/dist/pre/index.js", "hooks/dist/pre.js", "hooks/dist/post.js"):
        assert (folder / path).exists(), f"--clients {folder} has no {path}; the README tells how to get it"
    return folder


def run_node(script, store, folder, **environment):
    said = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "NODE_EXTRA_CA_CERTS": str(store.authority),
        "GITHUB_RUN_ID": "9876543210",
        "GITHUB_JOB": "build",
        "GITHUB_WORKSPACE": str(folder),
        "RUNNER_ENVIRONMENT": "self-hosted",
        "RUNNER_TEMP": str(folder),
        "GITHUB_STATE": str(folder / "state"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        **environment,
    }
    for name in ("state", "summary.md"):
        (folder / name).touch()
    return subprocess.run(
        ["node", str(script)], env=said, cwd=folder, capture_output=True, text=True, timeout=90, check=False
    )


def run_action(clients, store, folder, *, repository, workflow="build.yml", environment=None, **inputs):
    """The configuration that the action ends with."""
    given = {
        "allowed-endpoints": "",
        "egress-policy": "block",
        "disable-telemetry": "false",
        "disable-sudo": "false",
        "disable-sudo-and-containers": "false",
        "disable-file-monitoring": "false",
        "policy": "",
        "api-key": "",
        "use-policy-store": "false",
        "deploy-on-self-hosted-vm": "false",
        **inputs,
    }
    done = run_node(
        clients / "action" / "dist" / "pre" / "index.js",
        store,
        folder,
        GITHUB_REPOSITORY=f"octo-org/{repository}",
        GITHUB_WORKFLOW_REF=f"octo-org/{repository}/.github/workflows/{workflow}@refs/heads/main",
        NODE_OPTIONS=f"--require {Path(__file__).parent / 'lead_to_store.cjs'}",
        STORE_UNDER_TEST=f"127.0.0.1:{store.port}",
        **{f"INPUT_{name.upper()}": value for name, value in given.items()},
        **(environment or {}),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.search(r"Current Configuration: \n(\{.*\})", done.stdout)
    assert told, done.stdout + done.stderr
    return json.loads(told.group(1)), done.stdout


STORE = {"use-policy-store": "true"}


def test_the_action_blocks_where_the_policy_blocks(clients, store, tmp_path):
    mode, said = run_action(clients, store, tmp_path, repository="blocked", **STORE, **{"api-key": store.key})
    assert "Policy found: blocking" in said
    assert (mode["egress_policy"], mode["allowed_endpoints"]) == ("block", "github.com:443 ghcr.io:443")
    assert (mode["disable_sudo"], mode["disable_telemetry"]) == (True, False)


def test_the_action_audits_where_the_policy_audits_whatever_the_workflow_says(clients, store, tmp_path):
    mode, said = run_action(clients, store, tmp_path, repository="audited", **STORE, **{"api-key": store.key})
    assert "Policy found: auditing" in said
    assert mode["egress_policy"] == "audit"


def test_the_workflows_own_policy_wins_even_with_a_space_in_its_name(clients, store, tmp_path):
    inputs = {**STORE, "api-key": store.key}
    mode, said = run_action(clients, store, tmp_path, repository="blocked", workflow="ci audit.yml", **inputs)
    assert "Policy found: for-ci" in said
    assert mode["egress_policy"] == "audit"


def test_without_a_policy_or_with_a_wrong_key_the_action_audits(clients, store, tmp_path):
    mode, said = run_action(clients, store, tmp_path, repository="other", **STORE, **{"api-key": store.key})
    assert ("No policy found" in said or "Policy not found" in said, mode["egress_policy"]) == (True, "audit")
    mode, _ = run_action(clients, store, tmp_path, repository="blocked", **STORE, **{"api-key": "ps_vm_wrong"})
    assert mode["egress_policy"] == "audit"


def test_the_policy_input_asks_with_githubs_token(clients, store, github, tmp_path):
    environment = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{github.address}/token?x=1",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request",
    }
    asked = {"repository": "any", "environment": environment}
    mode, _ = run_action(clients, store, tmp_path, policy="blocking", **asked)
    assert (mode["egress_policy"], mode["allowed_endpoints"]) == ("block", "github.com:443 ghcr.io:443")
    mode, _ = run_action(clients, store, tmp_path, policy="auditing", **asked)
    assert mode["egress_policy"] == "audit"


def run_hook(clients, store, folder, phase, *, repository, **environment):
    (folder / "agent").mkdir(exist_ok=True)
    done = run_node(
        clients / "hooks" / "dist" / f"{phase}.js",
        store,
        folder,
        GITHUB_REPOSITORY=f"octo-org/{repository}",
        GITHUB_WORKFLOW_REF=f"octo-org/{repository}/.github/workflows/build.yml@refs/heads/main",
        STEP_API=f"{store.address}/v1",
        STEP_TELEMETRY_URL=f"{store.address}/v1",
        STEP_API_KEY=store.key,
        STEP_AGENT_ROOT=str(folder / "agent"),
        **environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("repository", "mode"), [("blocked", "block"), ("audited", "audit"), ("other", "audit")])
def test_the_vm_hook_ends_in_the_policys_mode(clients, store, tmp_path, repository, mode):
    said = run_hook(clients, store, tmp_path, "pre", repository=repository, STEP_LINUX_HOOK_MODE="vm")
    told = json.loads((tmp_path / "agent" / "agent.json").read_text())
    assert told["egress_policy"] == mode
    assert told["has_prejob_policy"] is False
    if mode == "block":
        assert "Policy status=found name=blocking" in said
        assert (told["allowed_endpoints"], told["disable_sudo"]) == ("github.com:443 ghcr.io:443", True)


def test_the_arc_hook_waits_where_the_policy_blocks_until_it_is_fetched(clients, store, tmp_path):
    fetch = "/v1/github/octo-org/blocked/actions/policies/workflow-policy"
    asked = {"workflow": "build.yml", "run_id": "9876543210", "correlationId": "arc-runner-1"}
    headers = {"authorization": f"vm-api-key {store.key}"}
    agent = threading.Timer(2, lambda: store.browser.get(fetch, params=asked, headers=headers))
    agent.start()
    environment = {"STEP_LINUX_HOOK_MODE": "k8s", "RUNNER_NAME": "arc-runner-1"}
    said = run_hook(clients, store, tmp_path, "pre", repository="blocked", **environment)
    agent.join()
    assert "waiting for policy" in said
    assert "Policy applied successfully" in said
    done = run_hook(clients, store, tmp_path, "post", repository="blocked", **environment)
    summary = (tmp_path / "summary.md").read_text()
    assert "`blocking`" in summary, done
    assert "Repository `octo-org/blocked`" in summary


def test_the_arc_hook_does_not_wait_where_nothing_blocks(clients, store, tmp_path):
    environment = {"STEP_LINUX_HOOK_MODE": "k8s", "RUNNER_NAME": "arc-runner-2"}
    assert "Policy found" in run_hook(clients, store, tmp_path, "pre", repository="audited", **environment)
    assert "No policy configured" in run_hook(clients, store, tmp_path, "pre", repository="other", **environment)
