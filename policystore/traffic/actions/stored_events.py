"""Finds and inserts network events, a delivery at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection

from policystore import json_rows
from policystore.runners.models import JobRun


class Row(NamedTuple):
    """A network event as its delivery tells it; what all of a delivery have in common is not in it."""

    digest: str
    kind: str
    host: str
    port: int
    address: str
    process: str
    ancestry: tuple[dict[str, str], ...]
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
_KNOWN = """
SELECT e.digest FROM {digests} AS told
JOIN traffic_networkevent e ON e.digest = told.digest AND e.job_run_id = %s
"""


def known(run: JobRun, digests: Iterable[str]) -> set[str]:
    """Which of these digests are stored for the job run."""
    told = json_rows.parameter([(digest,) for digest in digests])
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN.format(digests=json_rows.source(digest="text")), [told, run.pk])
        return {digest for (digest,) in cursor.fetchall()}


def insert(run: JobRun, rows: Sequence[Row], received_at: datetime) -> None:
    """Store events that are not stored yet, all of which arrived together."""
    if rows:
        at = connection.ops.adapt_datetimefield_value(received_at)
        _INSERTS[connection.vendor]([run.organization_id, run.pk, at], rows)


def _as_json(common: list[Any], rows: Sequence[Row]) -> None:
    """PostgreSQL takes the JSON apart as fast as it takes COPY's lines, and the statement is prepared once."""
    statement = f"{_INTO} SELECT %s, %s, %s, {_NAMES} FROM {json_rows.source(**_COLUMNS)} AS told"  # noqa: S608 constants
    with connection.cursor() as cursor:
        cursor.execute(statement, [*common, json_rows.parameter(rows)])


def _row_by_row(common: list[Any], rows: Sequence[Row]) -> None:
    """SQLite would need half as long again to take JSON apart."""
    marks = ", ".join(["%s"] * (len(common) + len(_COLUMNS)))
    adapt = connection.ops.adapt_datetimefield_value
    values = [
        (
            *common,
            *row[:6],
            json.dumps(row.ancestry),
            *row[7:-2],
            adapt(row.occurred_at),
            None if row.client_at is None else adapt(row.client_at),
        )
        for row in rows
    ]
    with connection.cursor() as cursor:
        cursor.executemany(f"{_INTO} VALUES ({marks})", values)


_INSERTS: dict[str, Callable[[list[Any], Sequence[Row]], None]] = {"postgresql": _as_json, "sqlite": _row_by_row}
