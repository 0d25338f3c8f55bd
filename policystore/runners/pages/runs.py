"""Harden Runner → Runs: which policy each job got, and what its telemetry reported, newest first."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.inventory.models import Cluster
from policystore.runners import queries
from policystore.runners.actions import job_runs
from policystore.web.json_api import storable
from policystore.web.pagination import query_string


@require_GET
@vary_on_headers("HX-Request")
def run_list(request: HttpRequest, owner: str) -> HttpResponse:
    """Show a page of job runs, newest first, filtered by search and tag."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    filters = {name: _text(request, name) for name in ("repository", "workflow", "q", "tag")}
    page = queries.run_page(
        organization,
        repository=filters["repository"],
        workflow=filters["workflow"],
        search=filters["q"],
        tag=filters["tag"],
        before=request.GET.get("before", ""),
    )
    context = {
        "organization": organization,
        "page": page,
        "search": filters["q"],
        "tag": filters["tag"],
        "chosen": filters,
        "tags": [
            {"label": label, "query": query_string({**filters, "tag": value}), "active": value == filters["tag"]}
            for value, (label, _) in queries.RUN_TAGS.items()
        ],
        "next_query": query_string({**filters, "before": page.next_cursor}) if page.next_cursor else "",
    }
    is_fragment = request.htmx and request.htmx.target == "runs"  # type: ignore[attr-defined]
    return render(request, "runners/runs.html#runs" if is_fragment else "runners/runs.html", context)


@require_POST
def count_unverified(request: HttpRequest, owner: str, cluster_id: int) -> HttpResponse:
    """Count the unverified jobs of a cluster (`counts=1`), or stop counting them."""
    organization = access.get_organization(request, owner, "inventory.change_cluster")
    cluster = get_object_or_404(Cluster, organization=organization, pk=cluster_id)
    counts = request.POST.get("counts") == "1"
    job_runs.count_unverified(cluster=cluster, counts=counts, by=access.actor(request))
    verb = "count now" if counts else "no longer count"
    messages.success(request, f"Unverified jobs of {cluster.name} {verb}.")
    return redirect("settings:inventory", organization.key)


def _text(request: HttpRequest, name: str) -> str:
    return storable(request.GET.get(name, "")).strip()[:512]
