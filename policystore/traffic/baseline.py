"""Baselines: which endpoints the jobs of a scope call, what is new, and whether the baseline is stable.

A baseline's scope is an organization, a repository, an ARC cluster, or a single job. Each is a sum over jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import CharField, Count, F, Max, Min, Q, QuerySet, Sum, Value
from django.db.models.functions import Cast, Concat, Lower

from policystore.inventory.models import Organization
from policystore.policies.search import search_words
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint
from policystore.web.pagination import Order, Page, query_string

PAGE_SIZE = 50
# The columns that identify a scope, by its type.
LISTS = {
    "repository": Order(("repository",), (str,)),
    "cluster": Order(("cluster",), (str,)),
    "job": Order(("repository", "workflow", "job", "cluster"), (str, str, str, str)),
}
# The orders of endpoints, by their names in page addresses. None needs an index, since each page adds up the jobs of
# the whole scope anyway.
ENDPOINT_ORDERS = {
    "": Order(("host", "port"), (str, int)),
    "calls": Order(("all_calls", "host", "port"), (int, str, int), descending=True),
    "runs": Order(("all_runs", "host", "port"), (int, str, int), descending=True),
    "jobs": Order(("jobs", "host", "port"), (int, str, int), descending=True),
    "last": Order(("last", "host", "port"), (datetime, str, int), descending=True),
}
APPEARANCE_ORDER = Order(("first", "host", "port"), (datetime, str, int), descending=True)

# One row per repository, cluster or job.
Grouped = QuerySet[Any, Any]


@dataclass(frozen=True, slots=True)
class BaselineScope:
    """What a baseline is about. Fields that the type does not need are empty; all empty is the organization."""

    repository: str = ""
    workflow: str = ""
    job: str = ""
    cluster: str = ""
    is_job: bool = False

    @classmethod
    def of_job(cls, row: JobRun | JobEndpoint) -> BaselineScope:
        """The scope of the job that a row belongs to."""
        return cls(row.repository, row.workflow, row.job, row.cluster, is_job=True)

    @property
    def type(self) -> str:
        """`organization`, `repository`, `cluster` or `job`."""
        if self.is_job:
            return "job"
        return "repository" if self.repository else "cluster" if self.cluster else "organization"

    @property
    def label(self) -> str:
        """The scope as pages show it."""
        if self.type == "cluster":
            return self.cluster
        named = "/".join(part for part in (self.repository, self.workflow) if part)
        if not self.is_job:
            return named
        # The same job on a cluster and elsewhere has two baselines.
        return f"{named} · {self.job or 'unnamed job'}" + (f" on {self.cluster}" if self.cluster else "")

    @property
    def runs(self) -> str:
        """The field of JobEndpoint whose sum is the number of workflow runs."""
        return {"job": "runs", "cluster": "cluster_runs"}.get(self.type, "repository_runs")

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters that name this scope in URLs, some of them empty."""
        names = {name: getattr(self, name) for name in LISTS["job"].columns}
        return {**names, "of": "job" if self.is_job else ""}

    @property
    def query(self) -> str:
        """The query string that names this scope in URLs."""
        return query_string(self.parameters)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of a baseline, summed over the jobs of its scope; `jobs` is how many of them call it."""

    host: str
    port: int
    calls: int
    runs: int
    jobs: int
    first_seen_at: Any
    last_seen_at: Any

    @property
    def text(self) -> str:
        """`host:port`, as a policy lists it."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Appearance:
    """An endpoint when it was new, and the job that called it first."""

    endpoint: Endpoint
    job: BaselineScope | None


@dataclass(frozen=True, slots=True)
class Item:
    """A row of the lists of repositories, clusters and jobs."""

    scope: BaselineScope
    endpoints: int
    calls: int
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Stability:
    """A baseline's `state`: `creating` until there are enough runs, `stable`, or `unstable` after a recent change.

    `needed` is the number of runs without change that make it stable; `runs` counts those so far, at most `needed`.
    """

    state: str
    runs: int
    needed: int


