"""Policy Store → Which policy applies?"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.inventory.models import Cluster, Organization, Repository, Workflow
from policystore.runners.explain import explain
from policystore.runners.fetch.query import UnservablePolicy
from policystore.runners.forms import STEP_INPUTS, ExplainForm
from policystore.web.json_api import storable

MAX_SUGGESTIONS = 500


@require_GET
def explain_page(request: HttpRequest, owner: str) -> HttpResponse:
    """Show a form for a job and its step's inputs, and below it what the job gets and why."""
    organization = access.get_organization(request, owner, "policies.view_policy")
    form = ExplainForm(request.GET, owner=organization.login)
    context = {
        "organization": organization,
        "form": form,
        "inputs_set": any(request.GET.get(form.add_prefix(name)) for name in STEP_INPUTS),
        **_suggestions(organization, request.GET.get("repository", "")),
    }
    if not form.is_valid():
        return render(request, "runners/explain.html", context, status=422)
    try:
        explanation = explain(organization, form.job, form.inputs, endpoint=form.cleaned_data["endpoint"])
    except UnservablePolicy as error:
        return render(request, "runners/explain.html", {**context, "problem": str(error)}, status=503)
    return render(request, "runners/explain.html", {**context, "job": form.job, "found": explanation})


def _suggestions(organization: Organization, repository: str) -> dict[str, object]:
    """Return what the fields suggest: known repositories and clusters, and the workflows of `repository`."""
    repositories = Repository.objects.filter(organization=organization).order_by("key")
    key = storable(repository).strip().lower()
    workflows = Workflow.objects.filter(repository__organization=organization, repository__key=key)
    clusters = Cluster.objects.filter(organization=organization).order_by("name")
    return {
        "repositories": repositories.values_list("name", flat=True)[:MAX_SUGGESTIONS],
        "workflows": workflows.order_by("file_name").values_list("file_name", flat=True)[:MAX_SUGGESTIONS],
        "clusters": clusters.values_list("name", flat=True)[:MAX_SUGGESTIONS],
    }
