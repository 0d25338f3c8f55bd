"""When to try again."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

# After this long a message is given up. The last attempt is made at that very moment.
KEEP_TRYING = timedelta(days=3)
FIRST = timedelta(seconds=10)
LONGEST = timedelta(hours=8)
GROWTH = 3
JITTER = 0.2


def delay(failures: int) -> timedelta:
    """The pause after so many failures in a row: 10 s, 30 s, 90 s … 8 h, each a fifth shorter or longer by chance."""
    exact: timedelta = min(FIRST * GROWTH ** min(failures - 1, 20), LONGEST)
    # Chance keeps receivers that come back from being asked by all stores at once; nobody gains by guessing it.
    chance: float = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return exact * chance


def asked_delay(retry_after: str | None, *, now: datetime) -> timedelta:
    """The pause that a Retry-After header asks for, in seconds or as a date; none where it says nothing readable."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return timedelta(seconds=min(int(text[:12]), int(KEEP_TRYING.total_seconds())))
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return timedelta(0)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(moment - now, timedelta(0)), KEEP_TRYING)
