"""Deletes network events and job runs when they expire.

Events older than EVENT_RETENTION_DAYS are deleted: whole partitions on PostgreSQL, small batches on SQLite. Verified
job runs are kept for JOB_RUN_RETENTION_DAYS, with their endpoints and detections. Unverified ones, which anyone can
invent, are kept for a day, and only the newest of each organization. Baselines are sums over all past job runs, and
are kept.

A partition of the events table covers whole UTC days of arrival; its name says which:
`traffic_networkevent_20261130_20261201` holds one day, and the second date is excluded. The worker creates partitions
ahead of time. A row that no partition covers goes to the default partition, for example while no worker has run for
days. Those are deleted in batches. Creating and dropping wait at most LOCK_TIMEOUT for a lock, since ingest queues
behind them. They raise OperationalError when that time is up; the next turn tries again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Min, Q, QuerySet
from django.utils import timezone

from policystore.db import transactions, vendor
from policystore.db.transactions import Lock
from policystore.inventory.models import Organization
from policystore.runners.models import JobRun, LastFetch, VerifiedRun
from policystore.traffic.models import NetworkEvent, RunBitmap

TABLE = "traffic_networkevent"
DEFAULT = f"{TABLE}_default"
DAYS_AHEAD = 7
# Queries that do not name a time visit every partition, so a long retention gets wider ones.
MOST_PARTITIONS = 60
LOCK_TIMEOUT = "1s"

_NAME = re.compile(rf"{TABLE}_(\d{{8}})_(\d{{8}})")
_LIST = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass"
_IS_PARTITIONED = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)"
# A transaction of about 50 ms, during which the other writers of a SQLite store wait.
BATCH = 2000
UNVERIFIED_FOR = timedelta(hours=24)
MOST_UNVERIFIED = 10_000
RUNS_PER_STEP = 200
EVENTS_PER_STEP = 5_000


class Partition(NamedTuple):
    """A partition and the days that it covers; `end` is excluded."""

    name: str
    start: date
    end: date

    @classmethod
    def of_days(cls, start: date, end: date) -> Partition:
        """The partition for these days."""
        return cls(f"{TABLE}_{start:%Y%m%d}_{end:%Y%m%d}", start, end)

    @property
    def ends_at(self) -> datetime:
        """The first instant that it does not cover."""
        return _midnight(self.end)


def prune_events(*, days: int, seconds: float = transactions.TURN_SECONDS, now: datetime | None = None) -> bool:
    """Delete events that arrived more than `days` days ago, for at most `seconds`; returns True if some are left.

    On PostgreSQL a partition is dropped once all of its events are that old, so events are kept for up to one
    partition (a day, or 1/60 of a long retention) longer.
    """
    cutoff = (now or timezone.now()) - timedelta(days=days)
    if not has_partitions():
        return _delete_in_batches(TABLE, cutoff, seconds)
    for partition in ended_before(cutoff):
        drop_partition(partition)
    return _delete_in_batches(DEFAULT, cutoff, seconds)


def delete_exactly(*, days: int) -> int:
    """Delete all events that arrived more than `days` days ago, however long that takes; returns how many."""
    cutoff = timezone.now() - timedelta(days=days)
    old = NetworkEvent.objects.filter(received_at__lt=cutoff)
    count = old.count()
    while prune_events(days=days):
        pass
    if has_partitions():
        # Also the old events of a partition that holds newer ones.
        old.delete()
    return count


def create_partitions(*, retention_days: int, days_back: int = 0) -> int:
    """Create the missing partitions of the coming days, and of past ones; returns how many were created.

    Does nothing on SQLite.
    """
    if not has_partitions():
        return 0
    today = timezone.now().date()
    day, end = today - timedelta(days=days_back), today + timedelta(days=DAYS_AHEAD)
    width = timedelta(days=max(1, retention_days // MOST_PARTITIONS))
    known, created = existing_partitions(), 0
    while day < end:
        covering = next((partition for partition in known if partition.start <= day < partition.end), None)
        if covering is None:
            next_start = min((partition.start for partition in known if partition.start > day), default=date.max)
            covering = Partition.of_days(day, min(day + width, next_start))
            created += _create_partition(covering)
        day = covering.end
    return created


def lag(*, days: int, now: datetime | None = None) -> timedelta:
    """How long the oldest stored event has been due for deletion; zero if none is."""
    cutoff = (now or timezone.now()) - timedelta(days=days)
    if not has_partitions():
        oldest = NetworkEvent.objects.aggregate(oldest=Min("received_at"))["oldest"]
        return _since(oldest, cutoff)
    ended = ended_before(cutoff)
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
        cursor.execute(f"SELECT min(received_at) FROM {DEFAULT}")  # noqa: S608 a constant
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


def has_partitions() -> bool:
    """True if the database has partitions: PostgreSQL, once migrated."""
    if not vendor.is_postgresql():
        return False
    with connection.cursor() as cursor:
        cursor.execute(_IS_PARTITIONED, [TABLE])
        row = cursor.fetchone()
    return bool(row and row[0])


def existing_partitions() -> list[Partition]:
    """All partitions except the default one, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(_LIST, [TABLE])
        matches = [_NAME.search(name) for (name,) in cursor.fetchall()]
    spans = [(date.fromisoformat(match[1]), date.fromisoformat(match[2])) for match in matches if match]
    return sorted((Partition.of_days(*span) for span in spans), key=lambda partition: partition.start)


