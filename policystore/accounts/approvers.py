"""Counts the members who may approve changes: four eyes need at least two of them."""

from __future__ import annotations

from typing import Final

from policystore.accounts.models import Membership
from policystore.accounts.roles import PERMISSIONS
from policystore.inventory.models import Organization

MINIMUM: Final = 2
ROLES: Final = frozenset(role for role, permissions in PERMISSIONS.items() if "policies.change_policy" in permissions)


def count(organization: Organization, *, without: Membership | None = None) -> int:
    """Count the members who may approve changes, leaving one out if given.

    Locks every membership of the organization until the transaction ends, so that two changes made at the same time
    cannot each count on the member that the other one removes.
    """
    members = Membership.objects.select_for_update().filter(organization=organization).order_by("pk")
    left_out = without.pk if without else None
    return sum(1 for member in members if member.role in ROLES and member.pk != left_out)


def are_required(organization: Organization) -> bool:
    """Whether four eyes are on for the organization."""
    return Organization.objects.filter(pk=organization.pk, four_eyes__isnull=False).exists()
