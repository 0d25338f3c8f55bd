"""Signs a person out at most 15 minutes after GitHub ends their membership."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from policystore.accounts import encryption, github, members
from policystore.accounts.models import GitHubCredential

logger = logging.getLogger(__name__)

RETRY_SECONDS = 10


class MembershipMiddleware:
    """Ask GitHub again when its last answer is too old.

    A person who is no longer a member is signed out. While GitHub does not say, the pages wait. Pages that need no
    sign-in, such as the one that signs out or starts a new sign-in, always answer.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> HttpResponse | None:
        """The page to show instead of the one that was requested, if there is a reason to."""
        # Requests without a session cookie come from runners and strangers: nothing is looked up for them.
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or not getattr(view, "login_required", True):
            return None
        if not request.user.is_authenticated:
            return None
        credential = GitHubCredential.objects.filter(user_id=request.user.pk).select_related("user").first()
        if credential is None or not _is_old(credential):
            return None
        try:
            followed = _follow_again(credential)
        except github.Undecided as undecided:
            return _wait(request, str(undecided))
        if followed is not None and followed.memberships:
            return None
        logout(request)
        if followed is not None and followed.removed_from:
            return render(request, "accounts/removed.html", {"organizations": followed.removed_from}, status=403)
        return redirect("sign-in")


def _wait(request: HttpRequest, reason: str) -> HttpResponse:
    logger.warning("The membership of %s could not be checked: %s", request.user, reason)
    page = render(request, "accounts/github_undecided.html", {"reason": reason, "can_retry": True}, status=503)
    # A whole page, even where htmx asked for part of one.
    page["HX-Retarget"], page["HX-Reswap"] = "body", "innerHTML"
    page["Retry-After"] = str(RETRY_SECONDS)
    return page


def _is_old(credential: GitHubCredential) -> bool:
    return credential.checked_at < timezone.now() - timedelta(seconds=settings.MEMBERSHIP_MAX_AGE_SECONDS)


def _follow_again(credential: GitHubCredential) -> members.Followed | None:
    """Follow what GitHub says now; returns None if it no longer accepts the token. Raises Undecided."""
    try:
        token = encryption.decrypt(credential.encrypted_token)
        if not token:
            raise github.TokenRefused("The token was refused before.")
        found = github.memberships(token, github.held_by(credential.user))
    except (github.TokenRefused, encryption.Undecipherable):
        members.distrust_token(user=credential.user)
        return None
    return members.follow_github(user=credential.user, token=token, found=found)
