"""Harden Runner → Insights: calls over time, first appearances, and how runs were held to their policies."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.traffic import charts, insights, queries
from policystore.traffic.views import tabs


@require_GET
def insights_page(request: HttpRequest, owner: str) -> HttpResponse:
    """Two pictures with their numbers in tables, and the enforcement of the last days."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    days = insights.calls_by_day(organization)
    fresh = insights.new_endpoints_by_day(organization)
    context = {
        "organization": organization,
        "days": days,
        "fresh": fresh,
        "truths": insights.truths(organization),
        "calls_chart": charts.stacked([_calls(day) for day in days]),
        "fresh_chart": charts.stacked([_fresh(day, number) for day, number in fresh]),
        "length": insights.DAYS,
        "any_calls": any(day.allowed or day.blocked for day in days),
    }
    return render(request, "traffic/insights.html", context)


@require_GET
@vary_on_headers("HX-Request")
def network_events(request: HttpRequest, owner: str) -> HttpResponse:
    """Network Events: what was blocked, off a list or new in any job, with the policy that was responsible."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    tab = request.GET.get("tab", "")
    page = queries.noteworthy_page(organization, tab, before=request.GET.get("before", ""))
    existing = queries.existing_policies(organization, (event.job_run for event in page.rows))
    context = {
        "organization": organization,
        "events": [(event, event.job_run, event.job_run.policy_id in existing) for event in page.rows],
        "tab": tab,
        "tabs": tabs.event_tabs(tab),
        "retention": settings.EVENT_RETENTION_DAYS,
        **tabs.pager(page, tab=tab),
    }
    narrow = request.htmx and request.htmx.target == "events"  # type: ignore[attr-defined]
    return render(request, "traffic/network_events.html#events" if narrow else "traffic/network_events.html", context)


def _calls(day: insights.Day) -> charts.Column:
    parts = (
        ("allowed", day.allowed, f"{day.day}: {day.allowed:,} allowed"),
        ("blocked", day.blocked, f"{day.day}: {day.blocked:,} blocked"),
    )
    return charts.Column(f"{day.day:%b} {day.day.day}", parts)


def _fresh(day, number: int) -> charts.Column:  # type: ignore[no-untyped-def]
    return charts.Column(f"{day:%b} {day.day}", (("new", number, f"{day}: {number:,} new"),))
