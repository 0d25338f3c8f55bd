"""Harden Runner → Runs: what jobs asked, which policy they got, and what telemetry told of them, newest first."""

from __future__ import annotations

from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.runners import queries


@require_GET
@vary_on_headers("HX-Request")
def run_list(request: HttpRequest, owner: str) -> HttpResponse:
    """A page of job runs, newest first, narrowed by search and tag."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    chosen = {name: _text(request, name) for name in ("repository", "workflow", "q", "tag")}
    page = queries.run_page(
        organization,
        repository=chosen["repository"],
        workflow=chosen["workflow"],
        search=chosen["q"],
        tag=chosen["tag"],
        before=request.GET.get("before", ""),
    )
    context = {
        "organization": organization,
        "page": page,
        "search": chosen["q"],
        "tag": chosen["tag"],
        "chosen": chosen,
        "tags": [
            {"label": label, "query": _query({**chosen, "tag": value}), "active": value == chosen["tag"]}
            for value, (label, _) in queries.RUN_TAGS.items()
        ],
        "next_query": _query({**chosen, "before": page.next_cursor}) if page.next_cursor else "",
    }
    narrow = request.htmx and request.htmx.target == "runs"  # type: ignore[attr-defined]
    return render(request, "runners/runs.html#runs" if narrow else "runners/runs.html", context)


def _text(request: HttpRequest, name: str) -> str:
    said = request.GET.get(name, "").replace("\0", "").encode("utf-8", "replace").decode()
    return said.strip()[:512]


def _query(values: dict[str, str]) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value})
