"""Finds and inserts network events, a delivery at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection

from policystore import json_rows
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
_ONCE = "ON CONFLICT (job_run_id, digest) DO NOTHING"
# As a join SQLite would read all events of the job run, and the whole delivery for each of them.
_KNOWN = """
SELECT digest FROM traffic_networkevent WHERE job_run_id = %s AND digest IN (SELECT digest FROM {digests} AS told)
"""


def known(run: JobRun, digests: Iterable[str]) -> set[str]:
    """Which of these digests are stored for the job run."""
    told = json_rows.parameter([(digest,) for digest in digests])
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN.format(digests=json_rows.source(digest="text")), [run.pk, told])
        return {digest for (digest,) in cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class Written:
    """Rows in the words of the database, so that nothing is left to do for them once it is locked."""

    statement: str
    parameters: Sequence[Any]
    is_each: bool


def written(run: JobRun, rows: Sequence[Row], received_at: datetime) -> Written:
    """Events that all arrived together, to be inserted."""
    at = connection.ops.adapt_datetimefield_value(received_at)
    return _WRITERS[connection.vendor]([run.organization_id, run.pk, at], rows)


def insert(events: Written) -> int:
    """Store those of the events that are not stored yet; returns how many that were."""
    if not events.parameters:
        return 0
    with connection.cursor() as cursor:
        execute = cursor.executemany if events.is_each else cursor.execute
        execute(events.statement, events.parameters)
        stored: int = cursor.rowcount
        return stored


def _as_json(common: list[Any], rows: Sequence[Row]) -> Written:
    """PostgreSQL takes the JSON apart as fast as it takes COPY's lines, and the statement is prepared once."""
    statement = f"{_INTO} SELECT %s, %s, %s, {_NAMES} FROM {json_rows.source(**_COLUMNS)} AS told {_ONCE}"  # noqa: S608 constants
    return Written(statement, [*common, json_rows.parameter(rows)] if rows else [], is_each=False)


def _row_by_row(common: list[Any], rows: Sequence[Row]) -> Written:
    """SQLite would need half as long again to take JSON apart."""
    marks = ", ".join(["%s"] * (len(common) + len(_COLUMNS)))
    of = json_rows.moments()
    values = [
        (*common, *row[:-2], of(row.occurred_at), None if row.client_at is None else of(row.client_at)) for row in rows
    ]
    return Written(f"{_INTO} VALUES ({marks}) {_ONCE}", values, is_each=True)


_WRITERS: dict[str, Callable[[list[Any], Sequence[Row]], Written]] = {"postgresql": _as_json, "sqlite": _row_by_row}
