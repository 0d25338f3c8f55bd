"""Decides what a person may do: a member may do what the Django group of their role may.

`get_organization` is the first line of every page's view.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from policystore.accounts.models import Actor, Membership, User
from policystore.accounts.roles import PERMISSIONS, group_name
from policystore.inventory.models import Organization


def get_organization(request: HttpRequest, owner: str, permission: str) -> Organization:
    """The organization named in the URL, for a member whose role has the permission.

    Raises Http404 for people who are not members, so that they do not learn which organizations exist, and
    PermissionDenied for members whose role does not have the permission.
    """
    user = request.user
    organization = Organization.objects.filter(key=owner.lower(), memberships__user__pk=user.pk or 0).first()
    if organization is None:
        raise Http404(f"You are not a member of an organization named “{owner}”.")
    request.organization = organization  # type: ignore[attr-defined]
    if not user.has_perm(permission, organization):
        raise PermissionDenied("Your role in this organization does not allow this. Ask an owner.")
    return organization


def first_organization(request: HttpRequest) -> Organization | None:
    """The first organization that the person is a member of, or None."""
    memberships = Membership.objects.filter(user__pk=request.user.pk or 0).select_related("organization")
    first = memberships.order_by("organization__key").first()
    return first.organization if first else None


def actor(request: HttpRequest) -> Actor:
    """The person behind the request, as the history names them."""
    user = request.user
    if not isinstance(user, User):
        raise PermissionDenied("Sign in first.")
    return Actor(name=user.username, kind="user", user_id=user.pk)


# Four eyes need at least two members who may approve changes.
MIN_APPROVERS: Final = 2
APPROVER_ROLES: Final = frozenset(
    role for role, permissions in PERMISSIONS.items() if "policies.change_policy" in permissions
)


class RoleBackend(ModelBackend):
    """Answers `has_perm(permission, organization)`. It signs nobody in: GitHub and one-time links do."""

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
            known[organization.pk] = permissions_of(membership.role) if membership else set()
        return known[organization.pk]


def permissions_of(role: str) -> set[str]:
    """The permissions that the role's group holds, as `app.codename`."""
    rows = Permission.objects.filter(group__name=group_name(role)).values_list("content_type__app_label", "codename")
    return {f"{app_label}.{codename}" for app_label, codename in rows}


def count_approvers(organization: Organization, *, without: Membership | None = None) -> int:
    """Count the members who may approve changes, leaving one out if given.

    Locks every membership of the organization until the transaction ends, so that two changes made at the same time
    cannot each count on the member that the other one removes.
    """
    members = Membership.objects.select_for_update().filter(organization=organization).order_by("pk")
    left_out = without.pk if without else None
    return sum(1 for member in members if member.role in APPROVER_ROLES and member.pk != left_out)


def four_eyes_are_on(organization: Organization) -> bool:
    """Return True if the organization requires a second person for each change."""
    return Organization.objects.filter(pk=organization.pk, four_eyes__isnull=False).exists()
