"""Harden Runner → Coverage: which policy each workflow has, and whether its jobs got it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.runners import coverage
from policystore.web.json_api import storable
from policystore.web.pagination import query_string


@require_GET
@vary_on_headers("HX-Request")
def coverage_page(request: HttpRequest, owner: str) -> HttpResponse:
    """Show a page of workflows, filtered by search and counter."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    search = storable(request.GET.get("q", "")).strip()[:200]
    show = request.GET.get("show", "")
    page = coverage.page(organization, search=search, show=show, after=request.GET.get("after", ""))
    filters = {"q": search, "show": show}
    counts = coverage.counts(organization)
    context = {
        "organization": organization,
        "page": page,
        "search": search,
        "show": show,
        "counters": [
            {
                "label": label,
                "number": counts[name],
                "query": query_string({**filters, "show": name}),
                "active": name == show,
            }
            for name, (label, _) in coverage.FILTERS.items()
        ],
        "next_query": query_string({**filters, "after": page.next_cursor}) if page.next_cursor else "",
    }
    is_fragment = request.htmx and request.htmx.target == "coverage"  # type: ignore[attr-defined]
    return render(request, "runners/coverage.html#coverage" if is_fragment else "runners/coverage.html", context)