def drop_partition(partition: Partition) -> None:
    """Drop a partition with all of its events."""
    with transaction.atomic(), connection.cursor() as cursor:
        _begin_change(cursor)
        cursor.execute(f"DROP TABLE IF EXISTS {partition.name}")


def ended_before(cutoff: datetime) -> Sequence[Partition]:
    """Partitions of which every event arrived before this time, oldest first."""
    return [partition for partition in existing_partitions() if partition.ends_at <= cutoff]


def make_partitioned() -> None:
    """Turn the plain table into a partitioned one, in the caller's transaction.

    The unique constraint has to include the partition key, so on PostgreSQL it is the lock on the job run, held while
    events are looked up and inserted, that keeps an event from being stored twice (see `store`). Only the default
    partition has the index on `received_at`: the others are dropped whole.
    """
    with connection.cursor() as cursor:
        for statement in _MAKE_PARTITIONED:
            cursor.execute(statement)


def _create_partition(partition: Partition) -> bool:
    """Create and attach a partition, unless the default one holds events of its days, which would be refused.

    Attaching does not block reads and writes of the table, unlike `CREATE TABLE … PARTITION OF`.
    """
    starts_at, ends_at = _midnight(partition.start), partition.ends_at
    with transaction.atomic(), connection.cursor() as cursor:
        _begin_change(cursor)
        cursor.execute(f"SELECT to_regclass(%s) IS NOT NULL OR {_IN_DEFAULT}", [partition.name, starts_at, ends_at])
        if cursor.fetchone()[0]:
            return False
        cursor.execute(f"CREATE TABLE {partition.name} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        bounds = f"FROM ('{starts_at.isoformat()}') TO ('{ends_at.isoformat()}')"
        cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {partition.name} FOR VALUES {bounds}")
    return True


def _begin_change(cursor: CursorWrapper) -> None:
    """Limit how long the transaction waits for locks, and let no other worker change partitions until it ends."""
    cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    transactions.lock_exclusive(Lock.PARTITIONS, transactions.WHOLE_STORE)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


_IN_DEFAULT = f"EXISTS (SELECT 1 FROM {DEFAULT} WHERE received_at >= %s AND received_at < %s)"  # noqa: S608 constants
# A sequence of its own, since before PostgreSQL 17 partitions cannot have identity columns.
_MAKE_PARTITIONED = (
    f"CREATE TEMPORARY TABLE kept ON COMMIT DROP AS TABLE {TABLE}",
    f"CREATE TABLE {TABLE}_columns (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
    f"DROP TABLE {TABLE}",
    f"CREATE TABLE {TABLE} (LIKE {TABLE}_columns INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    " PARTITION BY RANGE (received_at)",
    f"DROP TABLE {TABLE}_columns",
    f"CREATE SEQUENCE {TABLE}_id_seq OWNED BY {TABLE}.id",
    f"ALTER TABLE {TABLE} ALTER COLUMN id SET DEFAULT nextval('{TABLE}_id_seq')",
    f"ALTER TABLE {TABLE} ADD PRIMARY KEY (id, received_at)",
    f"ALTER TABLE {TABLE} ADD CONSTRAINT event_once_per_job_run UNIQUE (job_run_id, digest, received_at)",
    f"CREATE INDEX event_of_job_run ON {TABLE} (job_run_id, occurred_at DESC, id DESC)",
    f"CREATE INDEX event_noteworthy ON {TABLE} (organization_id, id DESC) WHERE status <> 'allowed' OR is_new",
    f"CREATE TABLE {DEFAULT} PARTITION OF {TABLE} DEFAULT",
    f"CREATE INDEX event_by_arrival ON {DEFAULT} (received_at)",
    f"INSERT INTO {TABLE} SELECT * FROM kept",  # noqa: S608 constants
    f"SELECT setval('{TABLE}_id_seq', (SELECT coalesce(max(id), 1) FROM kept), EXISTS (SELECT 1 FROM kept))",  # noqa: S608
)