def rows_of(organization: Organization, scope: BaselineScope) -> QuerySet[JobEndpoint]:
    """The job endpoints that make up a baseline."""
    rows = JobEndpoint.objects.filter(organization=organization)
    if scope.type == "organization":
        return rows
    names = {name: getattr(scope, name) for name in LISTS[scope.type].columns}
    if "repository" in names:
        names["repository"] = scope.repository.lower()
    return rows.filter(**names)


def reached(rows: QuerySet[JobEndpoint]) -> QuerySet[JobEndpoint]:
    """The rows without endpoints that were only ever blocked, which are not part of a baseline."""
    return rows.filter(calls__gt=F("blocked_calls"))


def endpoints(organization: Organization, scope: BaselineScope, *, search: str = "") -> list[Endpoint]:
    """All endpoints of a baseline, ordered by host and port."""
    rows = _grouped_endpoints(organization, scope, search=search)
    return [_endpoint(row) for row in rows.order_by(*ENDPOINT_ORDERS[""].columns)]


def first_endpoints(organization: Organization, limit: int) -> list[Endpoint]:
    """The first endpoints of the organization's baseline, ordered by host and port."""
    rows = _grouped_endpoints(organization, BaselineScope()).order_by(*ENDPOINT_ORDERS[""].columns)
    return [_endpoint(row) for row in rows[:limit]]


def endpoints_page(
    organization: Organization, scope: BaselineScope, *, search: str, sort: str, after: str
) -> Page[Endpoint]:
    """A page of the baseline's endpoints after a cursor, in one of ENDPOINT_ORDERS."""
    rows = _grouped_endpoints(organization, scope, search=search)
    page = ENDPOINT_ORDERS[sort].page(rows, after=after, size=PAGE_SIZE)
    return replace(page, rows=[_endpoint(row) for row in page.rows])


def changelog_page(organization: Organization, scope: BaselineScope, *, before: str) -> Page[Appearance]:
    """The endpoints that appeared last, newest first, each with the job that called it first."""
    page = APPEARANCE_ORDER.page(_grouped_endpoints(organization, scope), after=before, size=PAGE_SIZE)
    shown = [_endpoint(row) for row in page.rows]
    earliest = reached(rows_of(organization, scope)).filter(
        host__in={endpoint.host for endpoint in shown}, first_seen_at__in={e.first_seen_at for e in shown}
    )
    jobs = {(row.host, row.port, row.first_seen_at): BaselineScope.of_job(row) for row in earliest.order_by("-pk")}
    appeared = [Appearance(e, jobs.get((e.host, e.port, e.first_seen_at))) for e in shown]
    return replace(page, rows=appeared)


def items_page(organization: Organization, kind: str, *, search: str, after: str) -> Page[Item]:
    """A page of the repositories, clusters or jobs with traffic (`kind`, a key of LISTS), after a cursor."""
    page = LISTS[kind].page(_grouped(organization, kind, search), after=after, size=PAGE_SIZE)
    return replace(page, rows=[_item(row, kind) for row in page.rows])


def first_items(organization: Organization, kind: str, *, search: str, limit: int | None = None) -> list[Item]:
    """The first repositories, clusters or jobs with traffic, at most `limit`; all of them without a limit."""
    return [_item(row, kind) for row in _grouped(organization, kind, search)[:limit]]


def _item(row: dict[str, Any], kind: str) -> Item:
    names = {name: row[name] for name in LISTS[kind].columns}
    scope = BaselineScope(**names, is_job=kind == "job")
    return Item(scope, endpoints=row["endpoints"], calls=row["all_calls"], last_seen_at=row["last"])


def _grouped(organization: Organization, kind: str, search: str) -> Grouped:
    columns = LISTS[kind].columns
    rows = reached(JobEndpoint.objects.filter(organization=organization))
    if kind == "cluster":
        rows = rows.exclude(cluster="")
    for word in search_words(search):
        rows = rows.filter(reduce(or_, (Q(**{f"{name}__icontains": word}) for name in columns)))
    endpoint = Concat("host", Value(":"), Cast("port", CharField()))
    counted: Grouped = (
        rows.order_by()
        .values(*columns)
        .annotate(
            endpoints=Count(endpoint, distinct=True),
            all_calls=Sum(F("calls") - F("blocked_calls")),
            last=Max("last_seen_at"),
        )
        .order_by(*columns)
    )
    return counted


