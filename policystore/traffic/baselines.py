"""Baselines: which endpoints a scope's jobs call, whether that still changes, and what is new.

A baseline's scope is an organization, a repository, an ARC cluster, or a single job. All are sums over jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Count, F, Max, Min, QuerySet, Sum

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint
from policystore.traffic.queries import Endpoint, endpoints_of, reached

# One row a repository, cluster or job.
Grouped = QuerySet[Any, Any]


@dataclass(frozen=True, slots=True)
class BaselineScope:
    """What a baseline is about; fields that the type does not need stay empty. All empty is the organization."""

    repository: str = ""
    workflow: str = ""
    job: str = ""
    cluster: str = ""
    is_job: bool = False

    @property
    def label(self) -> str:
        """What pages show."""
        if self.cluster and not self.is_job:
            return self.cluster
        named = "/".join(part for part in (self.repository, self.workflow) if part)
        return f"{named} · {self.job or 'unnamed job'}" if self.is_job else named

    @property
    def query(self) -> str:
        """The query string that names this scope in addresses."""
        parts = {"repository": self.repository, "workflow": self.workflow, "job": self.job, "cluster": self.cluster}
        told = {name: value for name, value in parts.items() if value}
        return urlencode({**told, "of": "job"} if self.is_job else told)


@dataclass(frozen=True, slots=True)
class Stability:
    """`creating` until there were enough runs, `stable` after as many without change, `unstable` when it just changed.

    `needed` is how many runs without change make it stable; `runs` is how many there were, at most one more.
    """

    state: str
    runs: int
    needed: int
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Item:
    """A line of the lists of repositories, clusters and jobs."""

    scope: BaselineScope
    endpoints: int
    calls: int
    last_seen_at: datetime


def rows_of(organization: Organization, scope: BaselineScope) -> QuerySet[JobEndpoint]:
    """The job endpoints that make up a baseline."""
    rows = JobEndpoint.objects.filter(organization=organization)
    if scope.is_job:
        return rows.filter(
            repository=scope.repository.lower(), workflow=scope.workflow, job=scope.job, cluster=scope.cluster
        )
    if scope.repository:
        return rows.filter(repository=scope.repository.lower())
    return rows.filter(cluster=scope.cluster) if scope.cluster else rows


def endpoints(organization: Organization, scope: BaselineScope, *, search: str = "") -> list[Endpoint]:
    """The endpoints of a baseline, by name."""
    return endpoints_of(rows_of(organization, scope), search=search)


def changelog(organization: Organization, scope: BaselineScope, *, count: int = 20) -> Sequence[Endpoint]:
    """The endpoints that appeared last, newest first."""
    found = endpoints_of(rows_of(organization, scope))
    return sorted(found, key=lambda endpoint: endpoint.first_seen_at, reverse=True)[:count]


def stability(organization: Organization, scope: BaselineScope) -> Stability:
    """Whether the baseline still changes, by the runs since it last did."""
    needed, recent = settings.BASELINE_STABLE_RUNS, settings.BASELINE_UNSTABLE_RUNS
    began = list(_runs_of(organization, scope).order_by("-pk").values_list("first_seen_at", flat=True)[: needed + 1])
    changed_at = _changed_at(organization, scope)
    if changed_at is None or len(began) < needed:
        return Stability("creating", len(began), needed, changed_at)
    since = sum(moment > changed_at for moment in began)
    if since >= needed:
        return Stability("stable", len(began), needed, changed_at)
    return Stability("unstable" if since < recent else "creating", len(began), needed, changed_at)


def had_enough_runs(organization: Organization, scope: BaselineScope) -> bool:
    """Whether so many runs were observed that the baseline is no longer being created."""
    needed: int = settings.BASELINE_STABLE_RUNS
    return _runs_of(organization, scope)[needed - 1 : needed].exists()


def repositories(organization: Organization, *, search: str = "") -> Grouped:
    """A line for each repository with traffic."""
    return _grouped(organization, ("repository",), search)


def clusters(organization: Organization, *, search: str = "") -> Grouped:
    """A line for each ARC cluster with traffic."""
    return _grouped(organization, ("cluster",), search).exclude(cluster="")


def jobs(organization: Organization, *, search: str = "") -> Grouped:
    """A line for each job with traffic."""
    return _grouped(organization, ("repository", "workflow", "job", "cluster"), search)


def item(row: dict[str, object], *, is_job: bool) -> Item:
    """A grouped row as a line of a list."""
    names = {name: str(row.get(name, "")) for name in ("repository", "workflow", "job", "cluster")}
    return Item(
        scope=BaselineScope(**names, is_job=is_job),
        endpoints=int(str(row["endpoints"])),
        calls=int(str(row["all_calls"])),
        last_seen_at=row["last"],  # type: ignore[arg-type]
    )


def _grouped(organization: Organization, names: tuple[str, ...], search: str) -> Grouped:
    rows = reached(JobEndpoint.objects.filter(organization=organization))
    for word in search.split()[:8]:
        rows = rows.filter(**{f"{names[0]}__icontains": word})
    counted = (
        rows.order_by()
        .values(*names)
        .annotate(
            endpoints=Count("host", distinct=True),
            all_calls=Sum(F("calls") - F("blocked_calls")),
            last=Max("last_seen_at"),
        )
    )
    grouped: Grouped = counted.order_by(*names)
    return grouped


def _runs_of(organization: Organization, scope: BaselineScope) -> QuerySet[JobRun]:
    rows = JobRun.objects.filter(organization=organization, calls__gt=0)
    if scope.is_job:
        return rows.filter(
            repository__iexact=scope.repository, workflow=scope.workflow, job=scope.job, cluster=scope.cluster
        )
    if scope.repository:
        return rows.filter(repository__iexact=scope.repository)
    return rows.filter(cluster=scope.cluster) if scope.cluster else rows


def _changed_at(organization: Organization, scope: BaselineScope) -> datetime | None:
    """When an endpoint last appeared that the scope had not called before."""
    firsts = (
        reached(rows_of(organization, scope))
        .order_by()
        .values("host", "port")
        .annotate(first=Min("first_seen_at"))
        .order_by("-first")
    )
    return firsts.values_list("first", flat=True).first()
