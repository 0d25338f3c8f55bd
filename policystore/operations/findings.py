"""Findings of checks: a name, a level, and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """The level of a finding: a `problem` must be fixed, a `warning` should be known."""

    GOOD = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    level: Level
    message: str

    @property
    def is_problem(self) -> bool:
        """True if the store does not do all of its work until this is fixed."""
        return self.level is Level.PROBLEM


@dataclass(frozen=True, slots=True)
class Checked:
    """A check's name and what it found."""

    name: str
    finding: Finding


# A check that does not apply to an installation returns None.
Check = Callable[[], Finding]
MaybeCheck = Callable[[], Finding | None]


def good(message: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Level.GOOD, message)


def warning(message: str) -> Finding:
    """The store does its work, but an administrator should know."""
    return Finding(Level.WARNING, message)


def problem(message: str) -> Finding:
    """The store does not do all of its work."""
    return Finding(Level.PROBLEM, message)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; PostgreSQL adds details in further lines."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
