"""Backoff: when to retry a delivery."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

# After this long a message is given up. The last attempt is made at that time.
KEEP_TRYING = timedelta(days=3)
FIRST = timedelta(seconds=10)
LONGEST = timedelta(hours=8)
GROWTH = 3
JITTER = 0.2


def delay(failures: int) -> timedelta:
    """Return the pause after so many failures in a row: 10 s, 30 s, 90 s … 8 h, with a random fifth more or less."""
    exact: timedelta = min(FIRST * GROWTH ** min(failures - 1, 20), LONGEST)
    # The jitter keeps all stores from calling a receiver at the same time when it comes back. It need not be secret.
    chance: float = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return exact * chance


def asked_delay(retry_after: str | None, *, now: datetime) -> timedelta:
    """Return the pause that a Retry-After header asks for, in seconds or as a date; 0 if it cannot be parsed."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return timedelta(seconds=min(int(text[:12]), int(KEEP_TRYING.total_seconds())))
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return timedelta(0)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(at - now, timedelta(0)), KEEP_TRYING)
