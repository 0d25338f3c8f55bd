"""Harden Runner → Baseline: what an organization, its repositories, clusters and jobs call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies.pages import editing
from policystore.policy_language import wildcard_suggestions
from policystore.policy_language.endpoint_parser import unlistable
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope
from policystore.web.json_api import storable
from policystore.web.pagination import Order, Page

PERMISSION = "runners.view_jobrun"
Part = Callable[[HttpRequest, Organization, BaselineScope], dict[str, object]]
LISTS: dict[str, tuple[Callable[..., baseline.Grouped], Order]] = {
    "repositories": (baseline.repositories, baseline.REPOSITORIES),
    "clusters": (baseline.clusters, baseline.CLUSTERS),
    "jobs": (baseline.jobs, baseline.JOBS),
}


@require_GET
def of_organization(request: HttpRequest, owner: str) -> HttpResponse:
    """The whole organization's baseline."""
    organization = access.get_organization(request, owner, PERMISSION)
    return _endpoints_page(request, organization, BaselineScope(), tab="organization")


@require_GET
def repositories(request: HttpRequest, owner: str) -> HttpResponse:
    """A row per repository."""
    return _list_page(request, owner, "repositories")


@require_GET
def clusters(request: HttpRequest, owner: str) -> HttpResponse:
    """A row per ARC cluster."""
    return _list_page(request, owner, "clusters")


@require_GET
def jobs(request: HttpRequest, owner: str) -> HttpResponse:
    """A row per job."""
    return _list_page(request, owner, "jobs")


@require_GET
def view(request: HttpRequest, owner: str) -> HttpResponse:
    """The baseline of the repository, cluster or job in the query string."""
    organization = access.get_organization(request, owner, PERMISSION)
    scope = scope_of(request)
    tab = "clusters" if scope.cluster else "organization"
    if scope.repository:
        tab = "jobs" if scope.is_job else "repositories"
    return _endpoints_page(request, organization, scope, tab=tab)


@require_GET
def create_policy(request: HttpRequest, owner: str) -> HttpResponse:
    """Create Policy: the new policy page with the baseline's endpoints filled in, under the chosen wildcards."""
    organization = access.get_organization(request, owner, "policies.add_policy")
    endpoints = [endpoint.text for endpoint in baseline.endpoints(organization, scope_of(request))]
    suggested = {suggestion.wildcard for suggestion in wildcard_suggestions.wildcards(endpoints)}
    chosen = [wildcard for wildcard in request.GET.getlist("wildcard") if wildcard in suggested]
    return editing.begin(request, organization, [*endpoints, *chosen])


@require_GET
def export(request: HttpRequest, owner: str) -> HttpResponse:
    """Export Endpoints: one per line, for Import; endpoints that no policy can list are comments."""
    organization = access.get_organization(request, owner, PERMISSION)
    scope = scope_of(request)
    endpoints = [endpoint.text for endpoint in baseline.endpoints(organization, scope)]
    lines = [f"# {endpoint}" if unlistable(endpoint) else endpoint for endpoint in endpoints]
    name = "-".join(part for part in (organization.key, scope.repository, scope.job, scope.cluster) if part)
    safe = "".join(character if character.isalnum() or character in "-_." else "-" for character in name)
    return HttpResponse(
        "".join(f"{line}\n" for line in lines),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{safe}-endpoints.txt"'},
    )


def scope_of(request: HttpRequest) -> BaselineScope:
    """The scope in the query string; the organization if it names none. Raises Http404."""
    names = {name: _text(request, name) for name in ("repository", "workflow", "job", "cluster")}
    is_job = request.GET.get("of") == "job"
    if is_job and not names["repository"]:
        raise Http404("A job needs a repository.")
    return BaselineScope(**names, is_job=is_job)


def _text(request: HttpRequest, name: str) -> str:
    return storable(request.GET.get(name, ""))[:512]


def _endpoints_page(
    request: HttpRequest, organization: Organization, scope: BaselineScope, *, tab: str
) -> HttpResponse:
    show = request.GET.get("show", "")
    part = PARTS.get(show, PARTS[""])
    search = _text(request, "q")
    context = {
        "organization": organization,
        "scope": scope,
        "tab": tab,
        "search": search,
        "stability": baseline.stability(organization, scope),
        "changed_at": baseline.changed_at(organization, scope),
        "parts": [
            {"label": label, "query": _query(scope, show=value), "active": value == show}
            for value, (label, _) in PARTS.items()
        ],
        **part[1](request, organization, scope),
    }
    return render(request, "traffic/baseline.html", context)


def _endpoints(request: HttpRequest, organization: Organization, scope: BaselineScope) -> dict[str, object]:
    search = _text(request, "q")
    page = baseline.endpoints_page(organization, scope, search=search, after=request.GET.get("after", ""))
    return {"page": page, **_pager(page, lambda cursor: _query(scope, q=search, after=cursor))}


def _changelog(request: HttpRequest, organization: Organization, scope: BaselineScope) -> dict[str, object]:
    page = baseline.changelog_page(organization, scope, before=request.GET.get("after", ""))
    return {"changelog": page, **_pager(page, lambda cursor: _query(scope, show="changelog", after=cursor))}


def _wildcards(request: HttpRequest, organization: Organization, scope: BaselineScope) -> dict[str, object]:
    endpoints = baseline.endpoints(organization, scope)
    return {
        "suggestions": wildcard_suggestions.wildcards(endpoint.text for endpoint in endpoints),
        "asks_for_wildcards": True,
    }


PARTS: dict[str, tuple[str, Part]] = {
    "": ("Endpoints", _endpoints),
    "changelog": ("Changelog", _changelog),
    "wildcards": ("Suggested wildcards", _wildcards),
}


def _query(scope: BaselineScope, **more: str) -> str:
    more_query = urlencode({name: value for name, value in more.items() if value})
    return "?" + "&".join(part for part in (scope.query, more_query) if part)


def _pager(page: Page[Any], query: Callable[[str], str]) -> dict[str, object]:
    """The links to the first and the next page, for the pager's template."""
    return {
        "first_query": "" if page.is_first else query(""),
        "next_query": query(page.next_cursor) if page.next_cursor else "",
    }


def _list_page(request: HttpRequest, owner: str, tab: str) -> HttpResponse:
    organization = access.get_organization(request, owner, PERMISSION)
    lister, order = LISTS[tab]
    search = _text(request, "q")
    rows = lister(organization, search=search)
    page = baseline.items_page(rows, order, after=request.GET.get("after", ""))
    states = baseline.stabilities(organization, [item.scope for item in page.rows])
    context = {
        "organization": organization,
        "tab": tab,
        "search": search,
        "items": list(zip(page.rows, states, strict=True)),
        **_pager(page, lambda cursor: _query(BaselineScope(), q=search, after=cursor)),
    }
    return render(request, "traffic/baseline_list.html", context)
