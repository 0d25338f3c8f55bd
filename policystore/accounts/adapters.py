"""Turns allauth's GitHub sign-in into a member's: only people of allowed organizations get in, without a password."""

from __future__ import annotations

from typing import Any, NoReturn

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from allauth.socialaccount.providers.base import AuthProcess
from allauth.socialaccount.providers.github.views import GitHubOAuth2Adapter
from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import render

from policystore.accounts import github, members
from policystore.accounts.models import User


class NoPasswordAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Nobody signs up or in with a password."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False


class GitHubAdapter(GitHubOAuth2Adapter):  # type: ignore[misc]
    """Asks GitHub who signs in, with a time limit, and keeps of the answer only what the store needs."""

    def complete_login(self, request: HttpRequest, app: Any, token: Any, **kwargs: Any) -> SocialLogin:
        """The person, not saved yet. Raises ImmediateHttpResponse with a page where GitHub does not say."""
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
        """Ask GitHub for the memberships; raises ImmediateHttpResponse with a page for those who stay out."""
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
                # Only now, for those who would stay out: GitHub may have hidden an organization, which is no refusal.
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
