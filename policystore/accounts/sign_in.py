"""Signing in with GitHub or a one-time link, and signing out.

Only people of allowed organizations get in, without a password, and are signed out at most 15 minutes after GitHub ends
their membership. One-time links are the first administrator's way in, and support staff's.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, NoReturn

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.providers.base import AuthProcess
from allauth.socialaccount.providers.github.views import GitHubOAuth2Adapter
from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from policystore.accounts import encryption, github, kept_forms, members
from policystore.accounts.models import GitHubCredential, SignInLink, User

logger = logging.getLogger(__name__)

BACKEND = "policystore.accounts.access.RoleBackend"


@login_not_required
@never_cache
@require_GET
def sign_in(request: HttpRequest) -> HttpResponse:
    """The sign-in page; people who are signed in continue to the page that they requested."""
    wanted = _page_of_ours(request, request.GET.get("next", ""))
    if request.user.is_authenticated:
        return redirect(wanted or "home")
    context = {"github_configured": bool(settings.GITHUB_CLIENT_ID), "next": wanted}
    return render(request, "accounts/sign_in.html", context)


def _page_of_ours(request: HttpRequest, address: str) -> str:
    """The address if it is a page of this store, else nothing."""
    ours = url_has_allowed_host_and_scheme(address, {request.get_host()}, require_https=request.is_secure())
    return address if ours else ""


def by_github(method: str) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """Redirect to the sign-in page for any other method, or while GitHub is not set up.

    allauth's `process` can also connect a second GitHub account to a user: anything but signing in is refused.
    """

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @login_not_required
        @wraps(view)
        def answer(request: HttpRequest) -> HttpResponse:
            if request.method != method or not settings.GITHUB_CLIENT_ID:
                return redirect("sign-in")
            asked_for = {*request.GET.getlist("process"), *request.POST.getlist("process")}
            if asked_for - {AuthProcess.LOGIN}:
                return render(request, "accounts/not_connected.html", status=403)
            return view(request)

        return answer

    return decorate


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def sign_in_link(request: HttpRequest, secret: str) -> HttpResponse:
    """Opening the link shows a button, and the button signs in: a program that previews links does not use it up."""
    if request.method != "POST":
        return render(request, "accounts/sign_in_link.html")
    try:
        user = redeem_link(secret=secret)
    except LinkRefused as refusal:
        return render(request, "accounts/sign_in_link.html", {"refusal": refusal}, status=410)
    login(request, user, backend=BACKEND)
    return redirect("home")


@login_not_required
@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    logout(request)
    return redirect("sign-in")


@login_not_required
def to_sign_in(request: HttpRequest) -> HttpResponse:
    """Redirect the addresses of password sign-in."""
    return redirect("sign-in")


@login_not_required
@require_GET
def favicon(request: HttpRequest) -> HttpResponse:
    """Browsers request this address whatever the page says."""
    return HttpResponseRedirect(static("icon.svg"))


LINK_LIFETIME = timedelta(hours=1)


class LinkRefused(Exception):
    """The link was used, has expired, or never existed; the message does not say which."""


def issue_link(*, user: User, lifetime: timedelta = LINK_LIFETIME) -> str:
    """Make a link's secret; earlier unused links of the person stop working."""
    secret = secrets.token_urlsafe(32)
    now = timezone.now()
    with transaction.atomic():
        SignInLink.objects.filter(user=user, used_at__isnull=True).delete()
        SignInLink.objects.create(user=user, digest=_digest(secret), expires_at=now + lifetime)
    return secret


def redeem_link(*, secret: str) -> User:
    """The person whom the link signs in; it never works again. Raises LinkRefused."""
    now = timezone.now()
    unused = SignInLink.objects.filter(digest=_digest(secret), used_at__isnull=True, expires_at__gt=now)
    # One UPDATE decides, so that of two people with the same link one gets in.
    if not unused.update(used_at=now):
        raise LinkRefused("This link was used already, has expired, or is not complete.")
    return SignInLink.objects.select_related("user").get(digest=_digest(secret)).user


def prune_links() -> int:
    """Delete links that can no longer be used; returns how many."""
    return SignInLink.objects.filter(expires_at__lt=timezone.now() - timedelta(days=1)).delete()[0]


def _digest(secret: str) -> str:
    # The secret has 256 random bits, so it cannot be guessed from a plain hash.
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class NoPasswordAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Nobody signs up or in with a password."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False


