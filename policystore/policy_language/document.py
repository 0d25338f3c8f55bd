"""The policy document: the YAML text of a policy, checked, and the reply that runners get from it.

Its own endpoints and those of its endpoint sets make one list, without what the organization never allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Mapping as Values
from dataclasses import dataclass
from typing import Any

from policystore.policy_language import endpoint_sets, lint, values
from policystore.policy_language.endpoint_parser import read_entries
from policystore.policy_language.endpoint_sets import KnownSets
from policystore.policy_language.lint import Lockdown
from policystore.policy_language.never_allow import NOTHING_REFUSED, NeverAllow
from policystore.policy_language.problems import START, Problem, error, quoted
from policystore.policy_language.values import (
    DETECTION_TYPES,
    SWITCH_FIELDS,
    SWITCHES,
    closest_hint,
    is_expression,
    switch,
    unevaluated,
    unknown_key,
)
from policystore.policy_language.yaml_reader import MAX_PROBLEMS, Mapping, Node, Scalar, is_merge_key, read
from policystore.policy_language.yaml_reader import Sequence as ListNode

_BEGINNING = '{"policy_name":"'


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A parsed policy; `allowed_endpoints` are clean `host:port`, each once, in the order of the text.

    `endpoint_sets` are the names of the sets that it includes, as written, each once, without their endpoints.
    """

    text: str
    egress_policy: str
    allowed_endpoints: tuple[str, ...]
    endpoint_sets: tuple[str, ...]
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


def check(
    text: str,
    *,
    scope_types: Collection[str] = (),
    sets: KnownSets | None = None,
    never_allow: NeverAllow = NOTHING_REFUSED,
    stores: Collection[str] = (),
) -> CheckedDocument:
    """Read a policy's text and report every problem at once. Never raises.

    `scope_types` are the types of scope that the policy is attached to, as far as they are known; `sets` are the
    endpoint sets that it may include, None to skip their checks; an endpoint that `never_allow` refuses is an error.
    `stores` are the addresses, as `host:port`, at which jobs reach this store.
    """
    root, problems = read(text)
    if root is None or (isinstance(root, Scalar) and root.style is None and root.value == ""):
        return CheckedDocument(None, tuple(problems or [_empty()]))
    if len(problems) > MAX_PROBLEMS:
        return CheckedDocument(None, tuple(problems))
    reading = _Reading(text, problems, never_allow)
    reading.document(root)
    if sets is not None:
        reading.compare_with(sets)
    problems += lint.doubts(reading, scope_types, stores)
    problems.sort(key=lambda problem: (problem.line, problem.column, problem.severity))
    if any(problem.severity == "error" for problem in problems):
        return CheckedDocument(None, tuple(problems))
    return CheckedDocument(reading.result(), tuple(problems))


def written_endpoints(text: str) -> list[str]:
    """The entries of `allowed-endpoints` as they are in the text, neither cleaned nor made unique; [] if broken."""
    root, _ = read(text)
    if not isinstance(root, Mapping):
        return []
    lists = [read_entries(text, value)[0] for key, value in root.pairs if key.value == "allowed-endpoints"]
    return [entry.text for entries in lists for entry in entries]


def compile_reply(document: PolicyDocument, *, owner: str, name: str, endpoints: Iterable[str] | None = None) -> str:
    """Serialize the JSON that runners get, in the shape that clients require; `lockdown` only if it is set.

    `endpoints` is the complete list if it differs from the document's own, as with endpoint sets.
    """
    reply: dict[str, object] = {
        "policy_name": name,
        "owner": owner,
        "policyName": name,
        "allowed_endpoints": list(document.allowed_endpoints if endpoints is None else endpoints),
        "egress_policy": document.egress_policy,
        **{field: getattr(document, field) for field in SWITCH_FIELDS},
    }
    if document.lockdown is not None:
        lockdown = document.lockdown
        reply["lockdown"] = {"enabled": lockdown.enabled, "detections": list(lockdown.detections)}
    return json.dumps(reply, separators=(",", ":"))


def read_reply(reply: str) -> dict[str, Any]:
    """Decode a stored reply, to show or compare its values.

    It has no endpoints if the text is not a compiled reply, as after an edit of the database.
    """
    try:
        values = json.loads(reply)
    except (ValueError, RecursionError):
        return {"allowed_endpoints": []}
    is_compiled = isinstance(values, dict) and isinstance(values.get("allowed_endpoints"), list)
    return values if is_compiled else {"allowed_endpoints": []}


