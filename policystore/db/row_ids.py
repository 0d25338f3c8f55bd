"""Parses the ids of rows in URLs and forms, where clients can write anything."""

from __future__ import annotations

# The largest number that both databases compare with a column of numbers.
MOST = 2**62
MOST_DIGITS = 19


def read(text: str) -> int | None:
    """Parse an id in decimal digits; a larger one than any row has becomes MOST. None for any other text."""
    if not (text.isascii() and text.isdecimal()) or len(text) > MOST_DIGITS:
        return None
    return min(int(text), MOST)
