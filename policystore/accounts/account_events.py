"""Writes account events; the other actions call it inside their own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policystore.accounts.actor import Actor
from policystore.accounts.models import AccountEvent
from policystore.inventory.models import Organization


def record(
    organization: Organization,
    kind: str,
    *,
    by: Actor,
    subject: str,
    detail: str = "",
    details: Mapping[str, Any] | None = None,
) -> None:
    """Record what happened to a key or member of an organization; `details` are values for the integrity check."""
    AccountEvent.objects.create(
        owner=organization.key, kind=kind, actor=by.name, subject=subject, detail=detail, details=dict(details or {})
    )
