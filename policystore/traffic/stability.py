"""Whether a baseline still changes, told by the runs since an endpoint last appeared in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Min, QuerySet
from django.db.models.functions import Lower

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.traffic.baselines import BaselineScope, rows_of
from policystore.traffic.queries import reached


@dataclass(frozen=True, slots=True)
class Stability:
    """`creating` until there were enough runs, `stable` after as many without change, `unstable` when it just changed.

    `needed` is how many runs without change make it stable; `runs` is how many there were, at most `needed`.
    """

    state: str
    runs: int
    needed: int


def of(organization: Organization, scope: BaselineScope) -> Stability:
    """How stable one baseline is."""
    return of_each(organization, [scope])[0]


def of_each(organization: Organization, scopes: Sequence[BaselineScope]) -> list[Stability]:
    """How stable each of these baselines is, in one query."""
    if not scopes:
        return []
    needed = settings.BASELINE_STABLE_RUNS
    parts = [_counting(number, organization, scope, needed) for number, scope in enumerate(scopes)]
    with connection.cursor() as cursor:
        statement = " UNION ALL ".join(sql for sql, _ in parts)
        cursor.execute(statement, [value for _, parameters in parts for value in parameters])
        counted: dict[int, list[int]] = {number: counts for number, *counts in cursor.fetchall()}
    return [_stability(counted[number], needed) for number in range(len(scopes))]


def changed_at(organization: Organization, scope: BaselineScope) -> datetime | None:
    """When an endpoint last appeared that the scope had not called before."""
    firsts = _first_seen(organization, scope).order_by("-first")
    return firsts.values_list("first", flat=True).first()


def had_enough_runs(organization: Organization, scope: BaselineScope) -> bool:
    """Whether so many runs were observed that the baseline is no longer being created."""
    needed: int = settings.BASELINE_STABLE_RUNS
    return _runs_of(organization, scope).order_by("-pk")[needed - 1 : needed].exists()


def _stability(counts: list[int], needed: int) -> Stability:
    runs, since, changes = counts
    if runs < needed or not changes:
        return Stability("creating", runs, needed)
    if since >= needed:
        return Stability("stable", runs, needed)
    return Stability("unstable" if since < settings.BASELINE_UNSTABLE_RUNS else "creating", runs, needed)


def _counting(number: int, organization: Organization, scope: BaselineScope, needed: int) -> tuple[str, list[Any]]:
    """A statement for one scope: its number, how many of its newest runs there are up to `needed`, how many of those
    were after its last change, and 1 if it ever changed."""
    runs, runs_parameters = _sql(_runs_of(organization, scope).order_by("-pk").values("first_seen_at")[:needed])
    firsts, firsts_parameters = _sql(_first_seen(organization, scope).values("first"))
    # Django wrote the inner statements; their values are parameters.
    return (
        f"SELECT {number}, COUNT(*), COALESCE(SUM(CASE WHEN r.first_seen_at > c.at THEN 1 ELSE 0 END), 0), COUNT(c.at)"  # noqa: S608
        f" FROM (SELECT MAX(f.first) AS at FROM ({firsts}) f) c CROSS JOIN ({runs}) r",
        [*firsts_parameters, *runs_parameters],
    )


def _sql(rows: QuerySet[Any, Any]) -> tuple[str, tuple[Any, ...]]:
    return rows.query.sql_with_params()


def _first_seen(organization: Organization, scope: BaselineScope) -> QuerySet[Any, Any]:
    rows = reached(rows_of(organization, scope)).order_by()
    firsts: QuerySet[Any, Any] = rows.values("host", "port").annotate(first=Min("first_seen_at"))
    return firsts


def _runs_of(organization: Organization, scope: BaselineScope) -> QuerySet[JobRun]:
    """The job runs that made calls, one for each workflow run."""
    counts = "counts_in_job" if scope.is_job else "counts_in_cluster" if scope.cluster else "counts_in_repository"
    rows = JobRun.objects.filter(organization=organization, calls__gt=0, **{counts: True})
    if scope.repository:
        rows = rows.alias(folded=Lower("repository")).filter(folded=scope.repository.lower())
    if scope.job:
        # As the index of named jobs has it.
        rows = rows.exclude(job="")
    if scope.is_job:
        return rows.filter(workflow=scope.workflow, job=scope.job, cluster=scope.cluster)
    return rows.filter(cluster=scope.cluster) if scope.cluster else rows
