"""Permissions by role: a person may do in an organization what the group of their role there may."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from policystore.accounts import roles
from policystore.accounts.models import Membership
from policystore.inventory.models import Organization


class RoleBackend(ModelBackend):
    """Signs nobody in (GitHub and one-time links do); answers `has_perm(permission, organization)`."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> None:
        return None

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        if not isinstance(obj, Organization):
            return super().has_perm(user_obj, perm, obj)
        return user_obj.is_active and perm in self._in_organization(user_obj, obj)

    def _in_organization(self, user: Any, organization: Organization) -> set[str]:
        # Kept on the user object, which lives as long as the request.
        known: dict[int, set[str]] = user.__dict__.setdefault("_permissions_by_organization", {})
        if organization.pk not in known:
            membership = Membership.objects.filter(user=user, organization=organization).first()
            known[organization.pk] = roles.permissions_of(membership.role) if membership else set()
        return known[organization.pk]
