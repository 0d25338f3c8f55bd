"""Parses `lockdown-mode`, which ends a job as soon as one of the named detections is made on it."""

from __future__ import annotations

from dataclasses import dataclass

from policystore.policy_language.problems import Problem, error, quoted
from policystore.policy_language.values import (
    DETECTION_TYPES,
    closest_hint,
    is_expression,
    switch,
    unevaluated,
    unknown_key,
)
from policystore.policy_language.yaml_reader import MAX_PROBLEMS, Mapping, Node, Scalar, Sequence, is_merge_key


@dataclass(frozen=True, slots=True)
class Lockdown:
    """Lockdown mode: if `enabled`, a job ends as soon as one of `detections` is made on it."""

    enabled: bool
    detections: tuple[str, ...]


def read_lockdown(key: Scalar, value: Node) -> tuple[Lockdown | None, list[Problem]]:
    """Lockdown mode as a document sets it (None if it does not say whether it is enabled), and the problems with it."""
    if not isinstance(value, Mapping):
        hint = "Enter enabled: true and below it a list of detections."
        message = "lockdown-mode must have the keys enabled and detections."
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
            found = [unknown_key(inner, ("enabled", "detections"), of=" in lockdown-mode")]
        problems += found
    if all(inner.value != "enabled" for inner, _ in value.pairs):
        message = "The key enabled is missing in lockdown-mode."
        problems.append(error(key.line, key.column, "missing-key", message, "Add enabled: true."))
    return (None if enabled is None else Lockdown(enabled, detections)), problems


def _detections(node: Node) -> tuple[tuple[str, ...], list[Problem]]:
    if isinstance(node, Scalar) and node.value == "" and node.style is None:
        return (), []
    if not isinstance(node, Sequence):
        hint = "Put each detection on its own line, after a hyphen."
        return (), [error(node.line, node.column, "wrong-type", "detections must be a list.", hint)]
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
        return error(item.line, item.column, "unknown-detection", "A detection must be a single value.", supported)
    if is_expression(item.value):
        return unevaluated(item.value, item.line, item.column, supported)
    message = f"Unknown detection {quoted(item.value)}."
    hint = closest_hint(item.value, DETECTION_TYPES) or supported
    return error(item.line, item.column, "unknown-detection", message, hint)
