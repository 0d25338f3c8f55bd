"""Finds and inserts network events, a delivery in one statement each: the database takes them as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from django.db import connection

from policystore import json_rows
from policystore.runners.models import JobRun
from policystore.traffic.models import NetworkEvent

# How the database reads an event.
_COLUMNS = {
    "organization_id": "bigint",
    "job_run_id": "bigint",
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
    "received_at": "timestamptz",
}
_NAMES = ", ".join(_COLUMNS)
_INSERT = f"INSERT INTO traffic_networkevent ({_NAMES}) SELECT {_NAMES} FROM {{events}} AS events"  # noqa: S608 constants
_KNOWN = """
SELECT e.digest FROM {digests} AS told
JOIN traffic_networkevent e ON e.digest = told.digest AND e.job_run_id = %s
"""
_values = attrgetter(*_COLUMNS)


def known(run: JobRun, digests: Iterable[str]) -> set[str]:
    """Which of these digests are stored for the job run."""
    told = json_rows.parameter([(digest,) for digest in digests])
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN.format(digests=json_rows.source(digest="text")), [told, run.pk])
        return {digest for (digest,) in cursor.fetchall()}


def insert(events: Sequence[NetworkEvent]) -> None:
    """Store events that are not stored yet; they get no id here."""
    if not events:
        return
    rows = [_values(event) for event in events]
    with connection.cursor() as cursor:
        cursor.execute(_INSERT.format(events=json_rows.source(**_COLUMNS)), [json_rows.parameter(rows)])
