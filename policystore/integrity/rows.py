"""Rows of the database by what they mean, and how two sets of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# Values of these columns are long, or nobody's business.
_HIDDEN = frozenset({"text", "reply", "endpoints", "open exceptions", "search text", "digest", "description"})
_MAX_SHOWN = 100


class Row(NamedTuple):
    """One row: what it is, such as "attachment", and what identifies it, such as a scope key."""

    kind: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.key}" if self.key else self.kind


Columns = Mapping[str, Any]
Rows = Mapping[Row, Columns]


class Subject(NamedTuple):
    """The subject of a problem: a policy, an endpoint set, or the rest of an organization, by type and id."""

    type: str
    id: int


def differences(stored: Rows, recorded: Rows) -> Iterator[str]:
    """One sentence for each row and column that is not as the history recorded it."""
    for row in sorted(recorded.keys() - stored.keys()):
        yield f"The {row} is missing from the database, but the history has it."
    for row in sorted(stored.keys() - recorded.keys()):
        yield f"The {row} is in the database, but the history does not have it."
    for row in sorted(stored.keys() & recorded.keys()):
        for column, value in recorded[row].items():
            if stored[row][column] != value:
                shown = _shown(column, stored[row][column], value)
                yield f"The column “{column}” of the {row} differs from the history{shown}."


def _shown(column: str, stored: Any, recorded: Any) -> str:
    values = f" (stored: {stored}, recorded: {recorded})"
    return "" if column in _HIDDEN or len(values) > 2 * _MAX_SHOWN else values
