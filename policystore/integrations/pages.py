"""Settings → Integrations: list, add, change and delete integrations, and show their delivery log."""

from __future__ import annotations

import json

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.integrations import actions, outbox, queries
from policystore.integrations.forms import FORMS, IntegrationForm
from policystore.integrations.models import KINDS, WEBHOOK, Integration, OutboxMessage
from policystore.inventory.models import Organization
from policystore.web import pagination

VIEW, CHANGE = "integrations.view_integration", "integrations.change_integration"


def _get_integration(request: HttpRequest, owner: str, integration_id: int, permission: str = CHANGE) -> Integration:
    return queries.get_integration(access.get_organization(request, owner, permission), integration_id)


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
        given, secret = form.given(), actions.new_signing_secret() if kind == WEBHOOK else ""
        if secret:
            given["secrets"]["signing"] = secret
        try:
            made = actions.create(organization=organization, kind=kind, by=access.actor(request), **given)
        except actions.IntegrationRefused as refusal:
            form.add_error("name", str(refusal))
        else:
            if secret:
                return show(request, made, fresh_secret=secret)
            messages.success(request, f"{made.name} was added. Send a test to see whether it works.")
            return redirect("integrations:view", organization.key, made.pk)
    return _page(request, organization, form, kind, status=422)


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """The form with the stored values, without secrets; POST changes the integration."""
    integration = _get_integration(request, owner, integration_id)
    kind = integration.kind
    if request.method != "POST":
        return _page(request, integration.organization, FORMS[kind](integration=integration), kind)
    form = FORMS[kind](request.POST, integration=integration)
    if form.is_valid():
        try:
            actions.update(integration=integration, by=access.actor(request), **form.given())
        except actions.IntegrationRefused as refusal:
            form.add_error("name", str(refusal))
        else:
            messages.success(request, f"{form.cleaned_data['name']} was changed.")
            return redirect("integrations:view", integration.organization.key, integration.pk)
    return _page(request, integration.organization, form, kind, status=422)


@require_POST
@never_cache
def renew_secret(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """Make a new signing secret and show it, this once."""
    integration = _get_integration(request, owner, integration_id)
    if integration.kind != WEBHOOK:
        raise Http404("Only webhooks are signed.")
    try:
        fresh = actions.renew_signing_secret(integration=integration, by=access.actor(request))
    except actions.IntegrationGone as gone:
        raise Http404(str(gone)) from gone
    return show(request, integration, fresh_secret=fresh)


@require_POST
def set_enabled(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """Switch an integration on (`enabled=1`) or off."""
    integration = _get_integration(request, owner, integration_id)
    enabled = request.POST.get("enabled") == "1"
    try:
        actions.set_enabled(integration=integration, enabled=enabled, by=access.actor(request))
    except actions.IntegrationGone as gone:
        raise Http404(str(gone)) from gone
    messages.success(request, f"{integration.name} is {'enabled' if enabled else 'disabled'}.")
    return redirect("integrations:view", integration.organization.key, integration.pk)


@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """Ask; then delete an integration."""
    integration = _get_integration(request, owner, integration_id)
    if request.method != "POST":
        context = {"organization": integration.organization, "integration": integration}
        return render(request, "integrations/delete.html", context)
    actions.delete(integration=integration, by=access.actor(request))
    messages.success(request, f"{integration.name} was deleted.")
    return redirect("integrations:list", integration.organization.key)


def _page(
    request: HttpRequest, organization: Organization, form: IntegrationForm, kind: str, *, status: int = 200
) -> HttpResponse:
    context = {"organization": organization, "form": form, "kind": KINDS[kind], "integration": form.integration}
    return render(request, "integrations/edit.html", context, status=status)


@require_safe
def delivery(request: HttpRequest, owner: str, integration_id: int, message_id: int) -> HttpResponse:
    """Show a message's payload and its delivery attempts."""
    integration = _get_integration(request, owner, integration_id, VIEW)
    message = queries.get_message(integration, message_id)
    context = {
        "organization": integration.organization,
        "integration": integration,
        "message": message,
        "attempts": message.attempts.all()[:100],
        "payload": json.dumps(json.loads(message.payload), indent=2, ensure_ascii=False),
    }
    return render(request, "integrations/delivery.html", context)


@require_POST
def send_test(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """Queue a test message; the log shows its result."""
    integration = _get_integration(request, owner, integration_id)
    try:
        outbox.send_test(integration=integration, by=access.actor(request))
        messages.success(request, "The test will be sent in a moment. The log below shows the result.")
    except outbox.CannotSend as refusal:
        messages.error(request, str(refusal))
    return redirect("integrations:view", integration.organization.key, integration.pk)


@require_POST
def replay(request: HttpRequest, owner: str, integration_id: int, message_id: int) -> HttpResponse:
    """Send one message again."""
    integration = _get_integration(request, owner, integration_id)
    message = queries.get_message(integration, message_id)
    outbox.replay(message=message, by=access.actor(request))
    messages.success(request, "The event will be sent again, with the same id.")
    return redirect("integrations:delivery", integration.organization.key, integration.pk, message.pk)


@require_safe
def integrations(request: HttpRequest, owner: str) -> HttpResponse:
    """Every integration of the organization."""
    organization = access.get_organization(request, owner, VIEW)
    rows = queries.integrations_of(organization)
    context = {"organization": organization, "integrations": rows, "kinds": KINDS.values()}
    return render(request, "integrations/list.html", context)


@require_safe
@vary_on_headers("HX-Request")
def integration(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """One integration and what was sent to it; asked by htmx, the log alone."""
    return show(request, _get_integration(request, owner, integration_id, VIEW))


def show(request: HttpRequest, integration: Integration, *, fresh_secret: str = "") -> HttpResponse:
    """The page of an integration, with a new signing secret where one was just made."""
    state, before = request.GET.get("state", ""), request.GET.get("before", "")
    page = queries.deliveries_page(integration, state=state, before=before)
    values = {"state": state}
    context = {
        "organization": integration.organization,
        "integration": integration,
        "page": page,
        "fresh_secret": fresh_secret,
        "tabs": pagination.tabs([("", "All"), *OutboxMessage.State.choices], values, "state"),
        "waits": not before and any(message.state == OutboxMessage.State.PENDING for message in page.rows),
        **pagination.links(page, values),
    }
    return pagination.render_list(request, "integrations/view.html", "deliveries", context)
