"""Counts workflow runs rather than jobs: the jobs of a matrix, and re-runs, share a run id and count once.

A run counts once at each of three levels: in its job (one job key of a workflow), on its cluster and in its repository.
At each level, one job run represents its workflow run (`JobRun.counts_in_…`). An endpoint's runs are the workflow runs
of which any job run at that level reached it. A job run whose run id is unknown counts as a run of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence, Set
from typing import Any, Final, NamedTuple

from django.db.models import F

from policystore.db import transactions
from policystore.db.transactions import Lock
from policystore.runners.models import JobRun
from policystore.traffic.models import RunEndpoint

# In the order of the levels: the counters of JobEndpoint, and the marks of JobRun.
COUNTERS: Final = ("runs", "cluster_runs", "repository_runs")
MARKS: Final = ("counts_in_job", "counts_in_cluster", "counts_in_repository")

Endpoint = tuple[str, int]


class Sibling(NamedTuple):
    """Another job run of the same workflow run that made calls.

    By level, `shares` is true if it is in the same job, cluster or repository, and `counts` if it represents the run.
    """

    pk: int
    shares: tuple[bool, ...]
    counts: tuple[bool, ...]


def lock(run: JobRun) -> None:
    """Let no other job run of the same workflow run be counted until the transaction ends.

    Taken after the rows of job runs and before those of JobEndpoint.
    """
    if run.run_id:
        transactions.lock_exclusive(Lock.WORKFLOW_RUN, zlib.crc32(f"{run.organization_id} {run.run_id}".encode()))


def siblings(run: JobRun, job: dict[str, Any]) -> list[Sibling]:
    """The siblings of a job run that counts for this job, each placed by the job that it counts for itself."""
    if not run.run_id:
        return []
    rows = JobRun.objects.filter(organization_id=run.organization_id, run_id=run.run_id, calls__gt=0)
    return [
        _sibling(other, job)
        for other in rows.exclude(pk=run.pk).select_related("early").order_by("pk")
        if other.repository.lower() == job["repository"]
    ]


def _sibling(other: JobRun, job: dict[str, Any]) -> Sibling:
    counted = getattr(other, "early", None) or other
    on_cluster = counted.cluster == job["cluster"]
    in_job = on_cluster and (counted.workflow, counted.job) == (job["workflow"], job["job"])
    return Sibling(other.pk, (in_job, on_cluster, True), tuple(getattr(other, mark) for mark in MARKS))


def reached(others: Sequence[Sibling]) -> tuple[Set[Endpoint], ...]:
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


def mark(run: JobRun, others: Sequence[Sibling]) -> None:
    """Let the job run represent its workflow run at each level where no sibling does."""
    taken = [any(other.shares[level] and other.counts[level] for other in others) for level in range(len(MARKS))]
    _set(run, {name: not is_taken for name, is_taken in zip(MARKS, taken, strict=True)})


def hand_over(run: JobRun, others: Sequence[Sibling]) -> None:
    """Let a sibling represent the workflow run in place of this job run, which is about to be recounted."""
    for level, name in enumerate(MARKS):
        heir = next((other for other in others if other.shares[level]), None)
        if heir is not None and getattr(run, name):
            JobRun.objects.filter(pk=heir.pk).update(**{name: True})
    _set(run, dict.fromkeys(MARKS, False))


def _set(run: JobRun, values: dict[str, bool]) -> None:
    if any(getattr(run, name) != value for name, value in values.items()):
        JobRun.objects.filter(pk=run.pk).update(**values)
        for name, value in values.items():
            setattr(run, name, value)
