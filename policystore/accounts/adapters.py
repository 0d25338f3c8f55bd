"""How allauth's GitHub sign-in becomes a member: only people of allowed organizations get in, without a password."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from django.conf import settings
from django.http import HttpRequest
from django.shortcuts import render

from policystore.accounts import github
from policystore.accounts.actions import members
from policystore.accounts.models import User


class NoPasswordAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Nobody signs up or in with a password."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False


class GitHubMembersAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Lets active members of the allowed organizations in, and refuses everybody else with a page that says why."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return True

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Ask GitHub for the memberships; raises ImmediateHttpResponse with a page for those who stay out."""
        try:
            found = github.memberships(sociallogin.token.token)
        except (github.GitHubAway, github.TokenRefused) as error:
            raise ImmediateHttpResponse(render(request, "accounts/github_away.html", status=503)) from error
        organizations = {membership.login: membership.is_admin for membership in found}
        if not any(login.lower() in settings.GITHUB_ALLOWED_ORGANIZATIONS for login in organizations):
            raise ImmediateHttpResponse(render(request, "accounts/not_a_member.html", status=403))
        self._adopt(request, sociallogin)
        sociallogin.state["policystore_organizations"] = organizations
        if sociallogin.is_existing:
            self._follow(sociallogin)

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> User:
        """Create the person, and their memberships with them."""
        user: User = super().save_user(request, sociallogin, form)
        self._follow(sociallogin)
        return user

    def _adopt(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Let a person whom an owner added by GitHub login take that place."""
        login = str(sociallogin.account.extra_data.get("login", "")).lower()
        waiting = User.objects.filter(username=login, socialaccount__isnull=True, github_credential__isnull=True)
        if not sociallogin.is_existing and login and (user := waiting.filter(is_staff=False).first()):
            sociallogin.connect(request, user)

    def _follow(self, sociallogin: SocialLogin) -> None:
        members.follow_github(
            user=sociallogin.user,
            token=sociallogin.token.token,
            organizations=sociallogin.state["policystore_organizations"],
            allowed=settings.GITHUB_ALLOWED_ORGANIZATIONS,
        )

    def populate_user(self, request: HttpRequest, sociallogin: SocialLogin, data: dict[str, Any]) -> User:
        """Name the person by their GitHub login in lower case, as GitHub compares it."""
        user: User = super().populate_user(request, sociallogin, data)
        user.username = str(data.get("username") or "").lower()
        return user
