"""Partitions of the network events table by the day of arrival (PostgreSQL only), so that retention drops whole tables.

A partition covers whole UTC days; its name says which: `traffic_networkevent_20261130_20261201` holds one day, and the
second date is excluded. The worker creates partitions ahead of time. A row that no partition covers goes to the default
partition, for example while no worker has run for days. Those are deleted in batches.

Creating and dropping wait at most LOCK_TIMEOUT for a lock, since ingest queues behind them. They raise
OperationalError when that time is up; the next turn tries again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from policystore.db import transactions, vendor
from policystore.db.transactions import Lock

TABLE = "traffic_networkevent"
DEFAULT = f"{TABLE}_default"
DAYS_AHEAD = 7
# Queries that do not name a time visit every partition, so a long retention gets wider ones.
MOST_PARTITIONS = 60
LOCK_TIMEOUT = "1s"

_NAME = re.compile(rf"{TABLE}_(\d{{8}})_(\d{{8}})")
_LIST = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass"
_IS_PARTITIONED = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)"


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


def are_used() -> bool:
    """True if the database has partitions: PostgreSQL, once migrated."""
    if not vendor.is_postgresql():
        return False
    with connection.cursor() as cursor:
        cursor.execute(_IS_PARTITIONED, [TABLE])
        row = cursor.fetchone()
    return bool(row and row[0])


def existing() -> list[Partition]:
    """All partitions except the default one, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(_LIST, [TABLE])
        matches = [_NAME.search(name) for (name,) in cursor.fetchall()]
    spans = [(_day(match[1]), _day(match[2])) for match in matches if match]
    return sorted((Partition.of_days(*span) for span in spans), key=lambda partition: partition.start)


def create_missing(*, start: date, end: date, retention_days: int) -> int:
    """Create partitions for all days from `start` until before `end` that have none; returns how many were created."""
    width = timedelta(days=max(1, retention_days // MOST_PARTITIONS))
    known, created, day = existing(), 0, start
    while day < end:
        covering = next((partition for partition in known if partition.start <= day < partition.end), None)
        if covering is None:
            next_start = min((partition.start for partition in known if partition.start > day), default=date.max)
            covering = Partition.of_days(day, min(day + width, next_start))
            created += _create(covering)
        day = covering.end
    return created


def drop(partition: Partition) -> None:
    """Drop a partition with all of its events."""
    with transaction.atomic(), connection.cursor() as cursor:
        _begin(cursor)
        cursor.execute(f"DROP TABLE IF EXISTS {partition.name}")


def ended_before(cutoff: datetime) -> Sequence[Partition]:
    """Partitions of which every event arrived before this time, oldest first."""
    return [partition for partition in existing() if partition.ends_at <= cutoff]


def make_partitioned() -> None:
    """Turn the plain table into a partitioned one, in the caller's transaction.

    The unique constraint has to include the partition key, so on PostgreSQL it is the lock on the job run, held while
    events are looked up and inserted, that keeps an event from being stored twice (see `store`). Only the
    default partition has the index on `received_at`: the others are dropped whole.
    """
    with connection.cursor() as cursor:
        for statement in _MAKE_PARTITIONED:
            cursor.execute(statement)


def _create(partition: Partition) -> bool:
    """Create and attach a partition, unless the default one holds events of its days, which would be refused.

    Attaching does not block reads and writes of the table, unlike `CREATE TABLE … PARTITION OF`.
    """
    starts_at, ends_at = _midnight(partition.start), partition.ends_at
    with transaction.atomic(), connection.cursor() as cursor:
        _begin(cursor)
        cursor.execute(f"SELECT to_regclass(%s) IS NOT NULL OR {_IN_DEFAULT}", [partition.name, starts_at, ends_at])
        if cursor.fetchone()[0]:
            return False
        cursor.execute(f"CREATE TABLE {partition.name} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        bounds = f"FROM ('{starts_at.isoformat()}') TO ('{ends_at.isoformat()}')"
        cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {partition.name} FOR VALUES {bounds}")
    return True


def _begin(cursor: CursorWrapper) -> None:
    """Limit how long the transaction waits for locks, and let no other worker change partitions until it ends."""
    cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    transactions.lock_exclusive(Lock.PARTITIONS, transactions.WHOLE_STORE)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _day(digits: str) -> date:
    return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))


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
