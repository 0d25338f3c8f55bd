"""Reads single values of a document: words and switches."""

from __future__ import annotations

from policystore.policy_language.problems import Problem, error, quoted
from policystore.policy_language.words import is_expression, unevaluated
from policystore.policy_language.yaml_reader import Node, Scalar, surprise

_SWITCH_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def word(key: Scalar, value: Node, right: str) -> tuple[Scalar | None, list[Problem]]:
    """The single value of a key, or the problem with it; `right` says what to enter."""
    if not isinstance(value, Scalar):
        return None, [error(value.line, value.column, "wrong-type", f"{key.value} must be a single value.", right)]
    if value.value.strip() == "":
        at = value if value.style else key
        return None, [error(at.line, at.column, "missing-value", f"{key.value} has no value.", right)]
    if is_expression(value.value):
        return None, [unevaluated(value.value, value.line, value.column, right)]
    seen = surprise(value)
    if seen is not None:
        message = f"YAML reads {quoted(value.value)} as {seen}."
        return None, [error(value.line, value.column, "surprising-value", message, right)]
    return value, []


def switch(key: Scalar, value: Node) -> tuple[bool | None, list[Problem]]:
    """The value of a key that is either true or false, or the problem with it."""
    right = "Enter true or false."
    node, problems = word(key, value, right)
    if node is None:
        return None, problems
    if node.value not in _SWITCH_WORDS:
        message = f"{quoted(node.value)} is not true or false."
        return None, [error(node.line, node.column, "no-switch", message, right)]
    return _SWITCH_WORDS[node.value], []