class GitHubAdapter(GitHubOAuth2Adapter):  # type: ignore[misc]
    """Asks GitHub who signs in, with a time limit, and keeps of the answer only what the store needs."""

    def complete_login(self, request: HttpRequest, app: Any, token: Any, **kwargs: Any) -> SocialLogin:
        """The person, not saved yet. Raises ImmediateHttpResponse with a page if GitHub gives no answer."""
        try:
            person = github.person(token.token)
        except (github.Undecided, github.TokenRefused) as error:
            _refuse(request, "accounts/github_undecided.html", 503, reason=str(error))
        values = {"id": person.github_id, "login": person.login, "name": person.name}
        return self.get_provider().sociallogin_from_response(request, values)


class GitHubMembersAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Lets active members of the allowed organizations in, and refuses everybody else with a page that says why.

    A user has exactly one GitHub account, by its numeric id: none is ever connected to a user who has one, and nobody
    is recognized by an e-mail address.
    """

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return True

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Ask GitHub for the memberships; raises ImmediateHttpResponse with a page for those who are refused."""
        if sociallogin.state.get("process") != AuthProcess.LOGIN:
            _refuse(request, "accounts/not_connected.html", 403)
        found = self._memberships(request, sociallogin)
        with transaction.atomic():
            if not sociallogin.is_existing and (user := members.placeholder(_login(sociallogin))):
                sociallogin.connect(request, user)
            sociallogin.state["policystore_memberships"] = found
            if sociallogin.is_existing:
                followed = self._follow(sociallogin)
        if sociallogin.is_existing and not followed.memberships:
            _refuse(request, "accounts/removed.html", 403, organizations=followed.removed_from)

    def _memberships(self, request: HttpRequest, sociallogin: SocialLogin) -> list[github.GitHubMembership]:
        """Those that open an organization."""
        token = sociallogin.token.token
        try:
            held = github.held_by(sociallogin.user) if sociallogin.is_existing else []
            found = github.memberships(token, held)
            if not github.admitted(found):
                # Only for people who would be refused: GitHub may have left out an organization that they belong to.
                found = github.memberships(token, github.allowed())
        except (github.Undecided, github.TokenRefused) as error:
            _refuse(request, "accounts/github_undecided.html", 503, reason=str(error))
        if not github.admitted(found):
            if sociallogin.is_existing:
                members.follow_github(user=sociallogin.user, token=token, found=found)
            strangers = github.strangers(found)
            _refuse(request, "accounts/not_a_member.html", 403, strangers=strangers)
        return found

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> User:
        """Create the person, and their memberships with them."""
        user: User = sociallogin.user
        with transaction.atomic():
            user.set_unusable_password()
            # `identify` gives them their login, once it is free.
            user.username = f"new.{sociallogin.account.uid}"
            sociallogin.save(request)
            self._follow(sociallogin)
        return user

    def _follow(self, sociallogin: SocialLogin) -> members.Followed:
        user, account = sociallogin.user, sociallogin.account
        full_name = str(account.extra_data.get("name") or "")
        members.identify(user=user, github_id=int(account.uid), login=_login(sociallogin), full_name=full_name)
        found = sociallogin.state.pop("policystore_memberships")
        return members.follow_github(user=user, token=sociallogin.token.token, found=found)

    def populate_user(self, request: HttpRequest, sociallogin: SocialLogin, data: dict[str, Any]) -> User:
        """Leave out e-mail addresses: nobody is recognized by one, and nothing is sent."""
        sociallogin.email_addresses.clear()
        user: User = sociallogin.user
        return user


def _login(sociallogin: SocialLogin) -> str:
    return str(sociallogin.account.extra_data["login"])


def _refuse(request: HttpRequest, template: str, status: int, **context: Any) -> NoReturn:
    raise ImmediateHttpResponse(render(request, template, context, status=status))


RETRY_SECONDS = 10


class MembershipMiddleware:
    """Ask GitHub again when its last answer is too old.

    A person who is no longer a member is signed out. While GitHub gives no answer, pages ask people to wait. Pages that
    need no sign-in, such as the ones that sign out or start a new sign-in, always answer.
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
        max_age = timedelta(seconds=settings.MEMBERSHIP_MAX_AGE_SECONDS)
        if credential is None or timezone.now() - credential.checked_at <= max_age:
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
        return kept_forms.session_ended(request)


def _wait(request: HttpRequest, reason: str) -> HttpResponse:
    logger.warning("The membership of %s could not be checked: %s", request.user, reason)
    page = render(request, "accounts/github_undecided.html", {"reason": reason, "can_retry": True}, status=503)
    # A whole page, even where htmx asked for part of one.
    page["HX-Retarget"], page["HX-Reswap"] = "body", "innerHTML"
    page["Retry-After"] = str(RETRY_SECONDS)
    return page


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