def looks_compiled(reply: str) -> bool:
    """True if a text begins and ends like a compiled reply whose policy name is not empty.

    Cheap enough to run on every fetch.
    """
    return reply.startswith(_BEGINNING) and not reply.startswith(f'{_BEGINNING}"') and reply.endswith("}")


def renamed(reply: str, name: str) -> str:
    """A compiled reply under another name of its policy."""
    return json.dumps({**read_reply(reply), "policy_name": name, "policyName": name}, separators=(",", ":"))


def audited(reply: str) -> str:
    """A compiled reply with audit for its egress policy and everything else as it is."""
    return json.dumps({**json.loads(reply), "egress_policy": "audit"}, separators=(",", ":"))


def _empty() -> Problem:
    hint = "Enter at least egress-policy: audit or egress-policy: block."
    return error(START, "empty-document", "The policy is empty.", hint)


class _Reading(lint.Reading):
    """Reads the parts of a document; problems are appended to the list passed in."""

    def __init__(self, text: str, problems: list[Problem], never_allow: NeverAllow) -> None:
        super().__init__(problems)
        self.text = text
        self.never_allow = never_allow
        self.wildcard_ports: dict[str, str] = {}
        self._readers: dict[str, Callable[[Scalar, Node], None]] = {
            "egress-policy": self._read_egress_policy,
            "allowed-endpoints": self._read_endpoints,
            endpoint_sets.KEY: self._read_sets,
            "lockdown-mode": self._read_lockdown,
            **dict.fromkeys(SWITCHES, self._read_switch),
        }

    def result(self) -> PolicyDocument:
        return PolicyDocument(
            text=self.text,
            # A policy without endpoints or mode, such as an exemption from lockdown, must not start to block.
            egress_policy=self.egress_policy or "audit",
            allowed_endpoints=tuple(self.endpoints),
            endpoint_sets=tuple(entry.text for entry in self.set_names),
            lockdown=self.lockdown,
            **{field: self.switches.get(key, False) for key, field in zip(SWITCHES, SWITCH_FIELDS, strict=True)},
        )

    def document(self, root: Node) -> None:
        if not isinstance(root, Mapping):
            hint = "Enter keys and values, for example egress-policy: block. Of a workflow, paste what is below with:."
            self._error(root, "no-mapping", "A policy must consist of keys and values.", hint)
            return
        if not root.pairs:
            self.problems.append(_empty())
        errors = 0
        for key, value in root.pairs:
            known = len(self.problems)
            reader = self._readers.get(key.value)
            if reader is not None:
                reader(key, value)
            elif not is_merge_key(key):
                self.problems.append(unknown_key(key, self._readers))
            # Warnings do not stop a save, so the lines below them must be read, however many they are.
            errors += sum(problem.severity == "error" for problem in self.problems[known:])
            if errors > MAX_PROBLEMS:
                return

    def _error(self, node: Node, code: str, message: str, hint: str = "") -> None:
        self.problems.append(error(node, code, message, hint))

    def _read_egress_policy(self, key: Scalar, value: Node) -> None:
        self.egress_at = value
        node, problems = values.word(key, value, "Enter audit or block.")
        self.problems += problems
        if node is None:
            return
        if node.value not in ("audit", "block"):
            hint = closest_hint(node.value, ("audit", "block")) or "Enter audit or block."
            self._error(node, "unknown-egress-policy", f"{quoted(node.value)} is not a valid egress policy.", hint)
            return
        self.egress_policy = node.value

    def _read_switch(self, key: Scalar, value: Node) -> None:
        switch, problems = values.switch(key, value)
        self.problems += problems
        if switch is not None:
            self.switches[key.value] = switch

    def _read_endpoints(self, key: Scalar, value: Node) -> None:
        self.endpoints_at = key
        entries, problems = read_entries(self.text, value)
        found, more = lint.clean_all(entries, self.never_allow, self.wildcard_ports)
        self.problems += [*problems, *more]
        for endpoint, entry in found.items():
            self.endpoints.setdefault(endpoint)
            self.entries.setdefault(endpoint, lint.Listed(entry))

    def _read_sets(self, key: Scalar, value: Node) -> None:
        self.sets_at = key
        self.set_names, problems = endpoint_sets.read_names(self.text, value)
        self.problems += problems

    def compare_with(self, sets: KnownSets) -> None:
        """Report unknown sets, and problems that arise from the sets' endpoints together with the policy's own."""
        self.problems += endpoint_sets.unknown(self.set_names, sets)
        total = dict.fromkeys(self.endpoints)
        for name in self.set_names:
            endpoints = sets.endpoints.get(name.text.lower(), ())
            self.problems += lint.broken_in_set(name, endpoints)
            self.problems += lint.second_ports(name, endpoints, self.wildcard_ports)
            self.problems += lint.refused_in_set(name, endpoints, self.never_allow)
            self.problems += lint.risky_in_set(name, endpoints)
            for endpoint in endpoints:
                self.entries.setdefault(endpoint, lint.Listed(name, endpoint_set=name.text))
            total |= dict.fromkeys(endpoints)
        self.problems += endpoint_sets.too_many_endpoints(self.sets_at, len(total))

    def _read_lockdown(self, key: Scalar, value: Node) -> None:
        self.lockdown_at = key
        self.lockdown, problems = read_lockdown(key, value)
        self.problems += problems


