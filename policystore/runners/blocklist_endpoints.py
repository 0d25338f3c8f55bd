"""Endpoints that a global blocklist can hold, as the agent understands them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from policystore.runners.models import BlocklistEntry

_LABELS = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}"
_DOMAIN = re.compile(_LABELS)
_WILDCARD = re.compile(rf"\*\.{_LABELS}")


class EndpointRefused(ValueError):
    """The endpoint cannot be blocked, or is listed already; `str()` says why and what to do."""


def kind_of(endpoint: str) -> BlocklistEntry.Kind:
    """The kind of a lower-case endpoint without a final dot. Raises EndpointRefused."""
    match _address(endpoint):
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


def _address(endpoint: str) -> IPv4Address | IPv6Address | None:
    # Brackets and zones only occur with IPv6.
    try:
        return ip_address(endpoint.strip("[]").partition("%")[0])
    except ValueError:
        return None
