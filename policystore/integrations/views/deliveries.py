"""One delivery with its attempts; sending a test and sending again."""

from __future__ import annotations

import json

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from policystore.accounts import access
from policystore.integrations import queries
from policystore.integrations.actions import messages as actions

CHANGE = "integrations.change_integration"


@require_safe
def delivery(request: HttpRequest, owner: str, integration_id: int, message_id: int) -> HttpResponse:
    """What is told, and what came of each attempt."""
    organization = access.get_organization(request, owner, "integrations.view_integration")
    integration = queries.get_integration(organization, integration_id)
    message = queries.get_message(integration, message_id)
    context = {
        "organization": organization,
        "integration": integration,
        "message": message,
        "attempts": message.attempts.all()[:100],
        "payload": json.dumps(json.loads(message.payload), indent=2, ensure_ascii=False),
    }
    return render(request, "integrations/delivery.html", context)


@require_POST
def send_test(request: HttpRequest, owner: str, integration_id: int) -> HttpResponse:
    """Leave a test in the outbox; the log shows what comes of it."""
    organization = access.get_organization(request, owner, CHANGE)
    integration = queries.get_integration(organization, integration_id)
    try:
        actions.send_test(integration=integration, by=access.actor(request))
        messages.success(request, "A test is on its way; the log below shows what comes of it.")
    except actions.CannotSend as refusal:
        messages.error(request, str(refusal))
    return redirect("integrations:view", organization.key, integration.pk)


@require_POST
def replay(request: HttpRequest, owner: str, integration_id: int, message_id: int) -> HttpResponse:
    """Send one message again."""
    organization = access.get_organization(request, owner, CHANGE)
    integration = queries.get_integration(organization, integration_id)
    message = queries.get_message(integration, message_id)
    actions.replay(message=message, by=access.actor(request))
    messages.success(request, "The event is sent again, under the same id.")
    return redirect("integrations:delivery", organization.key, integration.pk, message.pk)
