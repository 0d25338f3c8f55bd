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
# An endpoint is seen when it is reached; calls that were stopped tell only as long as there are no others.
_SEEN = """{column} = CASE
        WHEN (t.calls > t.blocked_calls) = (excluded.calls > excluded.blocked_calls)
        THEN {{{which}}}(t.{column}, excluded.{column})
        WHEN excluded.calls > excluded.blocked_calls THEN excluded.{column}
        ELSE t.{column}
    END"""
_ADDED = f"""calls = t.calls + excluded.calls, blocked_calls = t.blocked_calls + excluded.blocked_calls,
    {_SEEN.format(column="first_seen_at", which="least")},
    {_SEEN.format(column="last_seen_at", which="greatest")}"""
# Names and columns are constants of this module; every value is a parameter.
_RUN = f"""
INSERT INTO traffic_runendpoint AS t (organization_id, job_run_id, {_NAMES})
SELECT %s, %s, {_NAMES} FROM {{told}} AS told WHERE true
ON CONFLICT (job_run_id, host, port) DO UPDATE SET {_ADDED}
RETURNING host, port, calls - blocked_calls
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
AND (host, port) IN (SELECT host, port FROM {told} AS told) AND calls > blocked_calls
"""


@dataclass(slots=True)
class Tally:
    """Calls to one endpoint: how many, how many of them were stopped, and when it was reached first and last, or was
    called where it never was reached."""

    calls: int
    blocked_calls: int
    first_seen_at: datetime
    last_seen_at: datetime

    @property
    def values(self) -> tuple[int, int, datetime, datetime]:
        """Its fields, in order."""
        return self.calls, self.blocked_calls, self.first_seen_at, self.last_seen_at

    @property
    def reached(self) -> int:
        """How many calls went through."""
        return self.calls - self.blocked_calls

    def add(self, *, blocked: bool, at: datetime) -> None:
        """Count one more call."""
        was_reached = self.reached > 0
        self.calls += 1
        self.blocked_calls += blocked
        if was_reached == blocked:
            if not blocked:
                self.first_seen_at = self.last_seen_at = at
            return
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
    """Which of these endpoints the job has reached before."""
    with connection.cursor() as cursor:
        told = json_rows.parameter(sorted(asked))
        cursor.execute(_KNOWN.format(told=json_rows.source(**_KEY)), [*job.values(), told])
        return {(host, port) for host, port in cursor.fetchall()}


def add(run: JobRun, tallies: Mapping[Endpoint, Tally], job: Job) -> None:
    """Count the calls of one run, and under a job. The caller holds the run's row, so that deliveries take turns."""
    # One order for all, so that two deliveries of one job never wait for each other in a circle.
    rows = [(*endpoint, *tallies[endpoint].values) for endpoint in sorted(tallies)]
    counted = _execute(_RUN, _COUNTED, [run.organization_id, run.pk], rows, returns=True)
    # Where what the run reached is what was just added, it had not got there before.
    fresh = {(host, port) for host, port, reached in counted if reached and tallies[host, port].reached == reached}
    job_rows = [(*row, int(row[:2] in fresh)) for row in rows]
    _execute(_JOB, {**_COUNTED, "runs": "integer"}, [*job.values()], job_rows)


def take_back(job: Job, tallies: Mapping[Endpoint, Tally]) -> None:
    """Count all calls of one run no more under a job; when endpoints were seen first and last stays as it is."""
    for (host, port), tally in sorted(tallies.items()):
        rows = JobEndpoint.objects.filter(**job, host=host, port=port)
        rows.filter(calls__lte=tally.calls).delete()
        rows.update(
            calls=F("calls") - tally.calls,
            blocked_calls=F("blocked_calls") - tally.blocked_calls,
            runs=F("runs") - int(tally.reached > 0),
        )


def _execute(
    statement: str, columns: dict[str, str], parameters: list[Any], rows: list[Any], *, returns: bool = False
) -> list[Any]:
    least, greatest = _LEAST[connection.vendor]
    written = statement.format(told=json_rows.source(**columns), least=least, greatest=greatest)
    with connection.cursor() as cursor:
        cursor.execute(written, [*parameters, json_rows.parameter(rows)])
        return cursor.fetchall() if returns else []
