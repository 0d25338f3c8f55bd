"""Reads single values of a document, and explains unknown keys and words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches

from policystore.policy_language.problems import Positioned, Problem, error, quoted
from policystore.policy_language.yaml_reader import Node, Scalar, surprises

_SWITCH_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def word(key: Scalar, value: Node, right: str) -> tuple[Scalar | None, list[Problem]]:
    """The single value of a key, or the problem with it; `right` says what to enter."""
    if not isinstance(value, Scalar):
        return None, [error(value, "wrong-type", f"{key.value} must be a single value.", right)]
    if value.value.strip() == "":
        at = value if value.style else key
        return None, [error(at, "missing-value", f"{key.value} has no value.", right)]
    if is_expression(value.value):
        return None, [unevaluated(value.value, value, right)]
    problems = surprises(value, right)
    return (None if problems else value), problems


def switch(key: Scalar, value: Node) -> tuple[bool | None, list[Problem]]:
    """The value of a key that is either true or false, or the problem with it."""
    right = "Enter true or false."
    node, problems = word(key, value, right)
    if node is None:
        return None, problems
    if node.value not in _SWITCH_WORDS:
        message = f"{quoted(node.value)} is not true or false."
        return None, [error(node, "no-switch", message, right)]
    return _SWITCH_WORDS[node.value], []


# The switches, and what each turns off.
SWITCHES = {
    "disable-sudo": "Remove the job's right to use sudo.",
    "disable-sudo-and-containers": "Remove the job's right to use sudo and to start containers.",
    "disable-file-monitoring": "Do not watch for changed source files.",
    "disable-telemetry": "Report no network events. The job hooks follow it; the action ignores it in a policy.",
}
# The same in the reply, and in the order of SWITCHES.
SWITCH_FIELDS = tuple(key.replace("-", "_") for key in SWITCHES)
# The keys of a policy, and what each is for.
KNOWN_KEYS = {
    "egress-policy": "audit reports calls; block also stops those not allowed. Needed if endpoints are listed.",
    "allowed-endpoints": "The endpoints that jobs may reach, as a list or separated by spaces or lines.",
    "endpoint-sets": "The names of endpoint sets to include.",
    **SWITCHES,
    "lockdown-mode": "Whether jobs are terminated on a detection (enabled: true or false), and on which (detections).",
}
# The detections of lockdown mode, and what each reports.
DETECTION_TYPES = {
    "Privileged-Container": "The job starts a container with elevated privileges, which could take over the host.",
    "Runner-Worker-Memory-Read": "A process reads the memory of the runner's worker, where the job's secrets are.",
    "Reverse-Shell": "A process connects a shell to another machine, which could then control the runner.",
}

_EXPRESSION = "${{"
_OF_THE_STEP = frozenset({"use-policy-store", "api-key", "policy", "token", "policy-store-url"})
_OF_THE_WORKFLOW = frozenset({"with", "uses", "steps", "name", "jobs", "on", "runs-on", "env"})


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    folded = word.strip().lower().replace("_", "-").replace(" ", "-")[:100]
    matches = get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def closest_hint(word: str, known: Iterable[str]) -> str:
    """“Did you mean …?” for the closest known word; empty when none is close."""
    match = closest(word, known)
    return f"Did you mean “{match}”?" if match else ""


def is_expression(text: str) -> bool:
    """True if a value contains a GitHub expression."""
    return _EXPRESSION in text


def unevaluated(text: str, at: Positioned, hint: str) -> Problem:
    """The error for a value that holds a GitHub expression; `hint` says what to enter instead."""
    message = f"{quoted(text)} is a GitHub expression. The store does not evaluate expressions."
    return error(at, "github-expression", message, hint)


def unknown_key(key: Scalar, known: Iterable[str], *, of: str = "") -> Problem:
    """The error for a key that is not one of `known`; `of` names what has the key, such as “ in about.yaml”."""
    known = tuple(known)
    name = key.value[:60]
    if name in _OF_THE_STEP:
        message, hint = f"“{name}” is an input of the workflow's step, not a key of a policy.", "Remove the key."
    elif name in _OF_THE_WORKFLOW:
        message, hint = f"“{name}” is a key of a workflow, not of a policy.", "Paste only the lines below with:."
    else:
        message = f"Unknown key “{name}”{of}."
        hint = closest_hint(key.value, known) or f"Valid keys: {', '.join(known)}."
    return error(key, "unknown-key", message, hint)


def in_utc(time: datetime) -> datetime:
    """Return the time in UTC; without an offset it counts as UTC. Raises OverflowError at the ends of the calendar."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
