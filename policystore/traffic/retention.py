"""Deletes network events and job runs when they expire.

Events older than EVENT_RETENTION_DAYS are deleted: whole partitions on PostgreSQL, small batches on SQLite. Verified
job runs are kept for JOB_RUN_RETENTION_DAYS, with their endpoints and detections. Unverified ones, which anyone can
invent, are kept for a day, and only the newest of each organization. Baselines are sums over all past job runs, and
are kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Min, Q, QuerySet
from django.utils import timezone

from policystore.db import transactions
from policystore.inventory.models import Organization
from policystore.runners.models import JobRun, LastFetch, VerifiedRun
from policystore.traffic import partitions
from policystore.traffic.models import NetworkEvent, RunBitmap

# A transaction of about 50 ms, during which the other writers of a SQLite store wait.
BATCH = 2000
UNVERIFIED_FOR = timedelta(hours=24)
MOST_UNVERIFIED = 10_000
RUNS_PER_STEP = 200
EVENTS_PER_STEP = 5_000


def prune_events(*, days: int, seconds: float = transactions.TURN_SECONDS, now: datetime | None = None) -> bool:
    """Delete events that arrived more than `days` days ago, for at most `seconds`; returns True if some are left.

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
    """Delete all events that arrived more than `days` days ago, however long that takes; returns how many."""
    cutoff = timezone.now() - timedelta(days=days)
    old = NetworkEvent.objects.filter(received_at__lt=cutoff)
    count = old.count()
    while prune_events(days=days):
        pass
    if partitions.are_used():
        # Also the old events of a partition that holds newer ones.
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
    """How long the oldest stored event has been due for deletion; zero if none is."""
    cutoff = (now or timezone.now()) - timedelta(days=days)
    if not partitions.are_used():
        oldest = NetworkEvent.objects.aggregate(oldest=Min("received_at"))["oldest"]
        return _since(oldest, cutoff)
    ended = partitions.ended_before(cutoff)
    return max(_since(ended[0].ends_at if ended else None, cutoff), _since(_oldest_in_default(), cutoff))


def delete_expired_runs(*, seconds: float = transactions.TURN_SECONDS, now: datetime | None = None) -> bool:
    """Delete expired job runs for at most `seconds`; returns True if some may be left."""
    now = now or timezone.now()
    cutoff = now - timedelta(days=settings.JOB_RUN_RETENTION_DAYS)
    RunBitmap.objects.filter(newest_at__lt=cutoff).delete()
    LastFetch.objects.filter(at__lt=cutoff).delete()
    VerifiedRun.objects.filter(at__lt=now - timedelta(hours=settings.JOB_RUN_OPEN_HOURS)).delete()
    return transactions.repeat_in_batches(
        lambda: _delete_runs(_oldest_before(cutoff)), size=RUNS_PER_STEP, seconds=seconds
    )


def delete_unverified_runs(*, seconds: float = transactions.TURN_SECONDS, now: datetime | None = None) -> bool:
    """Delete unverified job runs that are a day old or not among the newest of their organization.

    Stops after `seconds`; returns True if some may be left. Organizations take turns in any order, so that one with
    many such runs cannot hold up the others.
    """
    until = time.monotonic() + seconds
    cutoff = (now or timezone.now()) - UNVERIFIED_FOR
    rows = JobRun.objects.filter(verified_by="")
    for organization in Organization.objects.order_by("?"):
        step = partial(_delete_unverified, rows.filter(organization=organization), cutoff)
        if transactions.repeat_in_batches(step, size=RUNS_PER_STEP, seconds=until - time.monotonic()):
            return True
    return False


def _since(due: datetime | None, cutoff: datetime) -> timedelta:
    return max(cutoff - due, timedelta(0)) if due else timedelta(0)


def _oldest_in_default() -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT min(received_at) FROM {partitions.DEFAULT}")  # noqa: S608 a constant
        oldest: datetime | None = cursor.fetchone()[0]
    return oldest


def _delete_in_batches(table: str, cutoff: datetime, seconds: float) -> bool:
    """Delete old rows, oldest first; returns True if the time was up before the last one."""
    statement = (
        f"DELETE FROM {table} WHERE id IN"  # noqa: S608 constants
        f" (SELECT id FROM {table} WHERE received_at < %s ORDER BY received_at LIMIT {BATCH})"
    )

    def delete() -> int:
        with connection.cursor() as cursor:
            cursor.execute(statement, [connection.ops.adapt_datetimefield_value(cutoff)])
            deleted: int = cursor.rowcount
        return deleted

    return transactions.repeat_in_batches(delete, size=BATCH, seconds=seconds)


def _delete_unverified(rows: QuerySet[JobRun], cutoff: datetime) -> int:
    newest = rows.order_by("-pk").values_list("pk", flat=True)
    surplus = list(newest[MOST_UNVERIFIED : MOST_UNVERIFIED + 1])
    expired = rows.filter(Q(first_seen_at__lt=cutoff) | Q(pk__lte=surplus[0] if surplus else 0))
    ids = list(expired.order_by("pk").values_list("pk", flat=True)[:RUNS_PER_STEP])
    _delete_runs(ids, verified_by="")
    return len(ids)


def _oldest_before(cutoff: datetime) -> list[int]:
    """The expired ones among the oldest job runs. Ids are in the order of time, except for rows that are added late."""
    oldest = JobRun.objects.order_by("pk").values_list("pk", "first_seen_at")[:RUNS_PER_STEP]
    return [run_id for run_id, at in oldest if at < cutoff]


def _delete_runs(ids: Sequence[int], **condition: object) -> int:
    """Delete these job runs if they still meet the condition; returns how many.

    Their many events are deleted first, in transactions of their own, so that other writers do not wait long.
    """
    while events := list(NetworkEvent.objects.filter(job_run__in=ids).values_list("pk", flat=True)[:EVENTS_PER_STEP]):
        NetworkEvent.objects.filter(pk__in=events).delete()
    with transaction.atomic():
        held = JobRun.objects.select_for_update().filter(pk__in=ids, **condition).order_by("pk")
        return JobRun.objects.filter(pk__in=[run.pk for run in held]).delete()[1].get(JobRun._meta.label, 0)
