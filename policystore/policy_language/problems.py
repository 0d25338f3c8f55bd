"""The problems of a document, described so that a person can fix them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class Positioned(Protocol):
    """Something at a 1-based line and column (in characters)."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class Position(NamedTuple):
    """A line and column."""

    line: int
    column: int


START = Position(1, 1)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem at a 1-based line and column (in characters).

    `code` is a stable kebab-case id, `message` says what is wrong and `hint` what would be right (may be empty).
    """

    severity: Severity
    line: int
    column: int
    code: str
    message: str
    hint: str = ""

    @property
    def is_risk(self) -> bool:
        """True if the problem is that data could be exfiltrated, not that something is wrong."""
        return self.code.startswith("risk-")


def summary(problems: Sequence[Problem]) -> str:
    """How many problems of each severity there are, such as “1 error, 2 warnings”."""
    counts = Counter(problem.severity for problem in problems)
    parts = [f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in SEVERITIES if counts[kind]]
    return ", ".join(parts) or "No problems in the text"


def quoted(text: str) -> str:
    """A value as messages quote it: at most 80 characters of it."""
    return f"“{text}”" if len(text) <= 80 else f"“{text[:77]}…”"


def error(at: Positioned, code: str, message: str, hint: str = "") -> Problem:
    """A problem that stops the save."""
    return Problem("error", at.line, at.column, code, message, hint)


def warning(at: Positioned, code: str, message: str, hint: str = "") -> Problem:
    """A problem that the author should know of."""
    return Problem("warning", at.line, at.column, code, message, hint)
