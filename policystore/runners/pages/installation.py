"""Settings → Harden-Runner Installation: how runners of each kind reach this store, and whether they do."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.accounts.models import ApiKey, KeyKind
from policystore.inventory.models import Cluster, Organization
from policystore.policies import compiler
from policystore.runners import queries
from policystore.runners.clusters import PREFIX
from policystore.runners.forms import ClusterForm

SCRIPTS = {
    "install-job-hooks.sh": "runners/scripts/install-job-hooks.sh",
    "install-job-hooks.ps1": "runners/scripts/install-job-hooks.ps1",
    "arc-values.yaml": "runners/scripts/arc-values.yaml",
}
ARC_VALUES = "arc-values.yaml"
LABELS = {
    "install-job-hooks.sh": "Linux",
    "install-job-hooks.ps1": "Windows",
    ARC_VALUES: "Actions Runner Controller (Helm values)",
}
CLUSTERS_OFFERED = 500


@require_GET
def job_hooks(request: HttpRequest, owner: str) -> HttpResponse:
    """Show Runner Job Hooks: the scripts for Linux and Windows, and a cluster's Helm values for ARC, ready to use."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    form = ClusterForm(request.GET)
    cluster = form.cleaned_data["cluster"] if form.is_valid() else ""
    context = {
        "organization": organization,
        "form": form,
        "cluster": cluster,
        "clusters": Cluster.objects.filter(organization=organization)[:CLUSTERS_OFFERED],
        **_bases(cluster),
        "scripts": [
            {"name": name, "label": label, "text": _script(request, organization, name, cluster)}
            for name, label in LABELS.items()
        ],
        "secure": settings.PUBLIC_URL.startswith("https://"),
        "endpoints": compiler.store_endpoints(),
        "has_agent": bool(settings.AGENT_RELEASE_URL),
    }
    return render(request, "runners/job_hooks.html", context, status=422 if form.errors else 200)


@require_GET
def script(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Download one of the scripts."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    form = ClusterForm(request.GET)
    if name not in SCRIPTS or not form.is_valid():
        raise Http404("There is no such script.")
    return HttpResponse(
        _script(request, organization, name, form.cleaned_data["cluster"]),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@require_GET
def github_hosted(request: HttpRequest, owner: str) -> HttpResponse:
    """Show GitHub-Hosted: the workflow snippet, and how to make the action reach this store."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    # The action sends everything to one address, including its `policy:` input, which only the web process answers.
    api, endpoint = f"{settings.PUBLIC_URL}/v1", compiler.endpoint_of(settings.PUBLIC_URL)
    context = {"organization": organization, "api": api, "endpoint": endpoint}
    return render(request, "runners/github_hosted.html", context)


@require_GET
def last_calls(request: HttpRequest, owner: str) -> HttpResponse:
    """Show the last calls of each runner key; key pages reload this fragment every few seconds."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    keys = ApiKey.objects.filter(organization=organization, revoked_at__isnull=True)
    runner_keys = keys.exclude(kind=KeyKind.MANAGEMENT).order_by("kind", "slot")
    seen = [{"key": key, "runs": list(queries.last_calls(key.pk))} for key in runner_keys]
    template = "runners/last_calls.html#calls" if request.htmx else "runners/last_calls.html"  # type: ignore[attr-defined]
    return render(request, template, {"organization": organization, "seen": seen})


def _bases(cluster: str = "") -> dict[str, str]:
    """Return the hooks' base addresses for policies and telemetry, of the cluster if there is one."""
    path = f"{PREFIX}{cluster}" if cluster else "/v1"
    return {"api": f"{settings.RUNNER_URL}{path}", "telemetry": f"{settings.PUBLIC_URL}{path}"}


def _script(request: HttpRequest, organization: Organization, name: str, cluster: str) -> str:
    context = {
        "organization": organization,
        "cluster": cluster,
        **_bases(cluster if name == ARC_VALUES else ""),
        "host": urlsplit(settings.PUBLIC_URL).netloc,
        "hooks": settings.JOB_HOOKS_URL,
    }
    return render(request, SCRIPTS[name], context).content.decode()
