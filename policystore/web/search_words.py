"""What somebody writes into a search box, as the words that are looked for."""

from __future__ import annotations

# Each is a condition of its own in the statement.
MOST_WORDS = 8


def words(search: str) -> list[str]:
    """The words of a search; of a longer one the first MOST_WORDS."""
    return search.split()[:MOST_WORDS]
