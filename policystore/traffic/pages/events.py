"""Network events: the page of one job run, and the Network Events page of an organization."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from policystore.runners.explain import exempted_from
from policystore.runners.models import JobRun
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.models import NOT_ALLOWED, NOTEWORTHY, NetworkEvent, Status
from policystore.web.pagination import Order, Page, query_string

OTHER_JOBS_SHOWN = 50
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


@require_GET
@vary_on_headers("HX-Request")
def run(request: HttpRequest, owner: str, run_id: int) -> HttpResponse:
    """One job run: the policy that it got and why, and a page of its events, filtered by tab."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    job_run = JobRun.objects.filter(organization=organization, pk=run_id).first()
    if job_run is None:
        raise Http404("This organization has no such run.")
    tab = request.GET.get("tab", "")
    page = _events_page(job_run, tab, before=request.GET.get("before", ""))
    context = {
        "organization": organization,
        "run": job_run,
        "policy": Policy.objects.filter(organization=organization, pk=job_run.policy_id or 0).first(),
        "scope": Scope.from_key(job_run.scope_key) if job_run.scope_key else None,
        "exempted_from": exempted_from(job_run),
        "others": _other_jobs(job_run),
        "baseline": BaselineScope(job_run.repository, job_run.workflow, job_run.job, job_run.cluster, is_job=True),
        "repository_baseline": BaselineScope(job_run.repository),
        "page": page,
        "tabs": _tabs(tab),
        **_pager(page, tab=tab),
    }
    return _render(request, "traffic/run.html", context)


@require_GET
@vary_on_headers("HX-Request")
def network_events(request: HttpRequest, owner: str) -> HttpResponse:
    """Network Events: calls of any job that were blocked, not on the allowlist or new, with the policy responsible."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    tab = request.GET.get("tab", "")
    page = _noteworthy_page(organization, tab, before=request.GET.get("before", ""))
    existing = _existing_policies(organization, (event.job_run for event in page.rows))
    context = {
        "organization": organization,
        "events": [(event, event.job_run, event.job_run.policy_id in existing) for event in page.rows],
        "tab": tab,
        "tabs": _tabs(tab),
        "retention": settings.EVENT_RETENTION_DAYS,
        **_pager(page, tab=tab),
    }
    return _render(request, "traffic/network_events.html", context)


def _render(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    """The whole page, or only its events if htmx replaces those."""
    is_fragment = request.htmx and request.htmx.target == "events"  # type: ignore[attr-defined]
    return render(request, f"{name}#events" if is_fragment else name, context)


def _events_page(run: JobRun, tab: str, *, before: str) -> Page[NetworkEvent]:
    """A page of a job run's events, newest first."""
    rows = NetworkEvent.objects.filter(_filter_of(tab), job_run=run)
    return EVENT_ORDER.page(rows, after=before, size=EVENTS_PER_PAGE)


def _noteworthy_page(organization: Organization, tab: str, *, before: str) -> Page[NetworkEvent]:
    """A page of the events of verified jobs that were not simply allowed, latest arrivals first."""
    rows = NetworkEvent.objects.filter(NOTEWORTHY & _filter_of(tab), organization=organization)
    rows = rows.exclude(job_run__verified_by="")
    return ARRIVAL_ORDER.page(rows.select_related("job_run"), after=before, size=EVENTS_PER_PAGE)


def _filter_of(tab: str) -> Q:
    return EVENT_TABS.get(tab, EVENT_TABS[""])[1]


def _existing_policies(organization: Organization, runs: Iterable[JobRun]) -> set[int]:
    """The ids of the policies that were served to these runs and have not been deleted since."""
    served = {run.policy_id for run in runs if run.policy_id}
    return set(Policy.objects.filter(organization=organization, pk__in=served).values_list("pk", flat=True))


def _other_jobs(run: JobRun) -> list[JobRun]:
    """The other jobs of the same workflow run."""
    if not run.run_id:
        return []
    rows = JobRun.objects.filter(organization=run.organization_id, run_id=run.run_id).exclude(pk=run.pk)
    return list(rows.order_by("-pk")[:OTHER_JOBS_SHOWN])


def _tabs(active: str) -> list[dict[str, object]]:
    return [
        {"label": label, "query": query_string({"tab": value}), "active": value == active}
        for value, (label, _) in EVENT_TABS.items()
    ]


def _pager(page: Page[NetworkEvent], **values: str) -> dict[str, str]:
    """The links to the first and the next page, for the pager's template."""
    return {
        "first_query": "" if page.is_first else query_string(values),
        "next_query": query_string({**values, "before": page.next_cursor}) if page.next_cursor else "",
    }
