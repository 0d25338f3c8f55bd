"""The policy document: the YAML text of a policy, checked, and the reply that runners get from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

from policystore.documents import lint
from policystore.documents.entries import Entry, clean
from policystore.documents.entry_list import read_entries
from policystore.documents.problems import Problem, error
from policystore.documents.words import DETECTION_TYPES, SWITCHES, closest_hint, unknown_key
from policystore.documents.yaml_guard import MAX_PROBLEMS, Mapping, Node, Scalar, Sequence, read, surprise

__all__ = [
    "DETECTION_TYPES",
    "CheckedDocument",
    "Lockdown",
    "PolicyDocument",
    "check",
    "compile_reply",
    "written_endpoints",
]


@dataclass(frozen=True, slots=True)
class Lockdown:
    """Whether a job is ended when one of these detections is made on it."""

    enabled: bool
    detections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A policy as its text says it; `allowed_endpoints` are clean `host:port`, each once, in the order written."""

    text: str
    egress_policy: str
    allowed_endpoints: tuple[str, ...]
    disable_sudo: bool
    disable_sudo_and_containers: bool
    disable_file_monitoring: bool
    disable_telemetry: bool
    lockdown: Lockdown | None


@dataclass(frozen=True, slots=True)
class CheckedDocument:
    """The document (None when there is any error) and all problems, errors and warnings, by position."""

    document: PolicyDocument | None
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that stop a save."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that do not."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")


def check(text: str, *, scope_types: Collection[str] = ()) -> CheckedDocument:
    """Read a policy's text and report every problem at once. Never raises.

    `scope_types` are the types of scope that the policy is attached to, as far as they are known.
    """
    root, problems = read(text)
    if root is None:
        return CheckedDocument(None, tuple(problems or [_empty()]))
    if len(problems) > MAX_PROBLEMS:
        return CheckedDocument(None, tuple(problems))
    reading = _Reading(text, problems)
    reading.document(root)
    problems += lint.doubts(reading, scope_types)
    problems.sort(key=lambda problem: (problem.line, problem.column, problem.severity))
    if any(problem.severity == "error" for problem in problems):
        return CheckedDocument(None, tuple(problems))
    return CheckedDocument(reading.result(), tuple(problems))


def written_endpoints(text: str) -> list[str]:
    """The entries of `allowed-endpoints` as they stand in the text, neither cleaned nor made unique; [] if broken."""
    root, _ = read(text)
    if not isinstance(root, Mapping):
        return []
    entries = [
        entry for key, value in root.pairs if key.value == "allowed-endpoints" for entry in _entries(text, value)
    ]
    return [entry.text for entry in entries]


def _entries(text: str, value: Node) -> list[Entry]:
    return read_entries(text, value)[0]


def compile_reply(document: PolicyDocument, *, owner: str, name: str) -> str:
    """The JSON text that runners get: the shape that the clients demand, `lockdown` only where it is set."""
    reply: dict[str, object] = {
        "policy_name": name,
        "owner": owner,
        "policyName": name,
        "allowed_endpoints": list(document.allowed_endpoints),
        "egress_policy": document.egress_policy,
        "disable_sudo": document.disable_sudo,
        "disable_sudo_and_containers": document.disable_sudo_and_containers,
        "disable_file_monitoring": document.disable_file_monitoring,
        "disable_telemetry": document.disable_telemetry,
    }
    if document.lockdown is not None:
        lockdown = document.lockdown
        reply["lockdown"] = {"enabled": lockdown.enabled, "detections": list(lockdown.detections)}
    return json.dumps(reply, separators=(",", ":"))


def _empty() -> Problem:
    hint = "Write at least egress-policy: audit or egress-policy: block."
    return error(1, 1, "empty-document", "The policy says nothing.", hint)


