"""Harden Runner → Coverage: which policy each workflow has, and whether its jobs got it."""

from __future__ import annotations

from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.runners import coverage


@require_GET
@vary_on_headers("HX-Request")
def coverage_page(request: HttpRequest, owner: str) -> HttpResponse:
    """A page of workflows, narrowed by search and counter."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    search = request.GET.get("q", "").replace("\0", "").strip()[:200]
    show = request.GET.get("show", "")
    page = coverage.page(organization, search=search, show=show, after=request.GET.get("after", ""))
    chosen = {"q": search, "show": show}
    counted = coverage.counts(organization)
    context = {
        "organization": organization,
        "page": page,
        "search": search,
        "show": show,
        "counters": [
            {
                "label": label,
                "number": counted[name],
                "query": _query({**chosen, "show": name}),
                "active": name == show,
            }
            for name, (label, _) in coverage.SHOW.items()
        ],
        "next_query": _query({**chosen, "after": page.next_cursor}) if page.next_cursor else "",
    }
    narrow = request.htmx and request.htmx.target == "coverage"  # type: ignore[attr-defined]
    return render(request, "runners/coverage.html#coverage" if narrow else "runners/coverage.html", context)


def _query(values: dict[str, str]) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value})
