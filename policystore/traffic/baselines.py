"""Baselines: which endpoints a scope's jobs call, whether that still changes, and what is new.

A baseline's scope is an organization, a repository, an ARC cluster, or a single job. All are sums over jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any
from urllib.parse import urlencode

from django.db.models import CharField, Count, F, Max, Q, QuerySet, Sum, Value
from django.db.models.functions import Cast, Concat

from policystore.inventory.models import Organization
from policystore.policies.search import search_words
from policystore.traffic.models import JobEndpoint
from policystore.traffic.queries import Endpoint, endpoint_of, grouped_endpoints, reached
from policystore.web.pagination import Order, Page

PAGE_SIZE = 100
REPOSITORIES = Order(("repository",), (str,))
CLUSTERS = Order(("cluster",), (str,))
JOBS = Order(("repository", "workflow", "job", "cluster"), (str, str, str, str))
ENDPOINT_ORDER = Order(("host", "port"), (str, int))
APPEARANCE_ORDER = Order(("first", "host", "port"), (datetime, str, int), descending=True)

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
        if not self.is_job:
            return named
        # The same job on a cluster and elsewhere are two baselines.
        return f"{named} · {self.job or 'unnamed job'}" + (f" on {self.cluster}" if self.cluster else "")

    @property
    def runs(self) -> str:
        """The field of JobEndpoint whose sum is the number of workflow runs."""
        if self.is_job:
            return "runs"
        return "cluster_runs" if self.cluster else "repository_runs"

    @property
    def query(self) -> str:
        """The query string that names this scope in addresses."""
        parts = {"repository": self.repository, "workflow": self.workflow, "job": self.job, "cluster": self.cluster}
        told = {name: value for name, value in parts.items() if value}
        return urlencode({**told, "of": "job"} if self.is_job else told)


@dataclass(frozen=True, slots=True)
class Appearance:
    """An endpoint when it was new, and the job that called it first."""

    endpoint: Endpoint
    job: BaselineScope | None


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
    rows = grouped_endpoints(rows_of(organization, scope), search=search, runs=scope.runs)
    return [endpoint_of(row) for row in rows.order_by(*ENDPOINT_ORDER.columns)]


def endpoints_page(organization: Organization, scope: BaselineScope, *, search: str, after: str) -> Page[Endpoint]:
    """A page of the same, after a cursor."""
    rows = grouped_endpoints(rows_of(organization, scope), search=search, runs=scope.runs)
    page = ENDPOINT_ORDER.page(rows, after=after, size=PAGE_SIZE)
    return replace(page, rows=[endpoint_of(row) for row in page.rows])


def changelog_page(organization: Organization, scope: BaselineScope, *, before: str) -> Page[Appearance]:
    """The endpoints that appeared last, newest first, each with the job that called it first."""
    rows = rows_of(organization, scope)
    page = APPEARANCE_ORDER.page(grouped_endpoints(rows, runs=scope.runs), after=before, size=PAGE_SIZE)
    found = [endpoint_of(row) for row in page.rows]
    earliest = reached(rows).filter(
        host__in={endpoint.host for endpoint in found}, first_seen_at__in={e.first_seen_at for e in found}
    )
    jobs = {(row.host, row.port, row.first_seen_at): _scope_of_job(row) for row in earliest.order_by("-pk")}
    appeared = [Appearance(e, jobs.get((e.host, e.port, e.first_seen_at))) for e in found]
    return replace(page, rows=appeared)


def repositories(organization: Organization, *, search: str = "") -> Grouped:
    """A line for each repository with traffic."""
    return _grouped(organization, REPOSITORIES, search)


def clusters(organization: Organization, *, search: str = "") -> Grouped:
    """A line for each ARC cluster with traffic."""
    return _grouped(organization, CLUSTERS, search).exclude(cluster="")


def jobs(organization: Organization, *, search: str = "") -> Grouped:
    """A line for each job with traffic."""
    return _grouped(organization, JOBS, search)


def items_page(rows: Grouped, order: Order, *, after: str) -> Page[Item]:
    """A page of one of these lists, after a cursor."""
    page = order.page(rows, after=after, size=PAGE_SIZE)
    return replace(page, rows=[item(row, is_job=order is JOBS) for row in page.rows])


def item(row: dict[str, object], *, is_job: bool) -> Item:
    """A grouped row as a line of a list."""
    names = {name: str(row.get(name, "")) for name in JOBS.columns}
    return Item(
        scope=BaselineScope(**names, is_job=is_job),
        endpoints=int(str(row["endpoints"])),
        calls=int(str(row["all_calls"])),
        last_seen_at=row["last"],  # type: ignore[arg-type]
    )


def _grouped(organization: Organization, order: Order, search: str) -> Grouped:
    rows = reached(JobEndpoint.objects.filter(organization=organization))
    for word in search_words(search):
        rows = rows.filter(reduce(or_, (Q(**{f"{name}__icontains": word}) for name in order.columns)))
    endpoint = Concat("host", Value(":"), Cast("port", CharField()))
    counted: Grouped = (
        rows.order_by()
        .values(*order.columns)
        .annotate(
            endpoints=Count(endpoint, distinct=True),
            all_calls=Sum(F("calls") - F("blocked_calls")),
            last=Max("last_seen_at"),
        )
        .order_by(*order.columns)
    )
    return counted


def _scope_of_job(row: JobEndpoint) -> BaselineScope:
    return BaselineScope(
        repository=row.repository, workflow=row.workflow, job=row.job, cluster=row.cluster, is_job=True
    )
