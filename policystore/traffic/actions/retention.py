"""Removes network events that are older than the retention: whole partitions on PostgreSQL, small batches on SQLite."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Min
from django.utils import timezone

from policystore.db import batches
from policystore.traffic import partitions
from policystore.traffic.models import NetworkEvent

# A transaction of some 50 ms, for which the other writers of a SQLite store wait.
BATCH = 2000


def prune_events(*, days: int, seconds: float = batches.TURN_SECONDS, now: datetime | None = None) -> bool:
    """Remove events that arrived more than `days` days ago, for at most so many seconds; returns True if some are left.

    On PostgreSQL a partition is dropped once all of its events are that old, so events are kept for up to one
    partition (a day, or 1/60 of a long retention) longer.
    """
    cutoff = (now or timezone.now()) - timedelta(days=days)
    if not partitions.are_used():
        return _delete_in_batches(partitions.TABLE, cutoff, seconds)
    for partition in partitions.ended_before(cutoff):
        partitions.drop(partition)
    return _delete_in_batches(partitions.DEFAULT, cutoff, seconds)


def delete_exactly(*, days: int) -> int:
    """Remove all events that arrived more than `days` days ago, however long that takes; returns how many."""
    cutoff = timezone.now() - timedelta(days=days)
    old = NetworkEvent.objects.filter(received_at__lt=cutoff)
    count = old.count()
    while prune_events(days=days):
        pass
    if partitions.are_used():
        # Those of a partition that holds newer ones, too.
        old.delete()
    return count


def create_partitions(*, retention_days: int, days_back: int = 0) -> int:
    """Create the partitions of the coming days, and of past ones; returns how many. Does nothing on SQLite."""
    if not partitions.are_used():
        return 0
    today = timezone.now().date()
    start, end = today - timedelta(days=days_back), today + timedelta(days=partitions.DAYS_AHEAD)
    return partitions.create_missing(start=start, end=end, retention_days=retention_days)


def lag(*, days: int, now: datetime | None = None) -> timedelta:
    """How long events have been due to be removed that are still stored; zero if there are none."""
    cutoff = (now or timezone.now()) - timedelta(days=days)
    if not partitions.are_used():
        oldest = NetworkEvent.objects.aggregate(oldest=Min("received_at"))["oldest"]
        return _since(oldest, cutoff)
    ended = partitions.ended_before(cutoff)
    return max(_since(ended[0].ends_at if ended else None, cutoff), _since(_oldest_in_default(), cutoff))


def _since(due: datetime | None, cutoff: datetime) -> timedelta:
    return max(cutoff - due, timedelta(0)) if due else timedelta(0)


def _oldest_in_default() -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT min(received_at) FROM {partitions.DEFAULT}")  # noqa: S608 a constant
        oldest: datetime | None = cursor.fetchone()[0]
    return oldest


def _delete_in_batches(table: str, cutoff: datetime, seconds: float) -> bool:
    """Delete old rows, oldest first; returns True if the time was over before the last one."""
    statement = (
        f"DELETE FROM {table} WHERE id IN"  # noqa: S608 constants
        f" (SELECT id FROM {table} WHERE received_at < %s ORDER BY received_at LIMIT {BATCH})"
    )

    def delete() -> int:
        with connection.cursor() as cursor:
            cursor.execute(statement, [connection.ops.adapt_datetimefield_value(cutoff)])
            deleted: int = cursor.rowcount
        return deleted

    return batches.repeat(delete, size=BATCH, seconds=seconds)
