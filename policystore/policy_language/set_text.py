"""The text of an endpoint set: one endpoint a line with comments, or a YAML list."""

from __future__ import annotations

import re
from dataclasses import dataclass

from policystore.policy_language import lint, risks
from policystore.policy_language.conflicts import conflicts
from policystore.policy_language.endpoint_parser import Entry, clean, ended_enforcement, refused_entry
from policystore.policy_language.list_editor import entries_in_lines, limited, read_entries
from policystore.policy_language.never_allow import NOTHING_REFUSED, NeverAllow
from policystore.policy_language.problems import Problem, error, warning
from policystore.policy_language.words import KNOWN_KEYS
from policystore.policy_language.yaml_reader import MAX_PROBLEMS, Sequence, read, unsafe_text

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
    entries, problems = _entries(text)
    found: dict[str, Entry] = {}
    lines: dict[str, int] = {}
    wildcard_ports: dict[str, str] = {}
    errors = 0
    for entry in entries:
        endpoint, more = _clean(entry)
        problems += more
        if endpoint is not None:
            problems += refused_entry(entry, endpoint, never_allow)
            # A set has no mode, and policies in block mode may include it.
            problems += ended_enforcement(entry, endpoint, mode="")
            problems += risks.told(entry, endpoint)
            problems += lint.repeated(entry, endpoint, lines, wildcard_ports)
            lines.setdefault(endpoint, entry.line)
            found.setdefault(endpoint, entry)
        # Warnings do not stop a save, so what stands below them must be read, however many they are.
        errors += endpoint is None
        if errors > MAX_PROBLEMS:
            break
    for conflict in conflicts(found):
        entry = found[conflict.endpoint]
        problems.append(warning(entry.line, entry.column, conflict.code, conflict.message, conflict.hint))
    if not entries and not problems:
        problems.append(error(1, 1, "empty-set", "The set lists no endpoints.", _HINT))
    problems.sort(key=lambda problem: (problem.line, problem.column, problem.severity))
    broken = any(problem.severity == "error" for problem in problems)
    return CheckedSet(None if broken else tuple(found), tuple(problems))


def _entries(text: str) -> tuple[list[Entry], list[Problem]]:
    problems = unsafe_text(text)
    if problems:
        return [], problems
    first = next((line for line in text.split("\n") if line.strip() and not line.strip().startswith("#")), "")
    if not _LIST.match(first):
        return limited(list(entries_in_lines(text)), [])
    root, problems = read(text)
    if not isinstance(root, Sequence):
        return [], problems or [
            error(1, 1, "no-list", "An endpoint set must be lines of endpoints or a YAML list.", _HINT)
        ]
    entries, more = read_entries(text, root)
    return entries, [*problems, *more]


def _clean(entry: Entry) -> tuple[str | None, list[Problem]]:
    key = entry.text.rstrip(":")
    if key in KNOWN_KEYS:
        message = f"An endpoint set is a list of endpoints and cannot have the key “{key}”."
        return None, [error(entry.line, entry.column, "key-in-set", message, "Paste only the endpoints below it.")]
    return clean(entry)
