"""Ends the session of a person whom GitHub no longer lists as a member, at most 15 minutes later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from policystore.accounts import github, vault
from policystore.accounts.actions import members
from policystore.accounts.models import GitHubCredential

logger = logging.getLogger(__name__)


class NoStoreMiddleware:
    """Keep pages and JSON out of caches, in the browser and on the way there: they show what only some may see.

    It runs below the middleware that serves static files, which stay cacheable.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if "no-store" not in response.get("Cache-Control", ""):
            response["Cache-Control"] = "private, no-store"
        return response


class MembershipMiddleware:
    """Asks GitHub again when the last answer is too old; a person whose membership cannot be confirmed waits."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # Requests without a session cookie are runners' and strangers': nothing is looked up for them.
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or not request.user.is_authenticated:
            return self._get_response(request)
        credential = GitHubCredential.objects.filter(user_id=request.user.pk).select_related("user").first()
        if credential is None or not _is_old(credential):
            return self._get_response(request)
        try:
            is_member = _check_again(credential)
        except github.GitHubAway:
            logger.warning("GitHub is away; %s waits", request.user)
            away = render(request, "accounts/github_away.html", status=503)
            # A page, also where a part of one was asked for.
            away["HX-Retarget"], away["HX-Reswap"] = "body", "innerHTML"
            return away
        if not is_member:
            logout(request)
            return redirect("sign-in")
        return self._get_response(request)


def _is_old(credential: GitHubCredential) -> bool:
    return credential.checked_at < timezone.now() - timedelta(seconds=settings.MEMBERSHIP_MAX_AGE_SECONDS)


def _check_again(credential: GitHubCredential) -> bool:
    try:
        token = vault.decrypt(credential.encrypted_token)
        if not token:
            raise github.TokenRefused("The token was refused before.")
        found = github.memberships(token)
    except (github.TokenRefused, vault.Undecipherable):
        members.distrust_token(user=credential.user)
        return False
    organizations = {membership.login: membership.is_admin for membership in found}
    allowed = settings.GITHUB_ALLOWED_ORGANIZATIONS
    return members.follow_github(user=credential.user, token=token, organizations=organizations, allowed=allowed) > 0
