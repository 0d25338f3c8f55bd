"""A client shaped like the public Terraform provider: what it sends, keeps as state, and compares with its plan.

It behaves as the provider's two policy store resources do: a policy is read back after each write and has to be what
was planned, letter by letter; an attachment is changed by a DELETE and a POST, and read back by the next refresh. Every
status but 200, 201 and 204 ends the run with an error, a read of what is gone included.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.runners.asking import ask

DETECTIONS = {
    "privileged_container": "Privileged-Container",
    "runner_worker_memory_read": "Runner-Worker-Memory-Read",
    "reverse_shell": "Reverse-Shell",
}
SWITCHES = ("disable_telemetry", "disable_sudo", "disable_file_monitoring")


class ApplyError(Exception):
    """What Terraform prints in red."""


def policy(owner, name, *, egress_policy="block", endpoints=("github.com:443",), lockdown=None, **switches):
    """A `stepsecurity_github_policy_store` as planned, with the provider's defaults."""
    return {
        "type": "policy",
        "owner": owner,
        "policy_name": name,
        "egress_policy": egress_policy,
        "allowed_endpoints": list(endpoints),
        **{switch: switches.get(switch, False) for switch in SWITCHES},
        "lockdown": lockdown and {"enabled": False, **dict.fromkeys(DETECTIONS, False), **lockdown},
    }


def attachment(owner, name, *, repositories=None, clusters=None, organization=False):
    """A `stepsecurity_github_policy_store_attachment` as planned; repositories are (name, workflows or None)."""
    planned = [
        {"name": repository, "apply_to_repo": not workflows, "workflows": workflows}
        for repository, workflows in repositories or []
    ]
    org = {"apply_to_org": not planned, "repositories": planned or None} if organization or planned else None
    return {"type": "attachment", "owner": owner, "policy_name": name, "org": org, "clusters": clusters}


@dataclass
class Terraform:
    """One workspace: `state` holds resources by name, as they were read or applied last."""

    key: str
    state: dict[str, dict] = field(default_factory=dict)

    def plan(self, config):
        """Refresh, then name what is not as configured, each with `create`, `update`, `replace` or `delete`."""
        self.state = {name: self._read(resource) for name, resource in self.state.items()}
        planned = {name: _action(self.state.get(name), resource) for name, resource in config.items()}
        gone = {name: "delete" for name in self.state if name not in config}
        return {name: action for name, action in {**planned, **gone}.items() if action}

    def apply(self, config):
        """Do what the plan says: attachments go before policies and come after them. Raises ApplyError."""
        plan = self.plan(config)
        gone = [name for name in plan if plan[name] in ("delete", "replace")]
        for name in sorted(gone, key=lambda name: self.state[name]["type"]):
            self._destroy(self.state[name])
            del self.state[name]
        written = [name for name in plan if plan[name] != "delete"]
        for name in sorted(written, key=lambda name: config[name]["type"], reverse=True):
            self._write(name, config[name], is_update=plan[name] == "update")

    def import_resource(self, name, kind, owner, policy_name):
        """`terraform import ADDRESS owner:::policy_name`."""
        self.state[name] = self._read({"type": kind, "owner": owner, "policy_name": policy_name})

    def _write(self, name, planned, *, is_update):
        if planned["type"] == "policy":
            self._send("POST", _path(planned), _policy_body(planned))
            written = self._read(planned)
            if written != planned:
                raise ApplyError(f"Provider produced inconsistent result after apply: {written} is not {planned}")
        else:
            if is_update:
                self._send("DELETE", f"{_path(planned)}/attach")
            self._send("POST", f"{_path(planned)}/attach", _attach_body(planned))
        self.state[name] = copy.deepcopy(planned)

    def _destroy(self, resource):
        self._send("DELETE", _path(resource) + ("" if resource["type"] == "policy" else "/attach"))

    def _read(self, resource):
        body = self._send("GET", _path(resource)).json()
        return _policy_state(body) if resource["type"] == "policy" else _attachment_state(body, resource)

    def _send(self, method, path, body=None):
        answer = ask(method, path, {"Authorization": f"Bearer {self.key}"}, body)
        if answer.status not in (200, 201, 204):
            raise ApplyError(f"status: {answer.status}, body: {json.dumps(answer.json(), ensure_ascii=False)}")
        return answer


def _action(known, planned):
    if known is None:
        return "create"
    if known == planned:
        return ""
    replaces = planned["type"] == "attachment" and any(known[key] != planned[key] for key in ("owner", "policy_name"))
    return "replace" if replaces else "update"


def _path(resource):
    return f"/v1/github/{quote(resource['owner'])}/actions/policies/{quote(resource['policy_name'])}"


def _policy_body(planned):
    body = {
        "owner": planned["owner"],
        "policyName": planned["policy_name"],
        "allowed_endpoints": planned["allowed_endpoints"] or None,
        "egress_policy": planned["egress_policy"],
        **{switch: planned[switch] for switch in SWITCHES},
    }
    if planned["lockdown"] is not None:
        chosen = [detection for name, detection in DETECTIONS.items() if planned["lockdown"][name]]
        body["lockdown"] = {"enabled": planned["lockdown"]["enabled"]} | ({"detections": chosen} if chosen else {})
    return body


def _policy_state(body):
    lockdown = body.get("lockdown")
    detections = set((lockdown or {}).get("detections") or ())
    return {
        "type": "policy",
        "owner": body["owner"],
        "policy_name": body["policyName"],
        "egress_policy": body["egress_policy"],
        "allowed_endpoints": body["allowed_endpoints"] or [],
        **{switch: body[switch] for switch in SWITCHES},
        "lockdown": lockdown
        and {
            "enabled": lockdown["enabled"],
            **{name: detection in detections for name, detection in DETECTIONS.items()},
        },
    }


def _attach_body(planned):
    body = {}
    if planned["org"]:
        repositories = planned["org"]["repositories"] or []
        body["org"] = {"name": planned["owner"], "apply_to_org": not repositories} | (
            {"repos": [_repository_body(repository) for repository in repositories]} if repositories else {}
        )
    if planned["clusters"]:
        body["clusters"] = planned["clusters"]
    return body


def _repository_body(repository):
    workflows = repository["workflows"]
    return {"name": repository["name"], "apply_to_repo": not workflows} | (
        {"workflows": workflows} if workflows else {}
    )


def _attachment_state(body, resource):
    attachments = body.get("attachments") or {}
    org = attachments.get("org")
    repositories = [
        {
            "name": repository["name"],
            "apply_to_repo": not repository.get("workflows"),
            "workflows": repository.get("workflows") or None,
        }
        for repository in (org or {}).get("repos") or ()
    ]
    return {
        "type": "attachment",
        "owner": resource["owner"],
        "policy_name": resource["policy_name"],
        "org": org and {"apply_to_org": org["apply_to_org"], "repositories": repositories or None},
        "clusters": attachments.get("clusters") or None,
    }
