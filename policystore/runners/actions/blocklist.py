"""Adds to the global blocklist and removes from it; each change leaves an account event in its transaction."""

from __future__ import annotations

import re
from ipaddress import ip_address

from django.db import transaction

from policystore.accounts.actions import events
from policystore.accounts.actors import Actor
from policystore.inventory.models import Organization
from policystore.runners.models import BlocklistEntry

_LABELS = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}"
_DOMAIN = re.compile(_LABELS)
_WILDCARD = re.compile(rf"\*\.{_LABELS}")


class EndpointRefused(ValueError):
    """What was written is no IP address, domain or wildcard domain, or is listed already."""


def add(*, organization: Organization, endpoint: str, reason: str, by: Actor) -> BlocklistEntry:
    """List a destination, whose kind shows in how it is written. Raises EndpointRefused."""
    endpoint = endpoint.strip().rstrip(".").lower()
    kind = _kind(endpoint)
    with transaction.atomic():
        entry, fresh = BlocklistEntry.objects.get_or_create(
            organization=organization,
            endpoint=endpoint,
            defaults={"kind": kind, "reason": reason, "created_by": by.name},
        )
        if not fresh:
            raise EndpointRefused(f"{endpoint} is on the list already: {entry.reason}")
        events.record(organization, "blocklist entry added", by=by, subject=endpoint, detail=reason)
    return entry


def remove(*, entry: BlocklistEntry, by: Actor) -> None:
    """Take a destination off the list; removing it twice changes nothing."""
    with transaction.atomic():
        deleted, _ = BlocklistEntry.objects.filter(pk=entry.pk).delete()
        if deleted:
            events.record(
                entry.organization, "blocklist entry removed", by=by, subject=entry.endpoint, detail=entry.reason
            )


def _kind(endpoint: str) -> str:
    try:
        ip_address(endpoint)
    except ValueError:
        pass
    else:
        return BlocklistEntry.Kind.IP_ADDRESS
    if len(endpoint) <= 253 and _DOMAIN.fullmatch(endpoint):
        return BlocklistEntry.Kind.DOMAIN
    if len(endpoint) <= 255 and _WILDCARD.fullmatch(endpoint):
        return BlocklistEntry.Kind.WILDCARD_DOMAIN
    raise EndpointRefused("Write an IP address, a domain such as evil.example, or a wildcard such as *.evil.example.")
