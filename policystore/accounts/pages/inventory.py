"""Settings → Inventory: what the store knows of, and what is added by hand."""

from __future__ import annotations

from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from policystore.accounts import access
from policystore.inventory import actions
from policystore.inventory.models import Cluster, Organization, Repository

REPOSITORIES_PER_PAGE = 50
CLUSTERS_SHOWN = 200


class InventoryForm(forms.Form):
    """A repository, a workflow or a cluster to add to the inventory."""

    repository = forms.CharField(max_length=255, required=False)
    workflow = forms.CharField(max_length=512, required=False, label="Workflow file")
    cluster = forms.CharField(max_length=255, required=False, label="ARC cluster")

    def clean(self) -> dict[str, str]:
        """Refuse an empty form, and a workflow of no repository."""
        values: dict[str, str] = super().clean() or {}
        if values.get("workflow") and not values.get("repository"):
            self.add_error("repository", "Name the repository that has this workflow.")
        elif not any(values.values()):
            self.add_error("repository", "Name a repository or a cluster.")
        return values


@require_http_methods(["GET", "POST"])
def inventory(request: HttpRequest, owner: str) -> HttpResponse:
    """Repositories with their workflows, and clusters; POST adds one."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "inventory.view_repository")
        return _page(request, organization, InventoryForm())
    organization = access.get_organization(request, owner, "inventory.add_repository")
    form = InventoryForm(request.POST)
    if form.is_valid() and _add(organization, form):
        messages.success(request, "Added.")
        return redirect("settings:inventory", organization.key)
    return _page(request, organization, form, status=422)


def _add(organization: Organization, form: InventoryForm) -> bool:
    values = form.cleaned_data
    field = "repository"
    try:
        if values["repository"]:
            repository = actions.add_repository(organization=organization, name=values["repository"])
            field = "workflow"
            if values["workflow"]:
                actions.add_workflow(repository=repository, file_name=values["workflow"])
        field = "cluster"
        if values["cluster"]:
            actions.add_cluster(organization=organization, name=values["cluster"])
    except ValueError as refusal:
        form.add_error(field, str(refusal))
        return False
    return True


def _page(request: HttpRequest, organization: Organization, form: InventoryForm, *, status: int = 200) -> HttpResponse:
    search = request.GET.get("q", "").strip()[:100].replace("\0", "")
    rows = Repository.objects.filter(organization=organization, key__contains=search.lower()).order_by("key")
    page = Paginator(rows.prefetch_related("workflows"), REPOSITORIES_PER_PAGE).get_page(request.GET.get("page"))
    clusters = list(
        Cluster.objects.filter(organization=organization, name__icontains=search).order_by("name")[: CLUSTERS_SHOWN + 1]
    )
    context = {"organization": organization, "page": page, "form": form, "search": search}
    context["pager_query"] = urlencode({"q": search}) + "&"
    context |= {"clusters": clusters[:CLUSTERS_SHOWN], "more_clusters": len(clusters) > CLUSTERS_SHOWN}
    return render(request, "accounts/inventory.html", context, status=status)
