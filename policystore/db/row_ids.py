"""Ids of rows as anybody may write them in an address or a form."""

from __future__ import annotations

# What both databases compare with a column of numbers.
MOST = 2**62
MOST_DIGITS = 19


def read(written: str) -> int | None:
    """The id that a text names in decimal digits, at most MOST, which no row has; None for any other text."""
    if not (written.isascii() and written.isdecimal()) or len(written) > MOST_DIGITS:
        return None
    return min(int(written), MOST)
