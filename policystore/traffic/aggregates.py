"""Adds calls to the aggregates per run and endpoint, and per job and endpoint: one statement each for any number.

Workflow runs are counted rather than jobs: the jobs of a matrix, and re-runs, share a run id and count once. A run
counts once at each of three levels: in its job (one job key of a workflow), on its cluster and in its repository. At
each level, one job run represents its workflow run (`JobRun.counts_in_…`). An endpoint's runs are the workflow runs of
which any job run at that level reached it. A job run whose run id is unknown counts as a run of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import F
from django.db.models.functions import Lower

from policystore.db import bulk_json, transactions, vendor
from policystore.db.transactions import Lock
from policystore.runners.models import JobRun
from policystore.traffic.models import EarlyRun, RunEndpoint

Endpoint = tuple[str, int]
Job = dict[str, Any]
# Numbers of workflow runs: in the job, on the cluster, in the repository.
Counts = tuple[int, int, int]
NO_COUNTS: Mapping[Endpoint, Counts] = {}
# In the order of the levels: the counters of JobEndpoint, and the marks of JobRun.
COUNTERS: Final = ("runs", "cluster_runs", "repository_runs")
MARKS: Final = ("counts_in_job", "counts_in_cluster", "counts_in_repository")

_KEY = {"host": "text", "port": "integer"}
_COUNTED = {
    **_KEY,
    "calls": "integer",
    "blocked_calls": "integer",
    "first_seen_at": "timestamptz",
    "last_seen_at": "timestamptz",
}
_COUNTED_OF_JOB = {**_COUNTED, **dict.fromkeys(COUNTERS, "integer")}
_NAMES = ", ".join(_COUNTED)
# An endpoint is seen when it is reached; blocked calls count only as long as there are no others.
_SEEN = """{column} = CASE
        WHEN (t.calls > t.blocked_calls) = (excluded.calls > excluded.blocked_calls)
        THEN CASE WHEN t.{column} {sign} excluded.{column} THEN t.{column} ELSE excluded.{column} END
        WHEN excluded.calls > excluded.blocked_calls THEN excluded.{column}
        ELSE t.{column}
    END"""
_ADDED = f"""calls = t.calls + excluded.calls, blocked_calls = t.blocked_calls + excluded.blocked_calls,
    {_SEEN.format(column="first_seen_at", sign="<")},
    {_SEEN.format(column="last_seen_at", sign=">")}"""
# Names and columns are constants of this module; every value is a parameter.
_RUN = f"""
INSERT INTO traffic_runendpoint AS t (organization_id, job_run_id, {_NAMES})
SELECT %s, %s, {_NAMES} FROM {{source}} AS added WHERE true
ON CONFLICT (job_run_id, host, port) DO UPDATE SET {_ADDED}
RETURNING host, port, calls - blocked_calls
"""  # noqa: S608
_COUNTERS = ", ".join(COUNTERS)
_UPSERT = f"""
INSERT INTO traffic_jobendpoint AS t (organization_id, repository, workflow, job, cluster, {_NAMES}, {_COUNTERS})
SELECT %s, %s, %s, %s, %s, {_NAMES}, {_COUNTERS} FROM {{source}} AS added WHERE true
ON CONFLICT (organization_id, repository, workflow, job, cluster, host, port) DO UPDATE SET
"""  # noqa: S608
_JOB = f"{_UPSERT} {', '.join(f'{name} = t.{name} + excluded.{name}' for name in COUNTERS)}, {_ADDED}"
# All of these rows exist and are locked, so none is inserted.
_TAKEN_BACK = _UPSERT + ", ".join(
    f"{name} = t.{name} - excluded.{name}" for name in ("calls", "blocked_calls", *COUNTERS)
)
# As a join, SQLite would read all endpoints of the job, and all the asked ones for each of them.
_AMONG = """
FROM traffic_jobendpoint
WHERE organization_id = %s AND repository = %s AND workflow = %s AND job = %s AND cluster = %s
AND (host, port) IN (SELECT host, port FROM {source} AS asked)
"""
_KNOWN = f"SELECT host, port {_AMONG} AND calls > blocked_calls"
_HELD = f"SELECT host, port, calls, {_COUNTERS} {_AMONG}"
# In the order in which `add` locks rows, which is Python's, so that the two cannot deadlock.
_LOCK_IN_ORDER = ' ORDER BY host COLLATE "C", port FOR UPDATE'
_EMPTIED = f"DELETE {_AMONG}"


@dataclass(slots=True)
class Tally:
    """Calls to one endpoint: how many, and how many of them were blocked.

    `first_seen_at` and `last_seen_at` are when it was reached, or if it never was, when it was called.
    """

    calls: int
    blocked_calls: int
    first_seen_at: datetime
    last_seen_at: datetime

    @property
    def values(self) -> tuple[int, int, datetime, datetime]:
        """The fields, in order."""
        return self.calls, self.blocked_calls, self.first_seen_at, self.last_seen_at

    @property
    def reached(self) -> int:
        """The number of calls that went through."""
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


def tally(calls: Iterable[tuple[Endpoint, bool, datetime]]) -> dict[Endpoint, Tally]:
    """The sums of calls, each given by its endpoint, whether it was blocked, and when it happened."""
    tallies: dict[Endpoint, Tally] = {}
    for endpoint, blocked, at in calls:
        of_endpoint = tallies.get(endpoint)
        if of_endpoint is None:
            of_endpoint = tallies[endpoint] = Tally(0, 0, at, at)
        of_endpoint.add(blocked=blocked, at=at)
    return tallies


class _Sibling(NamedTuple):
    """Another job run of the same workflow run that made calls.

    By level, `shares` is true if it is in the same job, cluster or repository, and `counts` if it represents the run.
    """

    pk: int
    shares: tuple[bool, ...]
    counts: tuple[bool, ...]


def job_of(run: JobRun, early: EarlyRun | None = None) -> Job:
    """The job that a run belongs to, as field values; with `early`, the one that its calls count for so far."""
    known = early or run
    names = {"repository": known.repository.lower(), "workflow": known.workflow, "job": known.job}
    return {"organization_id": run.organization_id, **names, "cluster": known.cluster}


def new_endpoints(run: JobRun, called: Set[Endpoint], job: Job) -> Set[Endpoint]:
    """Those of the called endpoints that no earlier run of the same job called.

    Empty for a job's first run, where all would be new. The jobs of a matrix are one run.
    """
    if not called:
        return set()
    rows = _execute(_KNOWN, _KEY, [*job.values()], sorted(called), returns=True)
    unknown = called - {(host, port) for host, port in rows}
    return unknown if unknown and _had_earlier_run(run) else set()


def _had_earlier_run(run: JobRun) -> bool:
    same = JobRun.objects.alias(folded=Lower("repository")).filter(
        organization_id=run.organization_id,
        # The expression of the index. With a condition on the plain name as well, SQLite would use no index.
        folded=run.repository.lower(),
        workflow=run.workflow,
        job=run.job,
        cluster=run.cluster,
        calls__gt=0,
    )
    if run.job:
        # The condition of the partial index on named jobs.
        same = same.exclude(job="")
    # Without a run id, each job run is a run of its own.
    return same.exclude(run_id=run.run_id).exists() or (not run.run_id and same.exclude(pk=run.pk).exists())


def add(
    run: JobRun, tallies: Mapping[Endpoint, Tally], job: Job, carried: Mapping[Endpoint, Counts] = NO_COUNTS
) -> None:
    """Count the calls of one job run for the run and for a job.

    The caller holds the run's row, so that batches of one run are counted one after another. `carried` are the counts
    of workflow runs that `take_back` returned.
    """
    # Always in the same order, so that two batches of one job cannot deadlock.
    rows = [(*endpoint, *tallies[endpoint].values) for endpoint in sorted(tallies)]
    counted = _execute(_RUN, _COUNTED, [run.organization_id, run.pk], rows, returns=True)
    # If the run reached an endpoint only with these calls, it had not reached it before.
    fresh = {(host, port) for host, port, reached in counted if reached and tallies[host, port].reached == reached}
    known = _known_to_siblings(run, job) if fresh or not run.counts_in_repository else ()
    job_rows = [(*row, *_runs_added(row[:2], fresh, known, carried)) for row in rows]
    _execute(_JOB, _COUNTED_OF_JOB, [*job.values()], job_rows)


def _known_to_siblings(run: JobRun, job: Job) -> Sequence[Set[Endpoint]]:
    _lock_workflow_run(run)
    others = _siblings(run, job)
    if not any(getattr(run, name) for name in MARKS):
        _mark(run, others)
    return _reached(others)


def _runs_added(
    endpoint: Endpoint, fresh: Set[Endpoint], known: Sequence[Set[Endpoint]], carried: Mapping[Endpoint, Counts]
) -> Counts:
    more = carried.get(endpoint, (0, 0, 0))
    if endpoint not in fresh:
        return more
    job, cluster, repository = (count + (endpoint not in level) for count, level in zip(more, known, strict=True))
    return job, cluster, repository


def take_back(run: JobRun, job: Job, tallies: Mapping[Endpoint, Tally]) -> dict[Endpoint, Counts]:
    """Undo counting all calls of one job run for a job, but keep when endpoints were seen first and last.

    Returns the counts of workflow runs of endpoints for which the job has no other calls: siblings rely on them.
    """
    _lock_workflow_run(run)
    others = _siblings(run, job)
    known = _reached(others)
    _hand_over(run, others)
    left: dict[Endpoint, Counts] = {}
    taken = []
    statement = vendor.choose(postgresql=_HELD + _LOCK_IN_ORDER, sqlite=_HELD)
    for host, port, calls, *counts in _execute(statement, _KEY, [*job.values()], sorted(tallies), returns=True):
        endpoint, tally = (host, port), tallies[host, port]
        of_run = [int(tally.reached > 0 and endpoint not in level) for level in known]
        if calls > tally.calls:
            taken.append((*endpoint, *tally.values, *of_run))
        else:
            _, cluster, repository = (count - one for count, one in zip(counts, of_run, strict=True))
            left[endpoint] = (0, cluster, repository)
    _execute(_TAKEN_BACK, _COUNTED_OF_JOB, [*job.values()], taken)
    _execute(_EMPTIED, _KEY, [*job.values()], list(left))
    return left


def _lock_workflow_run(run: JobRun) -> None:
    """Let no other job run of the same workflow run be counted until the transaction ends.

    Taken after the rows of job runs and before those of JobEndpoint.
    """
    if run.run_id:
        transactions.lock_exclusive(Lock.WORKFLOW_RUN, zlib.crc32(f"{run.organization_id} {run.run_id}".encode()))


def _siblings(run: JobRun, job: Job) -> list[_Sibling]:
    """The siblings of a job run that counts for this job, each placed by the job that it counts for itself."""
    if not run.run_id:
        return []
    rows = JobRun.objects.filter(organization_id=run.organization_id, run_id=run.run_id, calls__gt=0)
    return [
        _sibling(other, job)
        for other in rows.exclude(pk=run.pk).select_related("early").order_by("pk")
        if other.repository.lower() == job["repository"]
    ]


def _sibling(other: JobRun, job: Job) -> _Sibling:
    counted = getattr(other, "early", None) or other
    on_cluster = counted.cluster == job["cluster"]
    in_job = on_cluster and (counted.workflow, counted.job) == (job["workflow"], job["job"])
    return _Sibling(other.pk, (in_job, on_cluster, True), tuple(getattr(other, mark) for mark in MARKS))


def _reached(others: Sequence[_Sibling]) -> tuple[Set[Endpoint], ...]:
    """The endpoints that these job runs have reached, by level."""
    by_level: tuple[set[Endpoint], ...] = (set(), set(), set())
    if not others:
        return by_level
    shares = {other.pk: other.shares for other in others}
    rows = RunEndpoint.objects.filter(job_run__in=list(shares), calls__gt=F("blocked_calls"))
    for pk, host, port in rows.values_list("job_run_id", "host", "port"):
        for level, endpoints in enumerate(by_level):
            if shares[pk][level]:
                endpoints.add((host, port))
    return by_level


def _mark(run: JobRun, others: Sequence[_Sibling]) -> None:
    """Let the job run represent its workflow run at each level where no sibling does."""
    taken = [any(other.shares[level] and other.counts[level] for other in others) for level in range(len(MARKS))]
    _set_marks(run, {name: not is_taken for name, is_taken in zip(MARKS, taken, strict=True)})


def _hand_over(run: JobRun, others: Sequence[_Sibling]) -> None:
    """Let a sibling represent the workflow run in place of this job run, which is about to be recounted."""
    for level, name in enumerate(MARKS):
        heir = next((other for other in others if other.shares[level]), None)
        if heir is not None and getattr(run, name):
            JobRun.objects.filter(pk=heir.pk).update(**{name: True})
    _set_marks(run, dict.fromkeys(MARKS, False))


def _set_marks(run: JobRun, values: dict[str, bool]) -> None:
    if any(getattr(run, name) != value for name, value in values.items()):
        JobRun.objects.filter(pk=run.pk).update(**values)
        for name, value in values.items():
            setattr(run, name, value)


def _execute(
    statement: str, columns: dict[str, str], parameters: list[Any], rows: Sequence[Any], *, returns: bool = False
) -> list[Any]:
    if not rows:
        return []
    with connection.cursor() as cursor:
        cursor.execute(statement.format(source=bulk_json.source(**columns)), [*parameters, bulk_json.parameter(rows)])
        return cursor.fetchall() if returns else []
