"""Prints the operator's manual (.github/OPERATIONS.md), which can then be read while the store does not run."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

MANUAL = Path(__file__).resolve().parents[4] / ".github" / "OPERATIONS.md"
WIDTH = 80
INDENT = "    "
# A block of the first kind goes on as long as lines of the second kind follow.
CONTINUED_BY = {"table": "table", "text": "text", "item": "text"}
LIST_MARKER = re.compile(r" *(?:-|\d+\.) ")
INLINE = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>.+?)\*\*|\[(?P<label>[^\]]+)\]\((?P<target>[^)]+)\)")


class Command(BaseCommand):
    """`manage.py help_topics [TOPIC]`; reads neither the database nor the settings."""

    help = "List the topics of the operator's manual, or print one."
    # Its reader may be about to fix what the checks report.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("topic", nargs="?", metavar="TOPIC", help="the topic to print")

    def handle(self, *args: Any, **options: Any) -> None:
        topics = read_topics(MANUAL.read_text(encoding="utf-8"))
        name = options["topic"]
        if name is None:
            self.stdout.write("\n".join(_list(topics)))
        elif name.lower() in topics:
            self.stdout.write(to_plain_text(topics[name.lower()]))
        else:
            raise CommandError(f"“{name}” is not a help topic. Valid topics: {', '.join(topics)}.")


def read_topics(manual: str) -> dict[str, str]:
    """Return the sections of a Markdown text by the anchors of their headings, each with its heading."""
    sections = re.split(r"^## ", manual, flags=re.MULTILINE)[1:]
    return {section.partition("\n")[0].lower().replace(" ", "-"): f"## {section}".rstrip() for section in sections}


def to_plain_text(section: str) -> str:
    """Return Markdown as plain text of at most 80 columns; code and long words keep their length."""
    return "\n".join(line for block in _blocks(section) for line in _render(block))


def _list(topics: dict[str, str]) -> Iterator[str]:
    """Yield a line for each topic, with the sentence that its section starts with."""
    width = max(map(len, topics))
    for name, section in topics.items():
        first_paragraph = section.split("\n\n")[1]
        yield f"{name:{width}}  {_inline(' '.join(first_paragraph.split()))}"
    yield "\nTo print a topic: manage.py help_topics TOPIC"


def _blocks(section: str) -> Iterator[list[str]]:
    """Yield the lines of each heading, paragraph, list item, table, code block and blank line."""
    block: list[str] = []
    for line in section.splitlines():
        if block and not _continues(block, line):
            yield block
            block = []
        block.append(line)
    yield block


def _continues(block: list[str], line: str) -> bool:
    kind = _kind(block[0])
    if kind == "code":
        return len(block) == 1 or _kind(block[-1]) != "code"
    return kind in CONTINUED_BY and CONTINUED_BY[kind] == _kind(line)


def _kind(line: str) -> str:
    starts = {"```": "code", "|": "table", "#": "heading"}
    if not line.strip():
        return "blank"
    for start, kind in starts.items():
        if line.lstrip().startswith(start):
            return kind
    return "item" if LIST_MARKER.match(line) else "text"


def _render(block: list[str]) -> Iterator[str]:
    match _kind(block[0]):
        case "code":
            yield from textwrap.indent("\n".join(block[1:-1]), INDENT).splitlines()
        case "table":
            yield from _table(block)
        case "heading":
            title = block[0].lstrip("# ")
            yield title
            yield ("=" if block[0].startswith("## ") else "-") * len(title)
        case _:
            yield _paragraph(block)


def _paragraph(block: list[str]) -> str:
    first = block[0]
    marker = LIST_MARKER.match(first)
    indent = first[: len(first) - len(first.lstrip())]
    hanging = " " * marker.end() if marker else indent
    return _wrap(_inline(" ".join(line.strip() for line in block)), indent, hanging)


def _table(block: list[str]) -> Iterator[str]:
    """Yield each row as its first cell, with the others below it; with several, each with its column's name."""
    indent = block[0][: block[0].index("|")]
    header, _, *rows = ([_inline(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in block)
    for first, *others in rows:
        yield indent + first
        for name, cell in zip(header[1:], others, strict=True):
            yield _wrap(f"{name}: {cell}" if len(others) > 1 else cell, indent + INDENT, indent + INDENT)


def _wrap(text: str, indent: str, hanging: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _inline(text: str) -> str:
    """Return text without its marks for code, bold and links; a link to elsewhere is followed by its target."""
    return INLINE.sub(_without_marks, text)


def _without_marks(found: re.Match[str]) -> str:
    if found["code"]:
        return found["code"]
    if found["bold"]:
        return _inline(found["bold"])
    label, target = _inline(found["label"]), found["target"]
    if target.startswith("#"):
        topic = target[1:]
        return label if label.lower() == topic else f"{label} (topic “{topic}”)"
    if "://" in target:
        return f"{label} ({target})"
    path = target.partition("#")[0]
    return f"{label} ({path[3:] if path.startswith('../') else f'.github/{path}'})"
