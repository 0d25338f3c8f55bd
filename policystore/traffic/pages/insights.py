"""Harden Runner → Insights: calls over time, new endpoints, and how runs were held to their policies."""

from __future__ import annotations

from datetime import date

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.traffic import charts, insights


@require_GET
def insights_page(request: HttpRequest, owner: str) -> HttpResponse:
    """Two charts with their numbers in tables, and the enforcement of the last days."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    days = insights.calls_by_day(organization)
    new = insights.new_endpoints_by_day(organization)
    context = {
        "organization": organization,
        "days": days,
        "fresh": new,
        "enforcement": insights.enforcement(organization),
        "calls_chart": charts.stacked([_calls_column(day) for day in days]),
        "fresh_chart": charts.stacked([_new_column(day, number) for day, number in new]),
        "length": insights.DAYS,
        "any_calls": any(day.allowed or day.blocked for day in days),
    }
    return render(request, "traffic/insights.html", context)


def _calls_column(day: insights.Day) -> charts.Column:
    parts = (
        ("allowed", day.allowed, f"{day.day}: {day.allowed:,} allowed"),
        ("blocked", day.blocked, f"{day.day}: {day.blocked:,} blocked"),
    )
    return charts.Column(f"{day.day:%b} {day.day.day}", parts)


def _new_column(day: date, number: int) -> charts.Column:
    return charts.Column(f"{day:%b} {day.day}", (("new", number, f"{day}: {number:,} new"),))
