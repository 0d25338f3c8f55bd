"""Gets an organization for a person, or refuses: the first line of every page's view."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from policystore.accounts.actor import Actor
from policystore.accounts.models import User
from policystore.inventory.models import Organization


def get_organization(request: HttpRequest, owner: str, permission: str) -> Organization:
    """The organization named in the address, for a member whose role has the permission.

    Raises Http404 for everybody who is no member, so that nobody learns which organizations exist, and
    PermissionDenied for members whose role does not suffice.
    """
    user = request.user
    organization = Organization.objects.filter(key=owner.lower(), memberships__user__pk=user.pk or 0).first()
    if organization is None:
        raise Http404(f"No organization named {owner} is known to you here.")
    request.organization = organization  # type: ignore[attr-defined]
    if not user.has_perm(permission, organization):
        raise PermissionDenied("Your role in this organization does not allow this; ask an owner of it.")
    return organization


def actor(request: HttpRequest) -> Actor:
    """The person behind the request, as the history names them."""
    user = request.user
    if not isinstance(user, User):
        raise PermissionDenied("Sign in first.")
    return Actor(name=user.username, kind="user", user_id=user.pk)
