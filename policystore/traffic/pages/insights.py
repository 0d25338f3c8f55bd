"""Harden Runner → Insights and its charts, Network Events, and the page of one job run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from functools import partial
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies.core import queries
from policystore.policies.models import Policy
from policystore.policies.pages.get_or_404 import get_policy
from policystore.policy_language.endpoint_matcher import Verdict
from policystore.policy_language.scopes import Scope
from policystore.runners import by_endpoint
from policystore.runners.explain import exempted_from
from policystore.runners.models import JobRun
from policystore.runners.queries import coverage_counts, github_url
from policystore.traffic import charts, insights, staging_results
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.models import NOT_ALLOWED, NOTEWORTHY, NetworkEvent, Status
from policystore.traffic.verdicts import allow_list_of
from policystore.web import csv_export
from policystore.web.json_api import storable
from policystore.web.pagination import (
    EXPORTED_AT_A_TIME,
    ROWS_LOOKED_THROUGH,
    Order,
    Page,
    every_row,
    links,
    newest_first,
    render_list,
    tabs,
)

OTHER_JOBS_SHOWN = 50
EVENTS_PER_PAGE = 50
EVENT_ORDER = Order(("occurred_at", "pk"), (datetime, int), descending=True)
EVENT_TABS: dict[str, tuple[str, Q]] = {
    "": ("All", Q()),
    "blocked": ("Blocked", Q(status=Status.BLOCKED)),
    "new": ("New", Q(is_new=True)),
    "off-list": ("Not on the allowlist", Q(status__in=NOT_ALLOWED)),
    "undetermined": ("Undetermined", Q(status=Status.UNDETERMINED)),
}
_LABELS = [(tab, label) for tab, (label, _) in EVENT_TABS.items()]
EXPORTED: csv_export.Columns[NetworkEvent] = {
    "occurred_at": attrgetter("occurred_at"),
    "endpoint": attrgetter("endpoint"),
    "address": attrgetter("address"),
    "kind": attrgetter("kind"),
    "status": attrgetter("status"),
    "is_new": attrgetter("is_new"),
    "reason": attrgetter("reason"),
    "repository": attrgetter("job_run.repository"),
    "workflow": attrgetter("job_run.workflow"),
    "job": attrgetter("job_run.job"),
    "run_id": attrgetter("job_run.run_id"),
    "step": attrgetter("step"),
    "process": attrgetter("process"),
    "policy": attrgetter("job_run.policy_name"),
    "policy_version": attrgetter("job_run.policy_version"),
}


@require_GET
@vary_on_headers("HX-Request")
def run(request: HttpRequest, owner: str, run_id: int) -> HttpResponse:
    """One job run: the policy that it got and why, and a page of its events, newest first, filtered by tab."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    job_run = JobRun.objects.filter(organization=organization, pk=run_id).first()
    if job_run is None:
        raise Http404("This organization has no such run.")
    tab = request.GET.get("tab", "")
    rows = NetworkEvent.objects.filter(_filter_of(tab), job_run=job_run)
    page = EVENT_ORDER.page(rows, after=request.GET.get("before", ""), size=EVENTS_PER_PAGE)
    context = {
        "organization": organization,
        "run": job_run,
        "github_url": github_url(organization, job_run),
        "policy": Policy.objects.filter(organization=organization, pk=job_run.policy_id or 0).first(),
        "scope": Scope.from_key(job_run.scope_key) if job_run.scope_key else None,
        "exempted_from": exempted_from(job_run),
        "others": _other_jobs(job_run),
        "baseline": BaselineScope.of_job(job_run),
        "repository_baseline": BaselineScope(job_run.repository),
        "page": page,
        "tabs": tabs(_LABELS, {"tab": tab}, "tab"),
        **links(page, {"tab": tab}),
    }
    return render_list(request, "traffic/run.html", "events", context)


@require_GET
@vary_on_headers("HX-Request")
def network_events(request: HttpRequest, owner: str) -> HttpResponseBase:
    """Network Events: calls of verified jobs that were blocked, not on the allowlist or new, latest arrivals first.

    Each names the policy that decided. All of them as CSV, or grouped by endpoint, too.
    """
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    chosen = {name: storable(request.GET.get(name, ""))[:300] for name in ("tab", "endpoint", "by")}
    noteworthy = NetworkEvent.objects.filter(NOTEWORTHY, organization=organization)
    rows = noteworthy.filter(_filter_of(chosen["tab"])).exclude(job_run__verified_by="")
    if chosen["endpoint"]:
        rows = by_endpoint.of_endpoint(rows, chosen["endpoint"])
    among = noteworthy if chosen["endpoint"] else None
    read = partial(newest_first, rows.select_related("job_run"), among=among)
    if csv_export.is_requested(request):
        every = every_row(lambda cursor: read(before=cursor, size=EXPORTED_AT_A_TIME))
        return csv_export.download(f"network-events-{organization.key}", EXPORTED, every)
    before = request.GET.get("before", "")
    page: Page[Any]
    events: list[tuple[NetworkEvent, JobRun, bool]] = []
    if chosen["by"]:
        page = by_endpoint.group_page(rows, among=noteworthy, time="occurred_at", before=before)
    else:
        page = read(before=before, size=EVENTS_PER_PAGE)
        events = _with_policies(organization, page.rows)
    context = {
        "organization": organization,
        **chosen,
        "page": page,
        "grouped": ROWS_LOOKED_THROUGH,
        "events": events,
        "has_runs": bool(page.rows) or JobRun.objects.filter(organization=organization).exists(),
        "tabs": tabs(_LABELS, chosen, "tab"),
        "retention": settings.EVENT_RETENTION_DAYS,
        **links(page, chosen),
    }
    return render_list(request, "traffic/network_events.html", "events", context)