def _grouped_endpoints(organization: Organization, scope: BaselineScope, *, search: str = "") -> Grouped:
    """A row per endpoint that was reached."""
    matching = reached(rows_of(organization, scope))
    for word in search_words(search.lower()):
        matching = matching.filter(host__contains=word)
    grouped: Grouped = (
        matching.order_by()
        .values("host", "port")
        .annotate(
            all_calls=Sum(F("calls") - F("blocked_calls")),
            all_runs=Sum(scope.runs),
            jobs=Count("pk"),
            first=Min("first_seen_at"),
            last=Max("last_seen_at"),
        )
    )
    return grouped


def _endpoint(row: dict[str, Any]) -> Endpoint:
    return Endpoint(*(row[name] for name in ("host", "port", "all_calls", "all_runs", "jobs", "first", "last")))


def stability(organization: Organization, scope: BaselineScope) -> Stability:
    """The stability of one baseline."""
    return stabilities(organization, [scope])[0]


def stabilities(organization: Organization, scopes: Sequence[BaselineScope]) -> list[Stability]:
    """The stability of each of these baselines, in one query."""
    if not scopes:
        return []
    needed = settings.BASELINE_STABLE_RUNS
    parts = [_counting(number, organization, scope, needed) for number, scope in enumerate(scopes)]
    with connection.cursor() as cursor:
        statement = " UNION ALL ".join(sql for sql, _ in parts)
        cursor.execute(statement, [value for _, parameters in parts for value in parameters])
        counted: dict[int, list[int]] = {number: counts for number, *counts in cursor.fetchall()}
    return [_stability(counted[number], needed) for number in range(len(scopes))]


def first_seen(organization: Organization, scope: BaselineScope) -> QuerySet[Any, Any]:
    """A row per endpoint of a baseline: host, port, and `first`, when it was reached first."""
    rows = reached(rows_of(organization, scope)).order_by()
    firsts: QuerySet[Any, Any] = rows.values("host", "port").annotate(first=Min("first_seen_at"))
    return firsts


def changed_at(organization: Organization, scope: BaselineScope) -> datetime | None:
    """When an endpoint last appeared that the scope had not called before."""
    firsts = first_seen(organization, scope).order_by("-first")
    return firsts.values_list("first", flat=True).first()


def has_enough_runs(organization: Organization, scope: BaselineScope) -> bool:
    """True if enough runs were observed that the baseline is no longer being created."""
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
    """A statement for one scope, and its parameters.

    It selects the scope's number, how many of its newest runs there are (up to `needed`), how many of those came after
    the scope's last change, and 1 if it ever changed.
    """
    runs, runs_parameters = _sql(_runs_of(organization, scope).order_by("-pk").values("first_seen_at")[:needed])
    firsts, firsts_parameters = _sql(first_seen(organization, scope).values("first"))
    # Django wrote the inner statements; their values are parameters.
    return (
        f"SELECT {number}, COUNT(*), COALESCE(SUM(CASE WHEN r.first_seen_at > c.at THEN 1 ELSE 0 END), 0), COUNT(c.at)"  # noqa: S608
        f" FROM (SELECT MAX(f.first) AS at FROM ({firsts}) f) c CROSS JOIN ({runs}) r",
        [*firsts_parameters, *runs_parameters],
    )


def _sql(rows: QuerySet[Any, Any]) -> tuple[str, tuple[Any, ...]]:
    return rows.query.sql_with_params()


def _runs_of(organization: Organization, scope: BaselineScope) -> QuerySet[JobRun]:
    """The job runs that made calls, one per workflow run."""
    counts = {"job": "counts_in_job", "cluster": "counts_in_cluster"}.get(scope.type, "counts_in_repository")
    rows = JobRun.objects.filter(organization=organization, calls__gt=0, **{counts: True})
    if scope.repository:
        rows = rows.alias(folded=Lower("repository")).filter(folded=scope.repository.lower())
    if scope.job:
        # The condition of the partial index on named jobs.
        rows = rows.exclude(job="")
    if scope.is_job:
        return rows.filter(workflow=scope.workflow, job=scope.job, cluster=scope.cluster)
    return rows.filter(cluster=scope.cluster) if scope.type == "cluster" else rows
