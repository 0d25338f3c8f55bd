"""Endpoint sets: the names that a policy includes under `endpoint-sets`, and the text of a set itself.

The text of a set is one endpoint per line, with comments, or a YAML list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from policystore.policy_language import lint, yaml_reader
from policystore.policy_language.endpoint_parser import (
    MAX_ENTRIES,
    Entry,
    clean,
    entries_in_lines,
    limited,
    read_entries,
    scalar_entries,
)
from policystore.policy_language.lint import conflicts
from policystore.policy_language.never_allow import NOTHING_REFUSED, NeverAllow
from policystore.policy_language.problems import START, Positioned, Problem, error, quoted, warning
from policystore.policy_language.values import KNOWN_KEYS, closest_hint, is_expression, unevaluated
from policystore.policy_language.yaml_reader import Node, Scalar, Sequence, read, surprises, unsafe_text

KEY = "endpoint-sets"
MAX_SETS = 50
_WRONG_TYPE = "Enter the name of a set, or a list of names."


@dataclass(frozen=True, slots=True)
class KnownSets:
    """The endpoint sets of an organization, as far as a document needs them.

    `endpoints` holds the clean endpoints of each set that the document names, by its name in lower case; `names` are
    all sets' names, from which the nearest to an unknown one is proposed.
    """

    endpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: tuple[str, ...] = ()


def read_names(text: str, value: Node) -> tuple[list[Entry], list[Problem]]:
    """The names that a policy includes, each once, and what is wrong with how they are written."""
    entries, problems = _entries(text, value)
    named: dict[str, Entry] = {}
    for entry in entries:
        first = named.setdefault(entry.text.lower(), entry)
        if first is not entry:
            message = f"{quoted(entry.text)} is already included in line {first.line}."
            problems.append(warning(entry, "duplicate-endpoint-set", message, "Remove one of them."))
    kept = list(named.values())
    if len(kept) > MAX_SETS:
        message = f"The policy includes too many endpoint sets: {len(kept)} (maximum {MAX_SETS})."
        problems.append(error(value, "too-many-endpoint-sets", message, "Merge some of them."))
    return kept[:MAX_SETS], problems


def names_in(text: str) -> list[str]:
    """The names that a text includes, as they are written; [] where it cannot be read.

    Without those that have a NUL: no set is called so, and no database should be asked for it.
    """
    root, _ = yaml_reader.read(text) if KEY in text else (None, [])
    if not isinstance(root, yaml_reader.Mapping):
        return []
    entries = [entry for key, value in root.pairs if key.value == KEY for entry in read_names(text, value)[0]]
    return [entry.text for entry in entries if "\0" not in entry.text]


def keys_in(text: str) -> set[str]:
    """The names that a text includes, as sets are found by them: in lower case."""
    return {name.lower() for name in names_in(text)}


def unknown(names: list[Entry], sets: KnownSets) -> Iterator[Problem]:
    """An error for each name that no set has."""
    for entry in names:
        if entry.text.lower() not in sets.endpoints:
            if is_expression(entry.text):
                yield unevaluated(entry.text, entry, _WRONG_TYPE)
                continue
            message = f"There is no endpoint set named {quoted(entry.text)}."
            hint = closest_hint(entry.text, sets.names) or "Create it under Endpoint Sets first."
            yield error(entry, "unknown-endpoint-set", message, hint)


def too_many_endpoints(at: Positioned, total: int) -> Iterator[Problem]:
    """An error when a policy and its sets together list more endpoints than fit."""
    if total > MAX_ENTRIES:
        message = f"The policy and its endpoint sets list too many endpoints: {total:,} (maximum {MAX_ENTRIES:,})."
        yield error(at, "too-many-endpoints", message, "Use wildcards, or include fewer sets.")


def _entries(text: str, value: Node) -> tuple[list[Entry], list[Problem]]:
    if isinstance(value, yaml_reader.Sequence):
        items = [_item(text, item) for item in value.items]
        return [entry for found, _ in items for entry in found], [problem for _, more in items for problem in more]
    return _item(text, value)


def _item(text: str, item: Node) -> tuple[list[Entry], list[Problem]]:
    if not isinstance(item, Scalar):
        return [], [error(item, "wrong-type", f"{KEY} must be names of endpoint sets.", _WRONG_TYPE)]
    if item.value.strip() == "":
        return [], [error(item, "missing-value", f"{KEY} contains an empty name.", _WRONG_TYPE)]
    if problems := surprises(item, "Put the value in quotes."):
        return [], problems
    return scalar_entries(text, item)


_LIST = re.compile(r"\s*(?:-(?:\s|$)|\[)")
_HINT = "Enter one endpoint per line, for example github.com:443."


@dataclass(frozen=True, slots=True)
class CheckedSet:
    """The clean endpoints, each once, in the order written (None when there is any error), and all problems."""

    endpoints: tuple[str, ...] | None
    problems: tuple[Problem, ...]


def check_set(text: str, *, never_allow: NeverAllow = NOTHING_REFUSED) -> CheckedSet:
    """Read the text of an endpoint set and report every problem at once; what `never_allow` refuses is an error.

    Never raises.
    """
    entries, problems = _lines_or_list(text)
    # A set has no mode, and policies in block mode may include it.
    found, more = lint.clean_all(entries, never_allow, {}, clean=_clean, mode="")
    problems += more
    for conflict in conflicts(found):
        entry = found[conflict.endpoint]
        problems.append(warning(entry, conflict.code, conflict.message, conflict.hint))
    if not entries and not problems:
        problems.append(error(START, "empty-set", "The set lists no endpoints.", _HINT))
    problems.sort(key=lambda problem: (problem.line, problem.column, problem.severity))
    broken = any(problem.severity == "error" for problem in problems)
    return CheckedSet(None if broken else tuple(found), tuple(problems))


def _lines_or_list(text: str) -> tuple[list[Entry], list[Problem]]:
    problems = unsafe_text(text)
    if problems:
        return [], problems
    first = next((line for line in text.split("\n") if line.strip() and not line.strip().startswith("#")), "")
    if not _LIST.match(first):
        return limited(list(entries_in_lines(text)), [])
    root, problems = read(text)
    if not isinstance(root, Sequence):
        return [], problems or [
            error(START, "no-list", "An endpoint set must be lines of endpoints or a YAML list.", _HINT)
        ]
    entries, more = read_entries(text, root)
    return entries, [*problems, *more]


def _clean(entry: Entry) -> tuple[str | None, list[Problem]]:
    key = entry.text.rstrip(":")
    if key in KNOWN_KEYS:
        message = f"An endpoint set is a list of endpoints and cannot have the key “{key}”."
        return None, [error(entry, "key-in-set", message, "Paste only the endpoints below it.")]
    return clean(entry)
