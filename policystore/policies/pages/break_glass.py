"""Break glass: activate it for a scope, end it, and list it."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_http_methods, require_POST

from policystore.accounts import access
from policystore.inventory.models import Cluster, Organization, Repository, Workflow
from policystore.policies import break_glass
from policystore.policies.errors import InvalidBreakGlass
from policystore.policies.models import BreakGlass
from policystore.policies.pages.forms import BreakGlassForm
from policystore.policy_language.scopes import Scope, parse_scope

PER_PAGE = 25
NAMES_OFFERED = 500
POLICIES_NAMED = 10


@require_http_methods(["GET", "POST"])
def overview(request: HttpRequest, owner: str) -> HttpResponse:
    """Active and past break glass, and a form that activates it for a scope."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "policies.view_policy")
        return _page(request, organization, BreakGlassForm(initial=_initial(request)))
    organization = access.get_organization(request, owner, "policies.change_breakglass")
    form = BreakGlassForm(request.POST)
    if form.is_valid() and _start(request, organization, form):
        return redirect("policies:break_glass", organization.key)
    return _page(request, organization, form, status=422)


@require_POST
def end(request: HttpRequest, owner: str, break_glass_id: int) -> HttpResponse:
    """End now."""
    organization = access.get_organization(request, owner, "policies.change_breakglass")
    found = get_object_or_404(BreakGlass, pk=break_glass_id, organization=organization)
    break_glass.end(break_glass=found, by=access.actor(request))
    messages.success(request, f"Jobs of {found.scope.label} that start from now on get what their policy says.")
    return redirect("policies:break_glass", organization.key)


def _start(request: HttpRequest, organization: Organization, form: BreakGlassForm) -> bool:
    values = form.cleaned_data
    try:
        scope = parse_scope(values["type"], organization.login, values["name"])
    except ValueError as error:
        form.add_error("name" if values["type"] else "type", str(error))
        return False
    try:
        hours, reason, by = values["hours"], values["reason"], access.actor(request)
        begun = break_glass.start(organization=organization, scope=scope, hours=hours, reason=reason, by=by)
    except InvalidBreakGlass as refusal:
        form.add_error(refusal.field, str(refusal))
        return False
    until = f"{begun.ends_at:%Y-%m-%d %H:%M} UTC"
    messages.success(request, f"Jobs of {scope.label} that start from now on run in audit, until {until}.")
    return True


def _initial(request: HttpRequest) -> dict[str, object]:
    """The scope that a link brought along, if any."""
    try:
        scope = Scope.from_key(request.GET.get("scope", ""))
    except ValueError:
        return {}
    label = scope.label.removeprefix(f"{scope.owner}/")
    return {"type": scope.type.value, "name": "" if label == scope.owner else label}


def _page(request: HttpRequest, organization: Organization, form: BreakGlassForm, *, status: int = 200) -> HttpResponse:
    earlier = Paginator(break_glass.earlier(organization), PER_PAGE).get_page(request.GET.get("page"))
    active = [(found, _names(found)) for found in break_glass.active(organization)]
    context = {"organization": organization, "form": form, "active": active, "page": earlier, **_offered(organization)}
    return render(request, "policies/break_glass.html", context, status=status)


def _names(found: BreakGlass) -> list[tuple[int, str]]:
    """The first POLICIES_NAMED policies that it switches to audit."""
    return list(break_glass.policies_in(found.scope).order_by("name_key").values_list("pk", "name")[:POLICIES_NAMED])


def _offered(organization: Organization) -> dict[str, object]:
    """The suggestions of the name field."""
    repositories = Repository.objects.filter(organization=organization).order_by("key")[:NAMES_OFFERED]
    workflows = Workflow.objects.filter(repository__organization=organization).select_related("repository")
    clusters = Cluster.objects.filter(organization=organization).order_by("name")[:NAMES_OFFERED]
    return {
        "repositories": [repository.name for repository in repositories],
        "workflows": [
            f"{workflow.repository.name}/{workflow.file_name}"
            for workflow in workflows.order_by("repository__key", "file_name")[:NAMES_OFFERED]
        ],
        "clusters": [cluster.name for cluster in clusters],
    }


def broken_glass(request: HttpRequest) -> dict[str, Any]:
    """The context processor: `broken_glass` is the list for the page's organization, queried when it is used."""
    return {"broken_glass": SimpleLazyObject(partial(_active, request))}


def _active(request: HttpRequest) -> list[Any]:
    organization = getattr(request, "organization", None)
    if organization is None or not request.user.has_perm("policies.view_policy", organization):
        return []
    return list(break_glass.active(organization))
