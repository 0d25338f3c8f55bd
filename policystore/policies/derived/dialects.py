"""The index and the counters on one kind of database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from django.db.models import Q

Parameters = tuple[str, ...]
# A statement and its parameters.
Statement = tuple[str, Parameters]


class Dialect(Protocol):
    """What each database does in its own way."""

    # Makes everything, in one transaction, whatever of it is there already.
    structure: tuple[str, ...]
    # Of each table the statement that puts the rows with ids above its first parameter and up to its second into the
    # index, unless they are there.
    fills: Mapping[str, str]
    # Comes after that, each by itself and outside a transaction.
    afterwards: tuple[str, ...]

    def is_whole(self, ask: Callable[[str], int]) -> bool:
        """Whether every trigger is there; `ask` gives the number that a statement finds."""

    def in_texts(self, word: str) -> Statement:
        """Finds the ids of all policies whose text has this word in it, and of some others."""

    def in_scopes(self, word: str) -> Statement:
        """Finds the ids of all attachments whose scope has this word in it, and of some others."""

    def anywhere(self, word: str) -> Statement:
        """Finds the ids of all policies that have this word in their text or a scope, and of others; some twice."""

    def found_by(self, statement: Statement) -> Q:
        """The rows with the ids that a statement finds, looked up by the index of their ids."""


def counts(index: Dialect, words: list[str], most: int) -> Statement:
    """Finds one row with the number of ids that `anywhere` finds for each of these words, counted up to `most`."""
    found = [index.anywhere(word) for word in words]
    # The words are among the parameters.
    each = [f"(SELECT count(*) FROM (SELECT 1 FROM ({ids}) AS ids LIMIT {most}) AS found)" for ids, _ in found]  # noqa: S608
    return f"SELECT {', '.join(each)}", tuple(parameter for _, parameters in found for parameter in parameters)
