"""The list of integrations, and one integration with its delivery log."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.http import urlencode
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.integrations import integration_types, queries
from policystore.integrations.models import Integration, OutboxMessage
from policystore.inventory.models import Organization


@require_safe
def integrations(request: HttpRequest, owner: str) -> HttpResponse:
    """Every integration of the organization."""
    organization = access.get_organization(request, owner, "integrations.view_integration")
    rows = queries.integrations_of(organization)
    context = {"organization": organization, "integrations": rows, "kinds": integration_types.KINDS.values()}
    return render(request, "integrations/list.html", context)


@require_safe
@vary_on_headers("HX-Request")
def integration(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """One integration and what was sent to it; asked by htmx, the log alone."""
    organization = access.get_organization(request, owner, "integrations.view_integration")
    return show(request, organization, queries.get_integration(organization, integration_id))


def show(
    request: HttpRequest, organization: Organization, integration: Integration, *, fresh_secret: str = ""
) -> HttpResponse:
    """The page of an integration, with a new signing secret where one was just made."""
    state, before = request.GET.get("state", ""), request.GET.get("before", "")
    page = queries.deliveries_page(integration, state=state, before=before)
    states = [("", "All"), *OutboxMessage.State.choices]
    context = {
        "organization": organization,
        "integration": integration,
        "page": page,
        "fresh_secret": fresh_secret,
        "tabs": [{"label": label, "query": f"?state={value}", "active": value == state} for value, label in states],
        "next_query": f"?{urlencode({'state': state, 'before': page.next_cursor})}" if page.next_cursor else "",
        "waits": not before and any(message.state == OutboxMessage.State.PENDING for message in page.messages),
    }
    template = "integrations/view.html#deliveries" if getattr(request, "htmx", False) else "integrations/view.html"
    return render(request, template, context)
