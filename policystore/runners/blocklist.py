"""The global blocklist: destinations that no job may reach, for one organization or for every organization.

Each change writes its account events in the same transaction.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from django.db import transaction
from django.db.models import F, Q

from policystore.accounts.models import AccountEvent, Actor
from policystore.inventory.models import Organization
from policystore.runners.models import BlocklistEntry

# The agent's name of the list of each kind.
LIST_NAMES = {"ip_address": "ip_addresses", "domain": "domains", "wildcard_domain": "wildcard_domains"}
_LABELS = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}"
_DOMAIN = re.compile(_LABELS)
_WILDCARD = re.compile(rf"\*\.{_LABELS}")


class EndpointRefused(ValueError):
    """The endpoint cannot be blocked, or is already listed; `str()` says why and what to do."""


def kind_of(endpoint: str) -> BlocklistEntry.Kind:
    """Return the kind of a lower-case endpoint without a final dot. Raises EndpointRefused."""
    match _parse_address(endpoint):
        case IPv4Address():
            return BlocklistEntry.Kind.IP_ADDRESS
        case IPv6Address():
            raise EndpointRefused(
                f"“{endpoint}” is an IPv6 address. The agent blocks addresses with IPv4 rules, and an IPv6 address"
                " makes it give up all enforcement for the job. Enter the host name instead, for example evil.example."
            )
    if len(endpoint) <= 253 and _DOMAIN.fullmatch(endpoint):
        return BlocklistEntry.Kind.DOMAIN
    if len(endpoint) <= 255 and _WILDCARD.fullmatch(endpoint):
        return BlocklistEntry.Kind.WILDCARD_DOMAIN
    raise EndpointRefused(
        f"“{endpoint}” is not a valid destination. Enter an IPv4 address such as 203.0.113.9, a domain such as"
        " evil.example, or a wildcard such as *.evil.example."
    )


def can_be_served(kind: str, endpoint: str) -> bool:
    """Return True if the agent can block the endpoint as this kind, whatever way it reached the database."""
    try:
        return kind_of(endpoint) == kind
    except EndpointRefused:
        return False


def _parse_address(endpoint: str) -> IPv4Address | IPv6Address | None:
    # Brackets and zones only occur with IPv6.
    try:
        return ip_address(endpoint.strip("[]").partition("%")[0])
    except ValueError:
        return None


def agent_blocklist(organization: Organization | None) -> dict[str, list[dict[str, str]]]:
    """Return the blocklist in the agent's shape: the store-wide entries, and those of the organization if there is one.

    An endpoint on both lists occurs once, with the store-wide reason. What the agent cannot block is left out.
    """
    rows = BlocklistEntry.objects.filter(Q(organization=organization) | Q(organization__isnull=True))
    reasons: dict[str, dict[str, str]] = {kind: {} for kind in LIST_NAMES}
    by_owner = rows.order_by(F("organization").asc(nulls_first=True), "pk")
    for kind, endpoint, reason in by_owner.values_list("kind", "endpoint", "reason"):
        if can_be_served(kind, endpoint):
            reasons[kind].setdefault(endpoint, reason)
    return {
        name: [{"endpoint": endpoint, "reason": reason} for endpoint, reason in sorted(reasons[kind].items())]
        for kind, name in LIST_NAMES.items()
    }


def sole_organization() -> Organization | None:
    """Return the organization of a store that has only one, or None."""
    first_two = list(Organization.objects.order_by("pk")[:2])
    return first_two[0] if len(first_two) == 1 else None


def add(*, organization: Organization | None, endpoint: str, reason: str, by: Actor) -> BlocklistEntry:
    """List a destination for an organization, or for every one (None). Raises EndpointRefused."""
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
    """Take a destination off its list; removing it a second time changes nothing."""
    with transaction.atomic():
        deleted, _ = BlocklistEntry.objects.filter(pk=entry.pk).delete()
        if deleted:
            _record(entry, "removed", by=by)


def _record(entry: BlocklistEntry, change: str, *, by: Actor) -> None:
    """Write the event of the organization, or of every organization for a store-wide entry."""
    if entry.organization is not None:
        AccountEvent.objects.record(
            entry.organization, f"blocklist entry {change}", by=by, subject=entry.endpoint, detail=entry.reason
        )
        return
    for organization in Organization.objects.order_by("pk"):
        kind = f"store-wide blocklist entry {change}"
        AccountEvent.objects.record(organization, kind, by=by, subject=entry.endpoint, detail=entry.reason)
