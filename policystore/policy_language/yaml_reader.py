"""Reads YAML that may be hostile: refuses what a policy never needs before anything is built from it.

The text is scanned for size, characters and bracket depth, then walked as parser events. Nothing is ever composed or
constructed by the YAML library: composing 28 kB of `[` crashes CPython, a 700-byte merge bomb takes 23 seconds, and
its constructors raise errors of many kinds. Scalars stay text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from policystore.policy_language.problems import START, Position, Positioned, Problem, error, quoted

MAX_DEPTH = 8
# Text and comments may contain brackets, so this early limit is wide; the exact one is checked on events.
MAX_BRACKETS_OPEN = 64
PROBLEMS_OF_A_KIND = 5
MAX_PROBLEMS = 200

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Any = yaml.resolver.Resolver()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a text may have: bytes of its UTF-8, lines, and keys and values, of which a list counts as two."""

    bytes: int
    lines: int
    values: int


# Far more than 2,000 endpoints need, and few enough to be read in a few hundredths of a second, whatever they are.
OF_A_POLICY = Limits(bytes=64 * 1024, lines=5_000, values=5_000)


@dataclass(slots=True)
class Scalar:
    """A value: its text, how it was written (None for plain, or one of `' " | >`), and where (1-based)."""

    value: str
    style: str | None
    line: int
    column: int
    start: int
    end: int


@dataclass(slots=True)
class Sequence:
    """A list of nodes."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """Keys and their values, in order, each key once."""

    line: int
    column: int
    pairs: list[tuple[Scalar, Node]] = field(default_factory=list)


Node = Scalar | Sequence | Mapping


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read(text: str, *, limits: Limits = OF_A_POLICY) -> tuple[Node | None, list[Problem]]:
    """The tree of the one document in `text` (None when it is empty or refused), and every refusal. Never raises."""
    problems = [*unsafe_text(text, limits=limits), *_brackets(text)]
    if problems:
        return None, problems
    try:
        return _walk(text, limits.values)
    except _Refused as refused:
        return None, [refused.problem]
    except yaml.YAMLError as broken:
        return None, [_syntax(broken, text)]


def is_merge_key(key: Scalar) -> bool:
    """True for a key that merges another mapping, which `read` refuses; in quotes it is an ordinary key."""
    return key.value == "<<" and key.style is None


def unsafe_text(text: str, *, limits: Limits = OF_A_POLICY) -> list[Problem]:
    """Why this text is refused whatever it says: its size, and characters that hide something. Never raises."""
    return [*too_large(text, limits=limits), *_characters(text)]


def too_large(text: str, *, limits: Limits = OF_A_POLICY) -> Iterator[Problem]:
    """Why this text is refused for its size alone, which takes no time to check."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limits.bytes:
        message = f"The text is too long: {size:,} bytes (maximum {limits.bytes:,})."
        yield error(START, "too-large", message, "Split it.")
    lines = text.count("\n") + (not text.endswith("\n"))
    if lines > limits.lines:
        message = f"The text has too many lines: {lines:,} (maximum {limits.lines:,})."
        yield error(
            Position(limits.lines + 1, 1), "too-many-lines", message, "Remove blank lines and comments, or split it."
        )


# Everything but plain ASCII, tabs and line ends is looked at more closely.
_SPECIAL = re.compile(r"\r(?!\n)|[^\t\n\r\x20-\x7e]")
_BREAKS = frozenset("\r\x0b\x0c\x85\u2028\u2029")
_CHARACTER_MESSAGES = {
    "break": ("ambiguous-line-break", "is a line break to some programs and not to others", "End lines with Enter."),
    "mark": ("byte-order-mark", "is a byte order mark", "Save the text as UTF-8 without a byte order mark."),
    "other": ("unprintable-character", "is invisible or cannot be printed", "Remove it."),
}
# Letters, marks and symbols that Unicode displays as nothing (Default_Ignorable_Code_Point and the blank Braille
# pattern), besides those of the categories below.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\ufffe\uffff"
    "\U000e0000-\U000e0fff]"
)
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Emoji carry this mark to be shown in color.
_EMOJI_MARK = "\ufe0f"