class _Reading:
    """What has been read of a document so far; problems are added to the list it was given."""

    def __init__(self, text: str, problems: list[Problem]) -> None:
        self.text = text
        self.problems = problems
        self.egress_policy: str | None = None
        self.egress_at = (1, 1)
        self.endpoints: dict[str, None] = {}
        self.endpoints_at: tuple[int, int] | None = None
        self.switches: dict[str, bool] = {}
        self.lockdown: Lockdown | None = None
        self.lockdown_at = (1, 1)
        self._readers: dict[str, Callable[[Scalar, Node], None]] = {
            "egress-policy": self._read_egress_policy,
            "allowed-endpoints": self._read_endpoints,
            "lockdown-mode": self._read_lockdown,
            **dict.fromkeys(SWITCHES, self._read_switch),
        }

    def result(self) -> PolicyDocument:
        return PolicyDocument(
            text=self.text,
            # A policy that says nothing of egress, such as an exemption from lockdown, must not start to block.
            egress_policy=self.egress_policy or "audit",
            allowed_endpoints=tuple(self.endpoints),
            disable_sudo=self.switches.get("disable-sudo", False),
            disable_sudo_and_containers=self.switches.get("disable-sudo-and-containers", False),
            disable_file_monitoring=self.switches.get("disable-file-monitoring", False),
            disable_telemetry=self.switches.get("disable-telemetry", False),
            lockdown=self.lockdown,
        )

    def document(self, root: Node) -> None:
        if not isinstance(root, Mapping):
            hint = "Write keys and values, such as egress-policy: block; of a workflow, only what is below with:."
            self._error(root, "no-mapping", "A policy is a set of keys with values.", hint)
            return
        if not root.pairs:
            self.problems.append(_empty())
        for key, value in root.pairs:
            reader = self._readers.get(key.value)
            if reader is not None:
                reader(key, value)
            elif key.value != "<<":
                self.problems.append(unknown_key(key, self._readers))
            if len(self.problems) > MAX_PROBLEMS:
                return

    def _error(self, node: Node, code: str, message: str, hint: str = "") -> None:
        self.problems.append(error(node.line, node.column, code, message, hint))

    def _scalar(self, key: Scalar, value: Node, right: str) -> Scalar | None:
        if not isinstance(value, Scalar):
            self._error(value, "wrong-type", f"{key.value} takes a single value.", right)
            return None
        if value.value.strip() == "":
            self._error(value if value.style else key, "missing-value", f"{key.value} has no value.", right)
            return None
        seen = surprise(value)
        if seen is not None:
            message = f"YAML reads {value.value[:60]} as {seen}."
            self._error(value, "surprising-value", message, right)
            return None
        return value

    def _read_egress_policy(self, key: Scalar, value: Node) -> None:
        self.egress_at = (value.line, value.column)
        node = self._scalar(key, value, "Write audit or block.")
        if node is None:
            return
        if node.value not in ("audit", "block"):
            hint = closest_hint(node.value, ("audit", "block")) or "Write audit or block."
            self._error(node, "unknown-egress-policy", f"{node.value[:60]} is no egress policy.", hint)
            return
        self.egress_policy = node.value

    def _read_switch(self, key: Scalar, value: Node) -> None:
        switch = self._switch(key, value)
        if switch is not None:
            self.switches[key.value] = switch

    def _switch(self, key: Scalar, value: Node) -> bool | None:
        node = self._scalar(key, value, "Write true or false.")
        if node is None:
            return None
        if node.value not in _SWITCH_WORDS:
            self._error(node, "no-switch", f"{node.value[:60]} is neither true nor false.", "Write true or false.")
            return None
        return _SWITCH_WORDS[node.value]

    def _read_endpoints(self, key: Scalar, value: Node) -> None:
        self.endpoints_at = (key.line, key.column)
        entries, problems = read_entries(self.text, value)
        self.problems += problems
        lines: dict[str, int] = {}
        wildcard_ports: dict[str, str] = {}
        for entry in entries:
            endpoint, found = clean(entry)
            self.problems += found
            if endpoint is None:
                continue
            self.problems += lint.repeated(entry, endpoint, lines, wildcard_ports)
            lines.setdefault(endpoint, entry.line)
            self.endpoints.setdefault(endpoint)

    def _read_lockdown(self, key: Scalar, value: Node) -> None:
        self.lockdown_at = (key.line, key.column)
        if not isinstance(value, Mapping):
            hint = "Write enabled: true and a list of detections below it."
            self._error(key, "wrong-type", "lockdown-mode takes the keys enabled and detections.", hint)
            return
        enabled: bool | None = None
        detections: tuple[str, ...] = ()
        for inner, node in value.pairs:
            if inner.value == "enabled":
                enabled = self._switch(inner, node)
            elif inner.value == "detections":
                detections = self._detections(node)
            elif inner.value != "<<":
                self.problems.append(unknown_key(inner, ("enabled", "detections"), of="lockdown-mode"))
        if all(inner.value != "enabled" for inner, _ in value.pairs):
            self._error(key, "missing-key", "lockdown-mode does not say whether it is enabled.", "Add enabled: true.")
        if enabled is not None:
            self.lockdown = Lockdown(enabled, detections)

    def _detections(self, node: Node) -> tuple[str, ...]:
        if isinstance(node, Scalar) and node.value == "" and node.style is None:
            return ()
        if not isinstance(node, Sequence):
            hint = "Write each detection in a line of its own, after a hyphen."
            self._error(node, "wrong-type", "detections takes a list.", hint)
            return ()
        found: dict[str, None] = {}
        for item in node.items:
            if isinstance(item, Scalar) and item.value in DETECTION_TYPES:
                found.setdefault(item.value)
                continue
            name = item.value[:60] if isinstance(item, Scalar) else "This"
            hint = closest_hint(name, DETECTION_TYPES) or f"Known ones: {', '.join(DETECTION_TYPES)}."
            self._error(item, "unknown-detection", f"{name} is no detection that lockdown mode knows.", hint)
        return tuple(found)


_SWITCH_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
