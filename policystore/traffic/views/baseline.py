"""Harden Runner → Baseline: what an organization, its repositories, clusters and jobs call."""

from __future__ import annotations

from collections.abc import Callable

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.documents import suggest
from policystore.inventory.models import Organization
from policystore.traffic import baselines
from policystore.traffic.baselines import BaselineScope

PERMISSION = "runners.view_jobrun"
ENDPOINTS_PER_PAGE = 100
ITEMS_PER_PAGE = 50
Lister = Callable[..., baselines.Grouped]


@require_GET
def of_organization(request: HttpRequest, owner: str) -> HttpResponse:
    """The whole organization's baseline."""
    organization = access.get_organization(request, owner, PERMISSION)
    return _endpoints_page(request, organization, BaselineScope(), tab="organization")


@require_GET
def repositories(request: HttpRequest, owner: str) -> HttpResponse:
    """A line for each repository."""
    return _list_page(request, owner, "repositories", baselines.repositories)


@require_GET
def clusters(request: HttpRequest, owner: str) -> HttpResponse:
    """A line for each ARC cluster."""
    return _list_page(request, owner, "clusters", baselines.clusters)


@require_GET
def jobs(request: HttpRequest, owner: str) -> HttpResponse:
    """A line for each job."""
    return _list_page(request, owner, "jobs", baselines.jobs)


@require_GET
def view(request: HttpRequest, owner: str) -> HttpResponse:
    """The baseline of one repository, cluster or job, which the query string names."""
    organization = access.get_organization(request, owner, PERMISSION)
    scope = scope_of(request)
    tab = (
        "jobs"
        if scope.is_job
        else "repositories"
        if scope.repository
        else "clusters"
        if scope.cluster
        else "organization"
    )
    return _endpoints_page(request, organization, scope, tab=tab)


@require_GET
def export(request: HttpRequest, owner: str) -> HttpResponse:
    """Export Endpoints: one a line, as Import takes them back."""
    organization = access.get_organization(request, owner, PERMISSION)
    scope = scope_of(request)
    lines = [endpoint.written for endpoint in baselines.endpoints(organization, scope)]
    name = "-".join(part for part in (organization.key, scope.repository, scope.job, scope.cluster) if part)
    safe = "".join(character if character.isalnum() or character in "-_." else "-" for character in name)
    return HttpResponse(
        "".join(f"{line}\n" for line in lines),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{safe}-endpoints.txt"'},
    )


def scope_of(request: HttpRequest) -> BaselineScope:
    """The scope that the query string names; nothing named is the organization."""
    names = {name: _text(request, name) for name in ("repository", "workflow", "job", "cluster")}
    is_job = request.GET.get("of") == "job"
    if is_job and not names["repository"]:
        raise Http404("A job is named by its repository, workflow and job.")
    return BaselineScope(**names, is_job=is_job)


def _text(request: HttpRequest, name: str) -> str:
    return request.GET.get(name, "").replace("\0", "")[:512]


def _endpoints_page(
    request: HttpRequest, organization: Organization, scope: BaselineScope, *, tab: str
) -> HttpResponse:
    search = _text(request, "q")
    found = baselines.endpoints(organization, scope, search=search)
    context = {
        "organization": organization,
        "scope": scope,
        "tab": tab,
        "search": search,
        "page": Paginator(found, ENDPOINTS_PER_PAGE).get_page(request.GET.get("page")),
        "pager_query": _pager_query(scope.query, search),
        "stability": baselines.stability(organization, scope),
        "changelog": baselines.changelog(organization, scope),
        "suggestions": suggest.wildcards(endpoint.written for endpoint in found),
        "endpoints": found,
    }
    return render(request, "traffic/baseline.html", context)


def _pager_query(query: str, search: str) -> str:
    parts = [query, f"q={search}" if search else ""]
    return "".join(f"{part}&" for part in parts if part)


def _list_page(request: HttpRequest, owner: str, tab: str, lister: Lister) -> HttpResponse:
    organization = access.get_organization(request, owner, PERMISSION)
    search = _text(request, "q")
    page = Paginator(lister(organization, search=search), ITEMS_PER_PAGE).get_page(request.GET.get("page"))
    items = [baselines.item(row, is_job=tab == "jobs") for row in page]
    context = {
        "organization": organization,
        "tab": tab,
        "search": search,
        "page": page,
        "pager_query": f"q={search}&" if search else "",
        "items": [(item, baselines.stability(organization, item.scope)) for item in items],
    }
    return render(request, "traffic/baseline_list.html", context)