def is_invisible(character: str, before: str = "") -> bool:
    """True if a character, given the one `before` it, is invisible; a tab is visible."""
    if character == _EMOJI_MARK and before and unicodedata.category(before) in ("So", "Sm", "Po"):
        return False
    if character in "\t\n":
        return False
    return unicodedata.category(character) in _INVISIBLE_CATEGORIES or bool(_INVISIBLE.match(character))


def _characters(text: str) -> Iterator[Problem]:
    number = 0
    for found in _SPECIAL.finditer(text):
        character, start = found.group(), found.start()
        if character not in _BREAKS and not is_invisible(character, text[start - 1 : start] if start else ""):
            continue
        kind = "break" if character in _BREAKS else "mark" if character == "\ufeff" else "other"
        code, what, hint = _CHARACTER_MESSAGES[kind]
        yield error(position(text, start), code, f"The character U+{ord(character):04X} {what}.", hint)
        number += 1
        if number == PROBLEMS_OF_A_KIND:
            return


def position(text: str, index: int) -> Position:
    """The 1-based line and column of a character."""
    return Position(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _brackets(text: str) -> Iterator[Problem]:
    depth = 0
    for found in re.finditer(r"[\[\]{}]", text):
        depth = depth + 1 if found.group() in "[{" else max(depth - 1, 0)
        if depth > MAX_BRACKETS_OPEN:
            yield _too_deep(position(text, found.start()))
            return


def _too_deep(at: Positioned) -> Problem:
    return error(at, "too-deep", f"The text is nested deeper than {MAX_DEPTH} levels.", "A policy needs three.")


def _syntax(broken: yaml.YAMLError, text: str) -> Problem:
    mark = getattr(broken, "problem_mark", None) or getattr(broken, "context_mark", None)
    at = _position_of(mark)
    if at.line > text.count("\n") + 1:
        # If something is missing at the end of the text, point there and not to a line that does not exist.
        at = position(text, len(text))
    if getattr(broken, "context", None) == "while scanning an alias":
        return _unquoted_star(text, _position_of(getattr(broken, "context_mark", None), at))
    if "${{" in text.split("\n")[at.line - 1]:
        return error(at, "github-expression", *_EXPRESSION)
    reason = getattr(broken, "problem", None) or "it cannot be read"
    hint = "Indent with spaces; tabs are not allowed." if "\\t" in reason or "tab" in reason.split() else ""
    return error(at, "no-yaml", f"This is not YAML: {reason}.", hint or "Check indentation, colons and quotes.")


_EXPRESSION = ("The store does not evaluate GitHub expressions (${{ … }}).", "Enter the value itself.")


def _position_of(mark: Any, default: Position = START) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark else default


def _unquoted_star(text: str, at: Position) -> Problem:
    value = re.split(r"\s#|\s*$", text.split("\n")[at.line - 1][at.column - 1 :])[0].strip()[:60]
    message = f"“{value}” starts with *, which YAML reads as an alias."
    return error(at, "unquoted-wildcard", message, f'Put the value in quotes: "{value}".')


class _Tree:
    """Builds the tree from events, with every refusal that reading on is safe after."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.documents = 0
        self.root: Node | None = None
        self._open: list[Sequence | Mapping] = []
        self._keys: list[Scalar | None] = []
        self._seen: list[dict[str, int]] = []

    def scalar(self, node: Scalar) -> None:
        if self._expects_key():
            self._take_key(node)
        else:
            self._place(node)

    def start(self, node: Sequence | Mapping) -> None:
        if self._expects_key():
            message = "A list or mapping cannot be a key here."
            raise _Refused(error(node, "complex-key", message, "Put a word before the colon."))
        if len(self._open) >= MAX_DEPTH:
            raise _Refused(_too_deep(node))
        self._place(node)
        self._open.append(node)
        self._keys.append(None)
        self._seen.append({})

    def end(self) -> None:
        self._open.pop()
        self._keys.pop()
        self._seen.pop()

    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], Mapping) and self._keys[-1] is None

    def _take_key(self, key: Scalar) -> None:
        if is_merge_key(key):
            self.problems.append(
                error(key, "merge-key", "Merge keys (<<) are not allowed.", "Enter the keys themselves.")
            )
        first = self._seen[-1].get(key.value)
        if first is not None:
            message = f"The key “{key.value[:60]}” is already set in line {first}."
            self.problems.append(error(key, "duplicate-key", message, "Keep one of them."))
        self._seen[-1].setdefault(key.value, key.line)
        self._keys[-1] = key

    def _place(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if isinstance(top, Sequence):
            top.items.append(node)
            return
        key = self._keys[-1]
        if key is not None:
            top.pairs.append((key, node))
        self._keys[-1] = None


def _walk(text: str, most: int) -> tuple[Node | None, list[Problem]]:
    tree = _Tree()
    for number, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if number > most:
            message = f"The text has more than {most:,} keys and values."
            raise _Refused(error(_at(event), "too-many-values", message, "Use wildcards, or split it."))
        tree.problems += _refused_features(event)
        if len(tree.problems) > MAX_PROBLEMS:
            raise _Refused(tree.problems[0])
        if isinstance(event, yaml.DocumentStartEvent):
            tree.documents += 1
            if tree.documents > 1:
                raise _Refused(
                    error(
                        _at(event),
                        "several-documents",
                        "A policy must be a single YAML document.",
                        "Remove the --- line.",
                    )
                )
        elif isinstance(event, yaml.ScalarEvent):
            tree.scalar(_scalar(event))
        elif isinstance(event, yaml.AliasEvent):
            # An alias in the place of a value keeps the tree whole; it is refused above.
            tree.scalar(Scalar("", "'", *_at(event), start=0, end=0))
        elif isinstance(event, yaml.SequenceStartEvent):
            tree.start(Sequence(*_at(event)))
        elif isinstance(event, yaml.MappingStartEvent):
            tree.start(Mapping(*_at(event)))
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            tree.end()
    return tree.root, tree.problems


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    start, end = cast("yaml.Mark", event.start_mark), cast("yaml.Mark", event.end_mark)
    return Scalar(event.value, event.style or None, *_at(event), start=start.index, end=end.index)


def _at(event: yaml.Event) -> Position:
    return _position_of(event.start_mark)


def _refused_features(event: yaml.Event) -> Iterator[Problem]:
    anchor, tag = str(getattr(event, "anchor", None) or "")[:60], str(getattr(event, "tag", None) or "")[:60]
    if isinstance(event, yaml.AliasEvent):
        hint = f'To list a wildcard, put it in quotes: "*{anchor}".'
        yield error(_at(event), "alias", f"Aliases (*{anchor}) are not allowed.", hint)
    elif anchor:
        yield error(_at(event), "anchor", f"Anchors (&{anchor}) are not allowed.", "Remove the anchor.")
    if tag:
        yield error(_at(event), "tag", f"Tags ({tag}) are not allowed.", "Remove the tag.")
    if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
        yield error(_at(event), "directive", "YAML directives (%) are not allowed.", "Remove the line.")


_BOOLEAN_WORDS = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
_SURPRISES = {
    "tag:yaml.org,2002:bool": "a switch (true or false)",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:null": "nothing (null)",
    "tag:yaml.org,2002:value": "a special value",
}


def surprises(node: Scalar, hint: str) -> list[Problem]:
    """The error for a plain value that YAML reads as another type than text (`on`, `22:22`, `2024-01-01`); or none.

    `true` and `false` are what they look like, and an empty value is for the caller to judge.
    """
    if node.style is not None or node.value == "" or node.value in _BOOLEAN_WORDS:
        return []
    seen = _SURPRISES.get(_RESOLVER.resolve(yaml.ScalarNode, node.value, (True, False)))
    return [error(node, "surprising-value", f"YAML reads {quoted(node.value)} as {seen}.", hint)] if seen else []
