"""What the pages of traffic read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Max, Min, Q, QuerySet, Sum

from policystore.inventory.models import Organization
from policystore.policies.models import Policy
from policystore.policies.search import search_words
from policystore.runners.job_summary import Call, Observed
from policystore.runners.models import JobRun
from policystore.traffic.models import NOT_ALLOWED, NOTEWORTHY, JobEndpoint, NetworkEvent, Status
from policystore.web.pagination import Order, Page

EVENTS_PER_PAGE = 100
EVENT_ORDER = Order(("occurred_at", "pk"), (datetime, int), descending=True)
ARRIVAL_ORDER = Order(("pk",), (int,), descending=True)
EVENT_TABS: dict[str, tuple[str, Q]] = {
    "": ("All", Q()),
    "blocked": ("Blocked", Q(status=Status.BLOCKED)),
    "new": ("New", Q(is_new=True)),
    "off-list": ("Not on the allowlist", Q(status__in=NOT_ALLOWED)),
    "undetermined": ("Undetermined", Q(status=Status.UNDETERMINED)),
}


def events_page(run: JobRun, tab: str, *, before: str) -> Page[NetworkEvent]:
    """A page of a job run's events, newest first."""
    rows = NetworkEvent.objects.filter(_of_tab(tab), job_run=run)
    return EVENT_ORDER.page(rows, after=before, size=EVENTS_PER_PAGE)


def noteworthy_page(organization: Organization, tab: str, *, before: str) -> Page[NetworkEvent]:
    """A page of the events of verified jobs that were not simply allowed, the ones that arrived last first."""
    rows = NetworkEvent.objects.filter(NOTEWORTHY & _of_tab(tab), organization=organization)
    rows = rows.exclude(job_run__verified_by="")
    return ARRIVAL_ORDER.page(rows.select_related("job_run"), after=before, size=EVENTS_PER_PAGE)


def _of_tab(tab: str) -> Q:
    return EVENT_TABS.get(tab, EVENT_TABS[""])[1]


def existing_policies(organization: Organization, runs: Iterable[JobRun]) -> set[int]:
    """The ids of those policies that were served to these runs and have not been deleted since."""
    served = {run.policy_id for run in runs if run.policy_id}
    return set(Policy.objects.filter(organization=organization, pk__in=served).values_list("pk", flat=True))


def observed(run: JobRun) -> Observed:
    """What the job summary shows: calls that were blocked, not listed or undetermined, and the number of endpoints."""
    rows = NetworkEvent.objects.filter(job_run=run)
    return Observed(
        blocked=_calls(rows.filter(status=Status.BLOCKED)),
        off_list=_calls(rows.filter(status__in=NOT_ALLOWED)),
        undetermined=_calls(rows.filter(status=Status.UNDETERMINED)),
        endpoints=_endpoints_called(run),
    )


def _endpoints_called(run: JobRun) -> int:
    if run.is_verified:
        return run.endpoints.count()
    connections = NetworkEvent.objects.filter(job_run=run, kind=NetworkEvent.Kind.CONNECTION).order_by()
    return connections.values("host", "port").distinct().count()


def _calls(rows: QuerySet[NetworkEvent]) -> Sequence[Call]:
    grouped = rows.order_by().values("host", "port").annotate(times=Count("pk"), by=Max("process"))
    ordered = grouped.order_by("-times", "host", "port")
    return [Call(f"{row['host']}:{row['port']}", row["times"], row["by"]) for row in ordered[:200]]


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
    def written(self) -> str:
        """`host:port`, as a policy lists it."""
        return f"{self.host}:{self.port}"


def reached(rows: QuerySet[JobEndpoint]) -> QuerySet[JobEndpoint]:
    """Without endpoints that were only ever blocked: those are no part of a baseline."""
    return rows.filter(calls__gt=F("blocked_calls"))


def grouped_endpoints(rows: QuerySet[JobEndpoint], *, search: str = "", runs: str = "runs") -> QuerySet[Any, Any]:
    """The endpoints of a scope's jobs that were reached, a row each; blocked calls are no part of a baseline.

    `runs` is the field whose sum is the number of workflow runs in the scope.
    """
    found = reached(rows)
    for word in search_words(search.lower()):
        found = found.filter(host__contains=word)
    grouped: QuerySet[Any, Any] = (
        found.order_by()
        .values("host", "port")
        .annotate(
            all_calls=Sum(F("calls") - F("blocked_calls")),
            all_runs=Sum(runs),
            jobs=Count("pk"),
            first=Min("first_seen_at"),
            last=Max("last_seen_at"),
        )
    )
    return grouped


def endpoint_of(row: dict[str, Any]) -> Endpoint:
    """A row of these as an endpoint."""
    return Endpoint(
        host=row["host"],
        port=row["port"],
        calls=row["all_calls"],
        runs=row["all_runs"],
        jobs=row["jobs"],
        first_seen_at=row["first"],
        last_seen_at=row["last"],
    )
