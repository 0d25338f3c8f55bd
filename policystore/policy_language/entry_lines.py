"""Rearranges the lines of an endpoint list, so that entries which stay keep their line and their comments."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_BULLET = re.compile(r"(\s*-\s+)(.*)")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the list: its entries, and the comment lines right above it."""

    text: str
    entries: tuple[str, ...]
    comment: str
    above: tuple[str, ...]


def in_order(lines: Sequence[str], endpoints: Sequence[str], *, bullet: bool, column: int) -> list[str]:
    """The lines of the list with exactly `endpoints`, in their order.

    `bullet` says whether each entry follows a hyphen, and `column` (0-based) is where the list's key stands. A comment
    behind an entry goes with it; comment lines stay, above the entry that they stood above or at the end.
    """
    found, rest = _read(lines, bullet=bullet)
    indent = _indent(found, column)
    waiting: defaultdict[str, deque[int]] = defaultdict(deque)
    for place, line in enumerate(found):
        for entry in line.entries:
            waiting[entry].append(place)
    written: list[str] = []
    used: set[int] = set()
    index = 0
    while index < len(endpoints):
        number = waiting[endpoints[index]].popleft() if waiting[endpoints[index]] else None
        if number is None:
            written.append(indent + _entry(endpoints[index], bullet=bullet))
            index += 1
            continue
        line = found[number]
        if number not in used:
            written += line.above
            used.add(number)
        count = len(line.entries)
        whole = tuple(endpoints[index : index + count]) == line.entries and count > 0
        if whole:
            for entry in line.entries[1:]:
                waiting[entry].popleft()
            written.append(line.text)
            index += count
        else:
            comment = f" {line.comment}" if line.comment and count == 1 else ""
            written.append(indent + _entry(endpoints[index], bullet=bullet) + comment)
            index += 1
    orphaned = [above for place, line in enumerate(found) if place not in used for above in line.above]
    return [*written, *orphaned, *rest]


def _read(lines: Sequence[str], *, bullet: bool) -> tuple[list[_Line], list[str]]:
    found: list[_Line] = []
    above: list[str] = []
    for text in lines:
        entries, comment = _entries(text, bullet=bullet)
        if entries:
            found.append(_Line(text, entries, comment, tuple(above)))
            above = []
        else:
            above.append(text)
    return found, above


def _entries(text: str, *, bullet: bool) -> tuple[tuple[str, ...], str]:
    content = text.strip()
    if bullet:
        match = _BULLET.fullmatch(text)
        content = match.group(2).strip() if match else ""
    words: list[str] = []
    for word in re.finditer(r"\S+", content):
        if word.group().startswith("#"):
            return tuple(_plain(words, bullet=bullet)), content[word.start() :]
        words.append(word.group())
    return tuple(_plain(words, bullet=bullet)), ""


def _plain(words: Sequence[str], *, bullet: bool) -> Iterator[str]:
    for word in words:
        quoted = bullet and len(word) > 1 and word[0] == word[-1] and word[0] in "'\""
        yield word[1:-1] if quoted else word


def _indent(found: Sequence[_Line], column: int) -> str:
    first = next((line.text for line in found), " " * (column + 2) + "x")
    return first[: len(first) - len(first.lstrip())]


def _entry(endpoint: str, *, bullet: bool) -> str:
    return f'- "{endpoint}"' if bullet and endpoint.startswith("*") else f"- {endpoint}" if bullet else endpoint
