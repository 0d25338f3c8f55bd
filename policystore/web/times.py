"""Datetimes as people and clients write them, with or without an offset."""

from __future__ import annotations

from datetime import UTC, datetime


def in_utc(time: datetime) -> datetime:
    """Return the time in UTC; without an offset it counts as UTC. Raises OverflowError at the ends of the calendar."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
