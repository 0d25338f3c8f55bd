"""Parses the entries of `allowed-endpoints`, however the list is written, each with its position in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policystore.policy_language.endpoint_parser import Entry
from policystore.policy_language.problems import Problem, error, quoted
from policystore.policy_language.yaml_reader import Mapping, Node, Scalar, Sequence, position, surprise

BLOCK_STYLES = ("|", ">")
MAX_ENTRIES = 2000
# A GitHub expression is one word, whatever spaces it has. Its length is limited so that no line takes long.
_WORD = re.compile(r"(?:\$\{\{.{0,500}?\}\}|\S)+")


def read_entries(text: str, value: Node) -> tuple[list[Entry], list[Problem]]:
    """The entries of a folded or literal text, of a plain or quoted value, or of a list; comments are left out.

    Past MAX_ENTRIES none is read, and a problem says so.
    """
    return limited(*_read(text, value))


def limited(entries: list[Entry], problems: list[Problem]) -> tuple[list[Entry], list[Problem]]:
    """The entries and problems as they are, or the first MAX_ENTRIES and the problem that there are more."""
    if len(entries) <= MAX_ENTRIES:
        return entries, problems
    surplus = entries[MAX_ENTRIES]
    message = f"The list is too long: {len(entries):,} entries (maximum {MAX_ENTRIES:,})."
    return entries[:MAX_ENTRIES], [error(surplus.line, surplus.column, "too-many-endpoints", message, "Use wildcards.")]


def _read(text: str, value: Node) -> tuple[list[Entry], list[Problem]]:
    if isinstance(value, Sequence):
        return _of_list(value)
    if isinstance(value, Mapping):
        hint = "Enter allowed-endpoints: > and below it one indented endpoint per line."
        return [], [
            error(
                value.line, value.column, "wrong-type", "allowed-endpoints must be a list of endpoints, not keys.", hint
            )
        ]
    return scalar_entries(text, value)


def scalar_entries(text: str, value: Scalar) -> tuple[list[Entry], list[Problem]]:
    """The words of a folded, literal, plain or quoted text, each with its place; comments are left out."""
    if value.style in BLOCK_STYLES:
        return list(_of_block(text, value)), []
    return _of_line(text, value)


def _of_block(text: str, node: Scalar) -> Iterator[Entry]:
    """A `#` that starts a word makes the rest of its line a comment, though YAML itself would keep it as text."""
    line_end = text.find("\n", node.start)
    if line_end < 0:
        return
    line_number, _ = position(text, line_end + 1)
    yield from entries_in_lines(text[line_end + 1 : node.end], first_line=line_number)


def entries_in_lines(text: str, *, first_line: int = 1) -> Iterator[Entry]:
    """The words of lines; a `#` that starts a word makes the rest of its line a comment."""
    for offset, line in enumerate(text.split("\n")):
        for word in _WORD.finditer(line):
            if word.group().startswith("#"):
                break
            yield Entry(word.group(), first_line + offset, word.start() + 1)


def _of_line(text: str, node: Scalar) -> tuple[list[Entry], list[Problem]]:
    seen = surprise(node)
    if seen is not None:
        message = f"YAML reads {quoted(node.value)} as {seen}."
        return [], [error(node.line, node.column, "surprising-value", message, "Put the endpoints below a > instead.")]
    if node.style is None:
        return list(_of_plain(text, node)), []
    return _quoted(node)


def _of_plain(text: str, node: Scalar) -> Iterator[Entry]:
    for offset, line in enumerate(text[node.start : node.end].split("\n")):
        indent = node.column - 1 if offset == 0 else 0
        for word in _WORD.finditer(line):
            yield Entry(word.group(), node.line + offset, indent + word.start() + 1)


def _quoted(node: Scalar) -> tuple[list[Entry], list[Problem]]:
    words = _WORD.findall(node.value)
    for word in words:
        if word.startswith("#"):
            message = f"{quoted(word)} is not a comment, because it is inside quotes."
            return [], [
                error(
                    node.line, node.column, "comment-in-quotes", message, "Move the comment behind the closing quote."
                )
            ]
    return [Entry(word, node.line, node.column) for word in words], []


def _of_list(value: Sequence) -> tuple[list[Entry], list[Problem]]:
    entries: list[Entry] = []
    problems: list[Problem] = []
    for item in value.items:
        problem = _item_problem(item)
        if problem is not None:
            problems.append(problem)
        elif isinstance(item, Scalar):
            found, more = _quoted(item)
            entries += found
            problems += more
    return entries, problems


def _item_problem(item: Node) -> Problem | None:
    if isinstance(item, Mapping):
        hint = "Enter host:port without a space after the colon."
        return error(item.line, item.column, "endpoint-space", "A space after the colon makes this a key.", hint)
    if isinstance(item, Sequence):
        return error(
            item.line, item.column, "wrong-type", "An endpoint must be a single value, not a list.", "Enter host:port."
        )
    if item.value.strip() == "":
        return error(item.line, item.column, "missing-value", "An entry of the list is empty.", "Remove its hyphen.")
    seen = surprise(item)
    if seen is not None:
        message = f"YAML reads {quoted(item.value)} as {seen}."
        return error(item.line, item.column, "surprising-value", message, "Put the value in quotes.")
    return None
