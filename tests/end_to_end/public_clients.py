"""Runs the public action and the public job hooks as a runner does, each job in a folder of its own."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
INPUTS = {
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
    "token": "unused",
}
# The action tells an agent that is there already by running `echo`; this one takes down what it is told.
ECHO = '#!/bin/sh\nprintf "%s\\n" "$*" >> "$TOLD_THE_AGENT"\n'
# Nothing outside the job's folder is touched.
SUDO = '#!/bin/sh\ncase "$*" in */home/agent*) exit 0 ;; esac\nexec "$@"\n'
AGENT = """\
#!/bin/sh
# Stands in for the agent that the job hooks start: says that it is ready, and ends when it is told to.
[ "$1" = "-b" ] && { echo "[buildInfo] name=stand-in tag=v0.0.0"; exit 0; }
cp agent.json ../agent-was-given.json
echo ready > agent.status
trap 'exit 0' TERM
while :; do sleep 0.1; done
"""


@dataclass
class Ended:
    """How the action ended: its configuration, its log, and what it told an agent that was there already."""

    mode: dict
    said: str
    agent_was_told: list[str]
    state: dict[str, str]


class Runner:
    """A machine of one job."""

    def __init__(self, folder, store, *, address=None):
        self.folder = folder
        self.store = store
        self.address = address or f"127.0.0.1:{store.port}"
        self.fetch_address = f"https://{address}" if address else store.fetch_address
        self.summary = folder / "summary.md"
        for name in ("state", "summary.md", "told"):
            (folder / name).touch()
        (folder / "bin").mkdir()
        (folder / "agent").mkdir()
        for name, text in (("bin/echo", ECHO), ("bin/sudo", SUDO)):
            self._program(name, text)

    def _program(self, name, text):
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def node(self, script, *, repository, workflow="build.yml", may_fail=False, program="node", **environment):
        """Run a script of a client in a job's environment; its log."""
        said = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "USER": "runner",
            "TOLD_THE_AGENT": str(self.folder / "told"),
            "NODE_EXTRA_CA_CERTS": str(self.store.authority),
            "STORE_UNDER_TEST": self.address,
            "GITHUB_REPOSITORY": f"octo-org/{repository}",
            "GITHUB_WORKFLOW_REF": f"octo-org/{repository}/.github/workflows/{workflow}@refs/heads/main",
            "GITHUB_RUN_ID": "9876543210",
            "GITHUB_JOB": "build",
            "GITHUB_WORKSPACE": str(self.folder),
            "GITHUB_STATE": str(self.folder / "state"),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNNER_ENVIRONMENT": "self-hosted",
            "RUNNER_TEMP": str(self.folder),
            "RUNNER_TOOL_CACHE": str(self.folder),
            **environment,
        }
        done = subprocess.run(
            [program, str(script)], env=said, cwd=self.folder, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode in (0, int(may_fail)), done.stdout + done.stderr
        return done.stdout + done.stderr

    def action(self, action, phase="pre", *, environment=None, may_fail=False, **said):
        """Run a step of the action: `repository`, perhaps `workflow`, and inputs, named with underscores."""
        job = {name: said.pop(name) for name in ("repository", "workflow") if name in said}
        given = INPUTS | {name.replace("_", "-"): value for name, value in said.items()}
        log = self.node(
            action / "dist" / ("index.js" if phase == "main" else f"{phase}/index.js"),
            **job,
            may_fail=may_fail,
            NODE_OPTIONS=f"--require {HERE / 'lead_to_store.cjs'}",
            **{f"INPUT_{name.upper()}": value for name, value in given.items()},
            **(environment or {}),
        )
        told = re.search(r"Current Configuration: \n(\{.*\})", log)
        state = dict(line.split("=", 1) for line in (self.folder / "state").read_text().splitlines())
        agent_was_told = (self.folder / "told").read_text().splitlines()
        return Ended(json.loads(told.group(1)) if told else {}, log, agent_was_told, state)

    def hook(self, hooks, phase, *, repository, workflow="build.yml", base="/v1", **environment):
        """Run a job hook; its log. `base` is the path of the store's address that it is given."""
        return self.node(
            hooks / "dist" / f"{phase}.js",
            repository=repository,
            workflow=workflow,
            STEP_API=f"{self.fetch_address}{base}",
            STEP_TELEMETRY_URL=f"https://{self.address}{base}",
            STEP_AGENT_ROOT=str(self.folder / "agent"),
            **{"STEP_API_KEY": self.store.key, **environment},
        )

    def has_an_agent(self):
        """From now on the job hooks find an agent to start."""
        self._program("agent/agent", AGENT)

    @property
    def agent_configuration(self):
        """What the job hook wrote for the agent."""
        started = self.folder / "agent-was-given.json"
        return json.loads((started if started.exists() else self.folder / "agent" / "agent.json").read_text())
