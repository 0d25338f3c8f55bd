"""Keeps a change that needs a second person, and leads the person who made it to where it waits."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from policystore.accounts import access
from policystore.policies.actions import change_requests
from policystore.policies.actions.four_eyes import NeedsApproval


class FourEyesMiddleware:
    """Any page may run into NeedsApproval; none has to know of it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Keep the change, whose own transaction is undone by now."""
        if not isinstance(exception, NeedsApproval):
            return None
        waiting = change_requests.ask(change=exception.change, by=access.actor(request))
        messages.info(request, "Nothing is changed yet: a second person has to approve this.")
        return redirect("policies:change-request", waiting.organization.key, waiting.pk)
