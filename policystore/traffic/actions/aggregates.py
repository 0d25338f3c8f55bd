"""Adds calls to what is kept per run and endpoint, and per job and endpoint: one statement each for any number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import F

from policystore import json_rows
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint

Endpoint = tuple[str, int]
Job = dict[str, Any]

_KEY = {"host": "text", "port": "integer"}
_COUNTED = {
    **_KEY,
    "calls": "integer",
    "blocked_calls": "integer",
    "first_seen_at": "timestamptz",
    "last_seen_at": "timestamptz",
}
_NAMES = ", ".join(_COUNTED)
_LEAST = {"postgresql": ("LEAST", "GREATEST"), "sqlite": ("min", "max")}
_ADDED = """calls = t.calls + excluded.calls, blocked_calls = t.blocked_calls + excluded.blocked_calls,
    first_seen_at = {least}(t.first_seen_at, excluded.first_seen_at),
    last_seen_at = {greatest}(t.last_seen_at, excluded.last_seen_at)"""
# Names and columns are constants of this module; every value is a parameter.
_RUN = f"""
INSERT INTO traffic_runendpoint AS t (organization_id, job_run_id, {_NAMES})
SELECT %s, %s, {_NAMES} FROM {{told}} AS told WHERE true
ON CONFLICT (job_run_id, host, port) DO UPDATE SET {_ADDED}
RETURNING host, port, calls
"""  # noqa: S608
_JOB = f"""
INSERT INTO traffic_jobendpoint AS t (organization_id, repository, workflow, job, cluster, {_NAMES}, runs)
SELECT %s, %s, %s, %s, %s, {_NAMES}, runs FROM {{told}} AS told WHERE true
ON CONFLICT (organization_id, repository, workflow, job, cluster, host, port)
DO UPDATE SET runs = t.runs + excluded.runs, {_ADDED}
"""  # noqa: S608
# As a join SQLite would read all endpoints of the job, and all that is asked for each of them.
_KNOWN = """
SELECT host, port FROM traffic_jobendpoint
WHERE organization_id = %s AND repository = %s AND workflow = %s AND job = %s AND cluster = %s
AND (host, port) IN (SELECT host, port FROM {told} AS told)
"""


@dataclass(slots=True)
class Tally:
    """Calls to one endpoint: how many, how many of them were stopped, and when the first and the last were."""

    calls: int
    blocked_calls: int
    first_seen_at: datetime
    last_seen_at: datetime

    @property
    def values(self) -> tuple[int, int, datetime, datetime]:
        """Its fields, in order."""
        return self.calls, self.blocked_calls, self.first_seen_at, self.last_seen_at

    def add(self, *, blocked: bool, at: datetime) -> None:
        """Count one more call."""
        self.calls += 1
        self.blocked_calls += blocked
        if at < self.first_seen_at:
            self.first_seen_at = at
        if at > self.last_seen_at:
            self.last_seen_at = at


def job_of(run: JobRun) -> Job:
    """The job that a run belongs to, as field values."""
    return {
        "organization_id": run.organization_id,
        "repository": run.repository.lower(),
        "workflow": run.workflow,
        "job": run.job,
        "cluster": run.cluster,
    }


def known(job: Job, asked: Iterable[Endpoint]) -> set[Endpoint]:
    """Which of these endpoints the job has called before."""
    with connection.cursor() as cursor:
        told = json_rows.parameter(sorted(asked))
        cursor.execute(_KNOWN.format(told=json_rows.source(**_KEY)), [*job.values(), told])
        return {(host, port) for host, port in cursor.fetchall()}


def add(run: JobRun, tallies: Mapping[Endpoint, Tally], job: Job) -> None:
    """Count the calls of one run, and under a job. The caller holds the run's row, so that deliveries take turns."""
    # One order for all, so that two deliveries of one job never wait for each other in a circle.
    rows = [(*endpoint, *tallies[endpoint].values) for endpoint in sorted(tallies)]
    counted = _execute(_RUN, _COUNTED, [run.organization_id, run.pk], rows, returns=True)
    # Where the run's count is what was just added, the run had not called there before.
    fresh = {(host, port) for host, port, calls in counted if tallies[host, port].calls == calls}
    job_rows = [(*row, int(row[:2] in fresh)) for row in rows]
    _execute(_JOB, {**_COUNTED, "runs": "integer"}, [*job.values()], job_rows)


def take_back(job: Job, tallies: Mapping[Endpoint, Tally]) -> None:
    """Count all calls of one run no more under a job; when endpoints were seen first and last stays as it is."""
    for (host, port), tally in sorted(tallies.items()):
        rows = JobEndpoint.objects.filter(**job, host=host, port=port)
        rows.filter(runs__lte=1).delete()
        rows.update(
            calls=F("calls") - tally.calls, blocked_calls=F("blocked_calls") - tally.blocked_calls, runs=F("runs") - 1
        )


def _execute(
    statement: str, columns: dict[str, str], parameters: list[Any], rows: list[Any], *, returns: bool = False
) -> list[Any]:
    least, greatest = _LEAST[connection.vendor]
    written = statement.format(told=json_rows.source(**columns), least=least, greatest=greatest)
    with connection.cursor() as cursor:
        cursor.execute(written, [*parameters, json_rows.parameter(rows)])
        return cursor.fetchall() if returns else []
