"""Which policy applies? As a page for people and as a route for systems."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.accounts.api_keys import live_key
from policystore.inventory.models import Cluster, Organization, Repository, Workflow
from policystore.policy_language.scopes import parse_job
from policystore.runners.cluster_address import cluster_of
from policystore.runners.cluster_limit import require_cluster
from policystore.runners.explain import Job, describe, explain
from policystore.runners.fetch import canonical_owner
from policystore.runners.forms import STEP_INPUTS, WhichForm
from policystore.runners.http import refuse, route
from policystore.runners.responses import Reply, json_reply

NAMES_OFFERED = 500
SCHEMES = ("bearer", "vm-api-key")


@require_GET
def page(request: HttpRequest, owner: str) -> HttpResponse:
    """A form for a job and its step's inputs, and below it what the job gets and why."""
    organization = access.get_organization(request, owner, "policies.view_policy")
    form = WhichForm(request.GET)
    named = any(request.GET.get(form.add_prefix(name)) for name in STEP_INPUTS)
    names = _names(organization, request.GET.get("repository", ""))
    context = {"organization": organization, "form": form, "inputs_set": named, **names}
    if not _is_valid(form, organization.login):
        return render(request, "runners/which.html", context, status=422)
    explanation = explain(organization, _job(form), form.inputs, endpoint=form.cleaned_data["endpoint"])
    return render(request, "runners/which.html", {**context, "job": _job(form), "found": explanation})


@route("GET")
def api(request: HttpRequest, owner: str, repository: str) -> Reply:
    """The same as JSON, for any live key of the organization."""
    scheme, _, clear = request.headers.get("Authorization", "").strip().partition(" ")
    key = live_key(clear.strip()) if scheme.lower() in SCHEMES else None
    if key is None:
        raise refuse(401, "unauthorized", "Send a key of this organization as `Bearer KEY` or `vm-api-key KEY`.")
    if key.organization.key != canonical_owner(owner):
        raise refuse(403, "forbidden", "This key belongs to another organization.")
    cluster = cluster_of(request.META, request.GET.get("cluster", ""))
    require_cluster(key, cluster)
    form = WhichForm({**request.GET.dict(), "repository": repository, "cluster": cluster})
    if not _is_valid(form, key.organization.login):
        name, problems = next(iter(form.errors.items()))
        raise refuse(400, "invalid_parameter", f"{form.add_prefix(name)}: {problems[0]}")
    job = _job(form)
    found = explain(key.organization, job, form.inputs, endpoint=form.cleaned_data["endpoint"])
    return json_reply(describe(job, key.organization, found))


def _is_valid(form: WhichForm, owner: str) -> bool:
    """Validate the form, and reduce the repository and workflow to their names, however they were entered."""
    if not form.is_valid():
        return False
    values = form.cleaned_data
    try:
        values["repository"], values["workflow"] = parse_job(owner, values["repository"], values["workflow"])
    except ValueError as error:
        form.add_error("workflow", str(error))
        return False
    return True


def _job(form: WhichForm) -> Job:
    values = form.cleaned_data
    return Job(repository=values["repository"], workflow=values["workflow"], cluster=values["cluster"])


def _names(organization: Organization, repository: str) -> dict[str, object]:
    """What the fields offer while one types: known repositories and clusters, and the repository's workflows."""
    repositories = Repository.objects.filter(organization=organization).order_by("key")
    key = repository.replace("\0", "").strip().lower()
    workflows = Workflow.objects.filter(repository__organization=organization, repository__key=key)
    clusters = Cluster.objects.filter(organization=organization).order_by("name")
    return {
        "repositories": repositories.values_list("name", flat=True)[:NAMES_OFFERED],
        "workflows": workflows.order_by("file_name").values_list("file_name", flat=True)[:NAMES_OFFERED],
        "clusters": clusters.values_list("name", flat=True)[:NAMES_OFFERED],
    }
