"""Adds calls to what is kept per run and endpoint, and per job and endpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.db import connection

from policystore.runners.models import JobRun
from policystore.traffic.models import NetworkEvent, Status

ROWS_PER_STATEMENT = 100

_RUN_COLUMNS = "organization_id, job_run_id, host, port, calls, blocked_calls, first_seen_at, last_seen_at"
_JOB_COLUMNS = (
    "organization_id, repository, workflow, job, cluster, host, port, calls, blocked_calls, runs, first_seen_at,"
    " last_seen_at"
)
_LEAST = {"postgresql": ("LEAST", "GREATEST"), "sqlite": ("min", "max")}

Endpoint = tuple[str, int]


def job_of(run: JobRun) -> dict[str, Any]:
    """The job that a run belongs to, as field values."""
    return {
        "organization_id": run.organization_id,
        "repository": run.repository.lower(),
        "workflow": run.workflow,
        "job": run.job,
        "cluster": run.cluster,
    }


def add(run: JobRun, events: Sequence[NetworkEvent]) -> None:
    """Count the calls of one run. The caller holds the run's row, so that one delivery counts at a time."""
    grouped: defaultdict[Endpoint, list[NetworkEvent]] = defaultdict(list)
    for event in events:
        grouped[event.host, event.port].append(event)
    # One order for all, so that two deliveries of one job never wait for each other in a circle.
    ordered = sorted(grouped)
    before = _endpoints_of(run, ordered)
    _upsert_run([_run_row(run, endpoint, grouped[endpoint]) for endpoint in ordered])
    _upsert_job([_job_row(run, endpoint, grouped[endpoint], endpoint not in before) for endpoint in ordered])


def _endpoints_of(run: JobRun, asked: Sequence[Endpoint]) -> set[Endpoint]:
    rows = run.endpoints.filter(host__in={host for host, _ in asked})
    return set(rows.values_list("host", "port"))


def _run_row(run: JobRun, endpoint: Endpoint, events: Sequence[NetworkEvent]) -> tuple[Any, ...]:
    return (run.organization_id, run.pk, *endpoint, *_counts(events), *_times(events))


def _job_row(run: JobRun, endpoint: Endpoint, events: Sequence[NetworkEvent], fresh: bool) -> tuple[Any, ...]:
    return (*job_of(run).values(), *endpoint, *_counts(events), int(fresh), *_times(events))


def _counts(events: Sequence[NetworkEvent]) -> tuple[int, int]:
    return len(events), sum(event.status == Status.BLOCKED for event in events)


def _times(events: Sequence[NetworkEvent]) -> tuple[Any, Any]:
    adapt = connection.ops.adapt_datetimefield_value
    moments = [event.occurred_at for event in events]
    return adapt(min(moments)), adapt(max(moments))


def _upsert_run(rows: Sequence[tuple[Any, ...]]) -> None:
    _upsert("traffic_runendpoint", _RUN_COLUMNS, "job_run_id, host, port", "", rows)


def _upsert_job(rows: Sequence[tuple[Any, ...]]) -> None:
    key = "organization_id, repository, workflow, job, cluster, host, port"
    _upsert("traffic_jobendpoint", _JOB_COLUMNS, key, "runs = t.runs + excluded.runs, ", rows)


def _upsert(table: str, columns: str, key: str, more: str, rows: Sequence[tuple[Any, ...]]) -> None:
    least, greatest = _LEAST[connection.vendor]
    one = f"({', '.join(['%s'] * len(rows[0]))})"
    with connection.cursor() as cursor:
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            part = rows[start : start + ROWS_PER_STATEMENT]
            # Names and columns are constants of this module; every value is a parameter.
            cursor.execute(
                f"INSERT INTO {table} AS t ({columns}) VALUES {', '.join([one] * len(part))} "  # noqa: S608
                f"ON CONFLICT ({key}) DO UPDATE SET {more}calls = t.calls + excluded.calls, "
                f"blocked_calls = t.blocked_calls + excluded.blocked_calls, "
                f"first_seen_at = {least}(t.first_seen_at, excluded.first_seen_at), "
                f"last_seen_at = {greatest}(t.last_seen_at, excluded.last_seen_at)",
                [value for row in part for value in row],
            )
