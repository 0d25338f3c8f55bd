"""Adding, changing and deleting integrations."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from policystore.accounts import access
from policystore.integrations import integration_types, queries
from policystore.integrations.actions import integrations as actions
from policystore.integrations.forms import FORMS, IntegrationForm
from policystore.integrations.models import Integration
from policystore.integrations.views import reading
from policystore.inventory.models import Organization

CHANGE = "integrations.change_integration"


@require_http_methods(["GET", "POST"])
@never_cache
def new(request: HttpRequest, owner: str, kind: str) -> HttpResponse:
    """A form of this kind; POST adds the integration, and shows a webhook's signing secret, this once."""
    organization = access.get_organization(request, owner, CHANGE)
    if kind not in FORMS:
        raise Http404("No such kind of integration.")
    if request.method != "POST":
        return _page(request, organization, FORMS[kind](), kind)
    form = FORMS[kind](request.POST)
    if form.is_valid():
        signing = {"signing": actions.new_signing_secret()} if kind == integration_types.WEBHOOK else {}
        try:
            made = _create(request, organization, form, kind, signing)
        except actions.IntegrationRefused as refusal:
            form.add_error("name", str(refusal))
        else:
            return _made(request, organization, made, signing.get("signing", ""))
    return _page(request, organization, form, kind, status=422)


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """The form as it was filled in, without secrets; POST changes the integration."""
    organization = access.get_organization(request, owner, CHANGE)
    integration = queries.get_integration(organization, integration_id)
    kind = integration.kind
    if request.method != "POST":
        return _page(request, organization, FORMS[kind](integration=integration), kind)
    form = FORMS[kind](request.POST, integration=integration)
    if form.is_valid():
        name, chosen = form.cleaned_data["name"], form.cleaned_data["events"]
        given = {"name": name, "events": chosen, "config": form.config(), "secrets": form.secrets()}
        try:
            actions.update(integration=integration, by=access.actor(request), **given)
        except actions.IntegrationRefused as refusal:
            form.add_error("name", str(refusal))
        else:
            messages.success(request, f"{name} was changed.")
            return redirect("integrations:view", organization.key, integration.pk)
    return _page(request, organization, form, kind, status=422)


@require_POST
@never_cache
def renew_secret(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """Make a new signing secret and show it, this once."""
    organization = access.get_organization(request, owner, CHANGE)
    integration = queries.get_integration(organization, integration_id)
    if integration.kind != integration_types.WEBHOOK:
        raise Http404("Only webhooks are signed.")
    try:
        fresh = actions.renew_signing_secret(integration=integration, by=access.actor(request))
    except actions.IntegrationGone as gone:
        raise Http404(str(gone)) from gone
    return reading.show(request, organization, integration, fresh_secret=fresh)


@require_POST
def set_enabled(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """Switch an integration on (`enabled=1`) or off."""
    organization = access.get_organization(request, owner, CHANGE)
    integration = queries.get_integration(organization, integration_id)
    enabled = request.POST.get("enabled") == "1"
    try:
        actions.set_enabled(integration=integration, enabled=enabled, by=access.actor(request))
    except actions.IntegrationGone as gone:
        raise Http404(str(gone)) from gone
    messages.success(request, f"{integration.name} is {'enabled' if enabled else 'disabled'}.")
    return redirect("integrations:view", organization.key, integration.pk)


@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """Ask; then delete an integration."""
    organization = access.get_organization(request, owner, CHANGE)
    integration = queries.get_integration(organization, integration_id)
    if request.method != "POST":
        return render(request, "integrations/delete.html", {"organization": organization, "integration": integration})
    actions.delete(integration=integration, by=access.actor(request))
    messages.success(request, f"{integration.name} was deleted.")
    return redirect("integrations:list", organization.key)


def _create(
    request: HttpRequest, organization: Organization, form: IntegrationForm, kind: str, signing: dict[str, str]
) -> Integration:
    return actions.create(
        organization=organization,
        kind=kind,
        name=form.cleaned_data["name"],
        events=form.cleaned_data["events"],
        config=form.config(),
        secrets={**form.secrets(), **signing},
        by=access.actor(request),
    )


def _made(request: HttpRequest, organization: Organization, made: Integration, secret: str) -> HttpResponse:
    if secret:
        return reading.show(request, organization, made, fresh_secret=secret)
    messages.success(request, f"{made.name} was added. Send a test to see whether it works.")
    return redirect("integrations:view", organization.key, made.pk)


def _page(
    request: HttpRequest, organization: Organization, form: IntegrationForm, kind: str, *, status: int = 200
) -> HttpResponse:
    context = {
        "organization": organization,
        "form": form,
        "kind": integration_types.KINDS[kind],
        "integration": form.integration,
    }
    return render(request, "integrations/edit.html", context, status=status)
