"""Handles two outcomes for all policy pages: a change that needs approval, and a
policy that is deleted at the same time."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from policystore.accounts import access
from policystore.policies.approvals import requests as change_requests
from policystore.policies.approvals.commands import Change, NeedsApproval
from policystore.policies.errors import PolicyGone


class _Beside:
    """Changes nothing as long as a page raises nothing."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)


def request_approval(request: HttpRequest, change: Change) -> HttpResponse:
    """Store the change as a request, and redirect to it."""
    waiting = change_requests.ask(change=change, by=access.actor(request))
    messages.info(request, "Nothing is changed yet: a second person has to approve this.")
    return redirect("policies:change-request", waiting.organization.key, waiting.pk)


class FourEyesMiddleware(_Beside):
    """Redirects to the change request when a view raises NeedsApproval."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Store the change. Its own transaction was rolled back."""
        return request_approval(request, exception.change) if isinstance(exception, NeedsApproval) else None


class PolicyGoneMiddleware(_Beside):
    """Leads back to the list, and says there what happened."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Redirect to the list, which everyone who may open the policy may see."""
        organization = getattr(request, "organization", None)
        if not isinstance(exception, PolicyGone) or organization is None:
            return None
        messages.error(request, str(exception))
        if "HX-Request" in request.headers:
            # The page, and not the part of it that htmx asked for.
            return HttpResponseClientRedirect(reverse("policies:list", args=[organization.key]))
        return redirect("policies:list", organization.key)
