"""Harden Runner → Insights: calls over time, first appearances, and how runs were held to their policies."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.traffic import charts, insights


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


def _calls(day: insights.Day) -> charts.Column:
    parts = (
        ("allowed", day.allowed, f"{day.day}: {day.allowed:,} allowed"),
        ("blocked", day.blocked, f"{day.day}: {day.blocked:,} blocked"),
    )
    return charts.Column(f"{day.day:%b} {day.day.day}", parts)


def _fresh(day, number: int) -> charts.Column:  # type: ignore[no-untyped-def]
    return charts.Column(f"{day:%b} {day.day}", (("new", number, f"{day}: {number:,} new"),))
