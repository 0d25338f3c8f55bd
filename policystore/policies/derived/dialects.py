"""The index and the counters on one kind of database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

Parameters = tuple[str, ...]


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

    def candidates(self, word: str) -> tuple[str, Parameters]:
        """A statement that finds the ids of all policies whose text or one of whose scopes has this word in it, and of
        some others, with its parameters."""
