"""People, members and keys in the Django admin. Keys and members change in the store's own pages, with history."""

from __future__ import annotations

# Importing these registers the models that are unregistered below.
import allauth.account.admin
import allauth.socialaccount.admin  # noqa: F401
import django.contrib.auth.admin  # noqa: F401
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import Model
from django.forms import ModelForm
from django.http import HttpRequest

from policystore.accounts import access, members
from policystore.accounts.models import (
    AccountEvent,
    ApiKey,
    FormerMember,
    GitHubCredential,
    Membership,
    SignInLink,
    User,
)
from policystore.inventory.admin import LookOnly, Narrow

# Staff could change there, with no event in the history, what a role may do and as whom a GitHub account signs in.
admin.site.unregister([Group, EmailAddress, SocialAccount, SocialApp, SocialToken])
# The GitHub account of each user.
admin.site.register(
    SocialAccount,
    LookOnly,
    list_display=["user", "uid", "last_login"],
    list_select_related=["user"],
    search_fields=["user__username", "uid"],
    exclude=["extra_data"],
)


@admin.register(User)
class UserAdmin(Narrow):
    """People: support staff may stop a person who is not staff from signing in; superusers also make staff.

    Each change is an event of the history. Groups and single permissions are not changed here at all.
    """

    list_display = ["username", "github_id", "is_active", "is_staff", "last_login"]
    list_filter = ["is_active", "is_staff"]
    search_fields = ["username"]
    fields = ["username", "github_id", "is_active", "is_staff", "is_superuser", "last_login", "date_joined"]
    readonly_fields = ["username", "github_id", "last_login", "date_joined"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Only superusers change who is staff or a superuser."""
        if request.user.is_superuser:
            return self.readonly_fields
        return [*self.readonly_fields, "is_staff", "is_superuser"]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Staff cannot change themselves or each other."""
        if not super().has_change_permission(request, obj):
            return False
        is_protected = isinstance(obj, User) and (obj.is_staff or obj.is_superuser)
        return bool(request.user.is_superuser) or not is_protected

    def save_model(self, request: HttpRequest, obj: User, form: ModelForm[User], change: bool) -> None:
        """Change the rights, with the event, instead of saving the row."""
        members.change_rights(
            user=obj,
            is_active=obj.is_active,
            is_staff=obj.is_staff,
            is_superuser=obj.is_superuser,
            by=access.actor(request),
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


admin.site.register(
    Membership,
    LookOnly,
    list_display=["user", "organization", "role", "from_github", "created_at"],
    list_filter=["role"],
    list_select_related=["user", "organization"],
    search_fields=["user__username", "organization__key"],
)
admin.site.register(
    FormerMember,
    LookOnly,
    list_display=["user", "organization", "role", "removed_by", "ended_at"],
    list_select_related=["user", "organization"],
    search_fields=["user__username", "organization__key"],
)
# Keys, without their digests.
admin.site.register(
    ApiKey,
    LookOnly,
    list_display=["organization", "kind", "slot", "name", "hint", "clusters", "last_used_at", "revoked_at"],
    list_filter=["kind"],
    list_select_related=["organization"],
    exclude=["digest"],
)
# When each person's membership was last checked.
admin.site.register(
    GitHubCredential,
    LookOnly,
    list_display=["user", "checked_at"],
    list_select_related=["user"],
    exclude=["encrypted_token"],
)
# Sign-in links, without the digests of their secrets.
admin.site.register(
    SignInLink,
    LookOnly,
    list_display=["user", "created_at", "expires_at", "used_at"],
    list_select_related=["user"],
    exclude=["digest"],
)
admin.site.register(
    AccountEvent,
    LookOnly,
    list_display=["at", "owner", "kind", "actor", "subject", "detail"],
    search_fields=["owner", "actor", "subject"],
)