@dataclass(frozen=True, slots=True)
class Combined:
    """The endpoints that runners get, in order and each once, and those left out because they are never allowed."""

    endpoints: tuple[str, ...]
    left_out: tuple[str, ...]


def combined(
    document: PolicyDocument, sets: Values[str, Sequence[str]], never_allow: NeverAllow = NOTHING_REFUSED
) -> Combined:
    """A policy's own endpoints in their order, then those of its sets in theirs, without what is never allowed.

    `sets` holds the endpoints of the sets by name in lower case. Raises KeyError for a set that is not among them.
    """
    listed = dict.fromkeys(document.allowed_endpoints)
    for name in document.endpoint_sets:
        listed |= dict.fromkeys(sets[name.lower()])
    is_refused = {endpoint: never_allow.refusing(endpoint) is not None for endpoint in listed}
    return Combined(
        tuple(endpoint for endpoint in listed if not is_refused[endpoint]),
        tuple(endpoint for endpoint in listed if is_refused[endpoint]),
    )


def read_lockdown(key: Scalar, value: Node) -> tuple[Lockdown | None, list[Problem]]:
    """Lockdown mode as a document sets it (None if it does not say whether it is enabled), and the problems with it."""
    if not isinstance(value, Mapping):
        hint = "Enter enabled: true and below it a list of detections."
        message = "lockdown-mode must have the keys enabled and detections."
        return None, [error(key, "wrong-type", message, hint)]
    enabled: bool | None = None
    detections: tuple[str, ...] = ()
    problems: list[Problem] = []
    for inner, node in value.pairs:
        found: list[Problem] = []
        if inner.value == "enabled":
            enabled, found = switch(inner, node)
        elif inner.value == "detections":
            detections, found = _read_detections(node)
        elif not is_merge_key(inner):
            found = [unknown_key(inner, ("enabled", "detections"), of=" in lockdown-mode")]
        problems += found
    if all(inner.value != "enabled" for inner, _ in value.pairs):
        message = "The key enabled is missing in lockdown-mode."
        problems.append(error(key, "missing-key", message, "Add enabled: true."))
    return (None if enabled is None else Lockdown(enabled, detections)), problems


def _read_detections(node: Node) -> tuple[tuple[str, ...], list[Problem]]:
    if isinstance(node, Scalar) and node.value == "" and node.style is None:
        return (), []
    if not isinstance(node, ListNode):
        hint = "Put each detection on its own line, after a hyphen."
        return (), [error(node, "wrong-type", "detections must be a list.", hint)]
    found: dict[str, None] = {}
    problems: list[Problem] = []
    for item in node.items:
        if len(problems) > MAX_PROBLEMS:
            break
        if isinstance(item, Scalar) and item.value in DETECTION_TYPES:
            found.setdefault(item.value)
            continue
        problems.append(_unknown_detection(item))
    return tuple(found), problems


def _unknown_detection(item: Node) -> Problem:
    supported = f"Supported detections: {', '.join(DETECTION_TYPES)}."
    if not isinstance(item, Scalar):
        return error(item, "unknown-detection", "A detection must be a single value.", supported)
    if is_expression(item.value):
        return unevaluated(item.value, item, supported)
    message = f"Unknown detection {quoted(item.value)}."
    hint = closest_hint(item.value, DETECTION_TYPES) or supported
    return error(item, "unknown-detection", message, hint)