def _filter_of(tab: str) -> Q:
    return EVENT_TABS.get(tab, EVENT_TABS[""])[1]


def _with_policies(
    organization: Organization, events: Iterable[NetworkEvent]
) -> list[tuple[NetworkEvent, JobRun, bool]]:
    """Each event with its run, and whether the policy that the run was served still exists."""
    served = {event.job_run.policy_id for event in events if event.job_run.policy_id}
    existing = set(Policy.objects.filter(organization=organization, pk__in=served).values_list("pk", flat=True))
    return [(event, event.job_run, event.job_run.policy_id in existing) for event in events]


def _other_jobs(run: JobRun) -> list[JobRun]:
    """The other jobs of the same workflow run."""
    if not run.run_id:
        return []
    rows = JobRun.objects.filter(organization=run.organization_id, run_id=run.run_id).exclude(pk=run.pk)
    return list(rows.order_by("-pk")[:OTHER_JOBS_SHOWN])


@require_GET
def insights_page(request: HttpRequest, owner: str) -> HttpResponse:
    """How policies were enforced in a period, charts with their numbers in tables, and what needs attention."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    chosen = request.GET.get("period", "")
    period = insights.PERIODS.get(chosen, insights.PERIODS[""])
    slots, new = insights.calls(organization, period), insights.new_endpoints(organization, period)
    coverage = coverage_counts(organization)
    context = {
        "organization": organization,
        "period": period,
        "periods": tabs([(key, each.label) for key, each in insights.PERIODS.items()], {"period": chosen}, "period"),
        "slots": slots,
        "fresh": new,
        "numbers": [(slot, number) for slot, (_, number) in zip(reversed(slots), reversed(new), strict=True)],
        "enforcement": insights.enforcement(organization, period),
        "never_fetched": coverage["never-fetched"],
        "covered_percent": _percent(coverage[""] - coverage["no-policy"], coverage[""]),
        "blocking_percent": _percent(coverage["block"], coverage[""]),
        "top_blocked": insights.top_blocked(organization, period),
        "needing_attention": insights.needing_attention(organization, period),
        "allowed_chart": _chart(period, [(slot.start, ("allowed", slot.allowed, "allowed")) for slot in slots]),
        "blocked_chart": _chart(period, [(slot.start, ("blocked", slot.blocked, "blocked")) for slot in slots]),
        "fresh_chart": _chart(period, [(start, ("new", number, "new")) for start, number in new]),
        "any_calls": any(slot.allowed or slot.blocked for slot in slots),
    }
    return render(request, "traffic/insights.html", context)


def _percent(part: int, whole: int) -> int | None:
    """Rounded down, so that 100 means all; None of nothing."""
    return part * 100 // whole if whole else None


def _chart(period: insights.Period, values: list[tuple[datetime, tuple[str, int, str]]]) -> charts.Chart:
    if period.is_hourly:
        return charts.stacked(
            [_column(f"{start:%H:%M}", f"{start:%b} {start.day}, {start:%H:%M}", part) for start, part in values]
        )
    return charts.stacked([_day_column(start.date(), part) for start, part in values])


def _day_column(day: date, *parts: tuple[str, int, str]) -> charts.Column:
    return _column(f"{day:%b} {day.day}", str(day), *parts)


def _column(label: str, name: str, *parts: tuple[str, int, str]) -> charts.Column:
    """The column of a day or hour; a part has a kind, a number, and what the number counts."""
    labelled = tuple((kind, number, f"{name}: {number:,} {counted}") for kind, number, counted in parts)
    return charts.Column(label, labelled)


@require_GET
@vary_on_headers("HX-Request")
def staged_counts(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """A chart by day, its numbers, and the endpoints that are not on the staged list."""
    policy = get_policy(request, owner, policy_id, "policies.view_policy")
    staged = queries.staged_of(policy)
    if staged is None:
        raise Http404("This policy has no staged version.")
    days = staging_results.by_day(staged)
    live, draft = (allow_list_of(reply) for reply in (policy.served_reply, staged.reply))
    endpoints = [
        (row, draft.verdict_of(row.endpoint), live.verdict_of(row.endpoint)) for row in staging_results.off_list(staged)
    ]
    context = {
        "organization": policy.organization,
        "policy": policy,
        "staged": staged,
        "days": days,
        "runs": sum(day.runs for day in days),
        "would_block": sum(day.would_block for day in days),
        "canaries": sum(day.canaries for day in days),
        "blocked": sum(day.blocked for day in days),
        "chart": charts.stacked([_staged_column(day) for day in days]),
        "endpoints": endpoints,
        "is_any_undetermined": any(verdict is Verdict.UNDETERMINED for _, verdict, _ in endpoints),
    }
    name = "traffic/staged_counts.html#counts" if request.htmx else "traffic/staged_counts.html"  # type: ignore[attr-defined]
    return render(request, name, context)


def _staged_column(day: staging_results.Day) -> charts.Column:
    return _day_column(
        day.day,
        ("allowed", day.runs - day.would_block + day.canaries - day.blocked, "runs within the staged list"),
        ("would", day.would_block, "runs would have been blocked"),
        ("blocked", day.blocked, "canary runs were blocked"),
    )
