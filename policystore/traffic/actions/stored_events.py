"""Finds and inserts network events, a delivery at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection

from policystore.db import bulk_json
from policystore.runners.models import JobRun


class Row(NamedTuple):
    """A network event as its delivery tells it; what all of a delivery have in common is not in it.

    `ancestry` is JSON.
    """

    digest: str
    kind: str
    host: str
    port: int
    address: str
    process: str
    ancestry: str
    step: str
    status: str
    is_new: bool
    reason: str
    occurred_at: datetime
    client_at: datetime | None


# How PostgreSQL reads a Row.
_COLUMNS = {
    "digest": "text",
    "kind": "text",
    "host": "text",
    "port": "integer",
    "address": "text",
    "process": "text",
    "ancestry": "jsonb",
    "step": "text",
    "status": "text",
    "is_new": "boolean",
    "reason": "text",
    "occurred_at": "timestamptz",
    "client_at": "timestamptz",
}
_NAMES = ", ".join(_COLUMNS)
_INTO = f"INSERT INTO traffic_networkevent (organization_id, job_run_id, received_at, {_NAMES})"
# An event of a job may have arrived before the row that stands for the job now (see `early_runs`), and another process'
# clock may be ahead.
_EARLIER, _LATER = timedelta(days=1), timedelta(hours=1)


def known(run: JobRun, digests: Iterable[str], received_at: datetime) -> set[str]:
    """Return those of these digests that are stored for the job run. The caller holds the run's row."""
    is_stored, parameters = _is_stored(run, received_at)
    statement = f"SELECT digest FROM {bulk_json.source(digest='text')} AS told WHERE {is_stored}"  # noqa: S608 constants
    with connection.cursor() as cursor:
        cursor.execute(statement, [bulk_json.parameter([(digest,) for digest in digests]), *parameters])
        return {digest for (digest,) in cursor.fetchall()}


def _is_stored(run: JobRun, received_at: datetime) -> tuple[str, list[Any]]:
    """The condition that `told.digest` is stored for the job run, and its parameters.

    On PostgreSQL no index spans the partitions, so only those of the job run's time are searched. OFFSET 0 keeps this
    an index look-up for each row; as a join, one new event could read all events of the job run.
    """
    when, parameters = "", list[Any]([run.pk])
    if connection.vendor == "postgresql":
        when = "AND stored.received_at BETWEEN %s AND %s"
        parameters += [min(run.first_seen_at, received_at) - _EARLIER, received_at + _LATER]
    condition = f"""EXISTS (
        SELECT 1 FROM traffic_networkevent stored
        WHERE stored.job_run_id = %s AND stored.digest = told.digest {when} LIMIT 1 OFFSET 0
    )"""  # noqa: S608 constants
    return condition, parameters


@dataclass(frozen=True, slots=True)
class Written:
    """Rows in the words of the database, so that nothing is left to do for them once it is locked."""

    statement: str
    parameters: Sequence[Any]
    is_each: bool


def written(run: JobRun, rows: Sequence[Row], received_at: datetime) -> Written:
    """Events that all arrived together, to be inserted."""
    return _WRITERS[connection.vendor](run, rows, received_at)


def insert(events: Written) -> int:
    """Store those of the events that are not stored yet; returns how many that were."""
    if not events.parameters:
        return 0
    with connection.cursor() as cursor:
        execute = cursor.executemany if events.is_each else cursor.execute
        execute(events.statement, events.parameters)
        stored: int = cursor.rowcount
        return stored


def _as_json(run: JobRun, rows: Sequence[Row], received_at: datetime) -> Written:
    """PostgreSQL parses the JSON as fast as COPY's lines.

    What is stored already is looked up by the statement: a unique index of a partitioned table has to include the time
    of arrival. The caller holds the job run's row, so no other delivery stores the same event meanwhile.
    """
    if not rows:
        return Written("", [], is_each=False)
    is_stored, parameters = _is_stored(run, received_at)
    source = bulk_json.source(**_COLUMNS)
    statement = f"{_INTO} SELECT %s, %s, %s, {_NAMES} FROM {source} AS told WHERE NOT {is_stored}"  # noqa: S608 constants
    return Written(statement, [*_common(run, received_at), bulk_json.parameter(rows), *parameters], is_each=False)


def _row_by_row(run: JobRun, rows: Sequence[Row], received_at: datetime) -> Written:
    """SQLite would need half as long again to take JSON apart."""
    common = _common(run, received_at)
    marks = ", ".join(["%s"] * (len(common) + len(_COLUMNS)))
    of = bulk_json.time_encoder()
    values = [
        (*common, *row[:-2], of(row.occurred_at), None if row.client_at is None else of(row.client_at)) for row in rows
    ]
    statement = f"{_INTO} VALUES ({marks}) ON CONFLICT (job_run_id, digest) DO NOTHING"
    return Written(statement, values, is_each=True)


def _common(run: JobRun, received_at: datetime) -> list[Any]:
    """The values of the first columns, which are the same for all rows of a delivery."""
    return [run.organization_id, run.pk, connection.ops.adapt_datetimefield_value(received_at)]


_Writer = Callable[[JobRun, Sequence[Row], datetime], Written]
_WRITERS: dict[str, _Writer] = {"postgresql": _as_json, "sqlite": _row_by_row}
