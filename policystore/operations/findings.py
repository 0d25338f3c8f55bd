"""What a look at the store found: a name, how bad it is, and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is: `problem` is what must be mended, `warning` what somebody should know."""

    GOOD = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    level: Level
    message: str

    @property
    def is_problem(self) -> bool:
        """Whether the store does not do its work until this is mended."""
        return self.level is Level.PROBLEM


@dataclass(frozen=True, slots=True)
class Checked:
    """A check's name and what it found."""

    name: str
    finding: Finding


# What does not apply to an installation finds nothing.
Check = Callable[[], Finding]
MaybeCheck = Callable[[], Finding | None]


def good(message: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Level.GOOD, message)


def warning(message: str) -> Finding:
    """The store does its work, but somebody should know."""
    return Finding(Level.WARNING, message)


def problem(message: str) -> Finding:
    """The store does not do all of its work."""
    return Finding(Level.PROBLEM, message)


def first_line(error: Exception) -> str:
    """What an error says, in one line: PostgreSQL's go on with details."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
