"""Adds to and removes from global blocklists; each change writes its account events in the same transaction."""

from __future__ import annotations

from django.db import transaction

from policystore.accounts import account_events
from policystore.accounts.actor import Actor
from policystore.inventory.models import Organization
from policystore.runners.blocklist_endpoints import EndpointRefused, kind_of
from policystore.runners.models import BlocklistEntry


def add(*, organization: Organization | None, endpoint: str, reason: str, by: Actor) -> BlocklistEntry:
    """List a destination for an organization, or for everyone (None). Raises EndpointRefused."""
    endpoint = endpoint.strip().rstrip(".").lower()
    kind = kind_of(endpoint)
    with transaction.atomic():
        entry, is_new = BlocklistEntry.objects.get_or_create(
            organization=organization,
            endpoint=endpoint,
            defaults={"kind": kind, "reason": reason, "created_by": by.name},
        )
        if not is_new:
            raise EndpointRefused(f"“{endpoint}” is already listed: {entry.reason}")
        _record(entry, "added", by=by)
    return entry


def remove(*, entry: BlocklistEntry, by: Actor) -> None:
    """Take a destination off its list; removing it twice changes nothing."""
    with transaction.atomic():
        deleted, _ = BlocklistEntry.objects.filter(pk=entry.pk).delete()
        if deleted:
            _record(entry, "removed", by=by)


def _record(entry: BlocklistEntry, change: str, *, by: Actor) -> None:
    """Write the event of the organization; an entry for everyone concerns each organization."""
    if entry.organization is not None:
        account_events.record(
            entry.organization, f"blocklist entry {change}", by=by, subject=entry.endpoint, detail=entry.reason
        )
        return
    for organization in Organization.objects.order_by("pk"):
        kind = f"store-wide blocklist entry {change}"
        account_events.record(organization, kind, by=by, subject=entry.endpoint, detail=entry.reason)
