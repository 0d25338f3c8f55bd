"""People, members and keys in the Django admin. Keys and members change in the store's own pages, with history."""

from __future__ import annotations

# Who is imported has registered its models.
import allauth.account.admin
import allauth.socialaccount.admin  # noqa: F401
import django.contrib.auth.admin  # noqa: F401
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import Model
from django.http import HttpRequest

from policystore.accounts.models import AccountEvent, ApiKey, GitHubCredential, Membership, SignInLink, User
from policystore.inventory.admin import LookOnly, Narrow

# Staff could change there, with no event in the history, what a role may do and as whom a GitHub account signs in.
admin.site.unregister([Group, EmailAddress, SocialAccount, SocialApp, SocialToken])


@admin.register(SocialAccount)
class SocialAccountAdmin(LookOnly):
    """Which GitHub account is whose."""

    list_display = ["user", "uid", "last_login"]
    list_select_related = ["user"]
    search_fields = ["user__username", "uid"]
    exclude = ["extra_data"]


@admin.register(User)
class UserAdmin(Narrow):
    """People: support staff may stop a person from signing in and make others staff; nothing else."""

    list_display = ["username", "is_active", "is_staff", "last_login"]
    list_filter = ["is_active", "is_staff"]
    search_fields = ["username"]
    fields = ["username", "is_active", "is_staff", "is_superuser", "last_login", "date_joined"]
    readonly_fields = ["username", "last_login", "date_joined"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Membership)
class MembershipAdmin(LookOnly):
    """Who is a member where."""

    list_display = ["user", "organization", "role", "from_github", "created_at"]
    list_filter = ["role"]
    list_select_related = ["user", "organization"]
    search_fields = ["user__username", "organization__key"]


@admin.register(ApiKey)
class ApiKeyAdmin(LookOnly):
    """Keys, by what may be shown of them."""

    list_display = ["organization", "kind", "slot", "name", "hint", "last_used_at", "revoked_at"]
    list_filter = ["kind"]
    list_select_related = ["organization"]
    exclude = ["digest"]


@admin.register(GitHubCredential)
class GitHubCredentialAdmin(LookOnly):
    """When each person's membership was last checked."""

    list_display = ["user", "checked_at"]
    list_select_related = ["user"]
    exclude = ["encrypted_token"]


@admin.register(SignInLink)
class SignInLinkAdmin(LookOnly):
    """Sign-in links, without what would let anyone in."""

    list_display = ["user", "created_at", "expires_at", "used_at"]
    list_select_related = ["user"]
    exclude = ["digest"]


@admin.register(AccountEvent)
class AccountEventAdmin(LookOnly):
    """What happened to keys and members."""

    list_display = ["at", "owner", "kind", "actor", "subject", "detail"]
    search_fields = ["owner", "actor", "subject"]
