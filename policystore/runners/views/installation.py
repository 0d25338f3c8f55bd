"""Settings → Harden-Runner Installation: how runners of each kind reach this store, and whether they do."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.accounts.models import ApiKey, KeyKind
from policystore.inventory.models import Organization
from policystore.runners import queries

SCRIPTS = {
    "install-job-hooks.sh": "runners/scripts/install-job-hooks.sh",
    "install-job-hooks.ps1": "runners/scripts/install-job-hooks.ps1",
    "arc-values.yaml": "runners/scripts/arc-values.yaml",
}


@require_GET
def job_hooks(request: HttpRequest, owner: str) -> HttpResponse:
    """Runner Job Hooks: the scripts for Linux and Windows and the Helm values for ARC, ready to use."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    texts = [
        {"name": name, "label": label, "text": _script(request, organization, name)}
        for name, label in zip(SCRIPTS, ("Linux", "Windows", "Actions Runner Controller (Helm values)"), strict=True)
    ]
    context = {"organization": organization, "scripts": texts, "secure": settings.PUBLIC_URL.startswith("https://")}
    context |= {"endpoint": _endpoint(), "has_agent": bool(settings.AGENT_RELEASE_URL)}
    return render(request, "runners/job_hooks.html", context)


@require_GET
def script(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """One of the scripts, to download."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    if name not in SCRIPTS:
        raise Http404("There is no such script.")
    return HttpResponse(
        _script(request, organization, name),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@require_GET
def github_hosted(request: HttpRequest, owner: str) -> HttpResponse:
    """GitHub-Hosted: the workflow snippet, and what must be done so that the action reaches this store."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    context = {"organization": organization, "api": f"{settings.PUBLIC_URL}/v1", "endpoint": _endpoint()}
    return render(request, "runners/github_hosted.html", context)


@require_GET
def last_calls(request: HttpRequest, owner: str) -> HttpResponse:
    """Test it: the calls last seen from each runner key; asked for every few seconds while a key page is open."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    keys = ApiKey.objects.filter(organization=organization, revoked_at__isnull=True)
    runner_keys = keys.exclude(kind=KeyKind.MANAGEMENT).order_by("kind", "slot")
    seen = [{"key": key, "runs": list(queries.last_calls(key.pk))} for key in runner_keys]
    template = "runners/last_calls.html#calls" if request.htmx else "runners/last_calls.html"  # type: ignore[attr-defined]
    return render(request, template, {"organization": organization, "seen": seen})


def _endpoint() -> str:
    """This store as a policy lists it."""
    address = urlsplit(settings.PUBLIC_URL)
    return f"{address.hostname}:{address.port or (443 if address.scheme == 'https' else 80)}"


def _script(request: HttpRequest, organization: Organization, name: str) -> str:
    context = {
        "organization": organization,
        "api": f"{settings.PUBLIC_URL}/v1",
        "host": urlsplit(settings.PUBLIC_URL).netloc,
        "hooks": settings.JOB_HOOKS_URL,
    }
    return render(request, SCRIPTS[name], context).content.decode()
