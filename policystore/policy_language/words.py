"""The words of the policy language, and the known word that is closest to an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from policystore.policy_language.problems import Problem, error, quoted
from policystore.policy_language.yaml_reader import Scalar

SWITCHES = ("disable-sudo", "disable-sudo-and-containers", "disable-file-monitoring", "disable-telemetry")
KNOWN_KEYS = ("egress-policy", "allowed-endpoints", "endpoint-sets", *SWITCHES, "lockdown-mode")
DETECTION_TYPES = ("Privileged-Container", "Runner-Worker-Memory-Read", "Reverse-Shell")

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
    """Whether a value holds a GitHub expression."""
    return _EXPRESSION in text


def unevaluated(text: str, line: int, column: int, hint: str) -> Problem:
    """The error for a value that holds a GitHub expression; `hint` says what to enter instead."""
    message = f"{quoted(text)} is a GitHub expression. The store does not evaluate expressions."
    return error(line, column, "github-expression", message, hint)


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
    return error(key.line, key.column, "unknown-key", message, hint)
