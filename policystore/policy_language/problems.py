"""The problems of a document, described so that a person can fix them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


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


def quoted(text: str) -> str:
    """A value as messages quote it: at most 80 characters of it."""
    return f"“{text}”" if len(text) <= 80 else f"“{text[:77]}…”"


def error(line: int, column: int, code: str, message: str, hint: str = "") -> Problem:
    """A problem that stops the save."""
    return Problem("error", line, column, code, message, hint)


def warning(line: int, column: int, code: str, message: str, hint: str = "") -> Problem:
    """A problem that the author should know of."""
    return Problem("warning", line, column, code, message, hint)
