"""Settings → Inventory: whether the unverified jobs of a cluster count."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from policystore.accounts import access
from policystore.inventory.models import Cluster
from policystore.runners.actions import cluster_telemetry as actions


@require_POST
def count_unverified(request: HttpRequest, owner: str, cluster_id: int) -> HttpResponse:
    """Count the unverified jobs of a cluster (`counts=1`), or stop counting them."""
    organization = access.get_organization(request, owner, "inventory.change_cluster")
    cluster = get_object_or_404(Cluster, organization=organization, pk=cluster_id)
    counts = request.POST.get("counts") == "1"
    actions.count_unverified(cluster=cluster, counts=counts, by=access.actor(request))
    verb = "count now" if counts else "no longer count"
    messages.success(request, f"Unverified jobs of {cluster.name} {verb}.")
    return redirect("settings:inventory", organization.key)
