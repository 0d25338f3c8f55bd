"""Writes account events; the other actions call it inside their own transaction."""

from __future__ import annotations

from policystore.accounts.actors import Actor
from policystore.accounts.models import AccountEvent
from policystore.inventory.models import Organization


def record(organization: Organization, kind: str, *, by: Actor, subject: str, detail: str = "") -> None:
    """Tell what happened to a key or member of an organization."""
    AccountEvent.objects.create(owner=organization.key, kind=kind, actor=by.name, subject=subject, detail=detail)
