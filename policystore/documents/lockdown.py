"""Reads `lockdown-mode`: whether a job is ended when one of the named detections is made on it."""

from __future__ import annotations

from dataclasses import dataclass

from policystore.documents.problems import Problem, error
from policystore.documents.values import switch
from policystore.documents.words import DETECTION_TYPES, closest_hint, unknown_key
from policystore.documents.yaml_guard import MAX_PROBLEMS, Mapping, Node, Scalar, Sequence, is_merge_key


@dataclass(frozen=True, slots=True)
class Lockdown:
    """Whether a job is ended when one of these detections is made on it."""

    enabled: bool
    detections: tuple[str, ...]


def read_lockdown(key: Scalar, value: Node) -> tuple[Lockdown | None, list[Problem]]:
    """Lockdown mode as a document sets it (None where it does not say), and what is wrong with it."""
    if not isinstance(value, Mapping):
        hint = "Write enabled: true and a list of detections below it."
        message = "lockdown-mode takes the keys enabled and detections."
        return None, [error(key.line, key.column, "wrong-type", message, hint)]
    enabled: bool | None = None
    detections: tuple[str, ...] = ()
    problems: list[Problem] = []
    for inner, node in value.pairs:
        found: list[Problem] = []
        if inner.value == "enabled":
            enabled, found = switch(inner, node)
        elif inner.value == "detections":
            detections, found = _detections(node)
        elif not is_merge_key(inner):
            found = [unknown_key(inner, ("enabled", "detections"), of="lockdown-mode")]
        problems += found
    if all(inner.value != "enabled" for inner, _ in value.pairs):
        message = "lockdown-mode does not say whether it is enabled."
        problems.append(error(key.line, key.column, "missing-key", message, "Add enabled: true."))
    return (None if enabled is None else Lockdown(enabled, detections)), problems


def _detections(node: Node) -> tuple[tuple[str, ...], list[Problem]]:
    if isinstance(node, Scalar) and node.value == "" and node.style is None:
        return (), []
    if not isinstance(node, Sequence):
        hint = "Write each detection in a line of its own, after a hyphen."
        return (), [error(node.line, node.column, "wrong-type", "detections takes a list.", hint)]
    found: dict[str, None] = {}
    problems: list[Problem] = []
    for item in node.items:
        if len(problems) > MAX_PROBLEMS:
            break
        if isinstance(item, Scalar) and item.value in DETECTION_TYPES:
            found.setdefault(item.value)
            continue
        name = item.value[:60] if isinstance(item, Scalar) else "This"
        hint = closest_hint(name, DETECTION_TYPES) or f"Known ones: {', '.join(DETECTION_TYPES)}."
        message = f"{name} is no detection that lockdown mode knows."
        problems.append(error(item.line, item.column, "unknown-detection", message, hint))
    return tuple(found), problems
