"""Endpoints as the agent reads and matches them.

The rules are the agent's own, quirks included, as its parser and matcher answered them
(tests/contract/endpoint_vectors.json); what a policy may say is narrower and is checked elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

DEFAULT_PORT = 443
# A port that is no number never matches: the agent reads it as 0.
NO_PORT = 0

# What the agent lets through on port 443 whatever the policy says.
ALWAYS_ALLOWED = (
    "*.actions.githubusercontent.com:443",
    "codeload.github.com:443",
    "actions-results-receiver-production.githubapp.com:443",
    "productionresultssa*.blob.core.windows.net:443",
)

_GO_INTEGER = re.compile(r"[+-]?[0-9]+")
_LARGEST_GO_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """An entry as the agent understands it; `domain` ends in a dot, port 0 never matches."""

    domain: str
    port: int
    wildcard: bool


def parse_allowed(text: str) -> list[AgentEndpoint]:
    """Read a list the way the agent does: split on the space character alone, `host[:port]`, no folding of case."""
    return [_parse_entry(entry) for entry in text.split(" ") if entry]


def _parse_entry(entry: str) -> AgentEndpoint:
    host, *rest = entry.split(":")
    return AgentEndpoint(domain=f"{host}.", port=_port(rest[0]) if rest else DEFAULT_PORT, wildcard="*" in host)


def _port(text: str) -> int:
    if not _GO_INTEGER.fullmatch(text):
        return NO_PORT
    number = int(text) if len(text) < 25 else _LARGEST_GO_INTEGER + 1
    return number if abs(number) <= _LARGEST_GO_INTEGER else NO_PORT


def matches_wildcard(pattern: str, target: str) -> bool:
    """Whether `*` in the pattern, spanning any number of labels, makes it the target.

    Only the text before the first and after the first `*` counts, so that a second `*` is taken literally.
    """
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == target
    return len(target) >= len(before) + len(after) and target.startswith(before) and target.endswith(after)


@dataclass(slots=True)
class AllowList:
    """Everything that a job may reach under a list of entries, as the agent decides it."""

    _exact: set[tuple[str, int]] = field(default_factory=set)
    _wildcards: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_entries(cls, entries: Iterable[str], *, telemetry_hosts: Iterable[str] = ()) -> AllowList:
        """Entries of a policy; `telemetry_hosts` are the store's own hosts, open while telemetry is on."""
        allowed = cls()
        for entry in (*entries, *ALWAYS_ALLOWED, *(f"{host}:{DEFAULT_PORT}" for host in telemetry_hosts)):
            for endpoint in parse_allowed(entry):
                allowed._add(endpoint)
        return allowed

    @classmethod
    def of_wildcards(cls, entries: Iterable[str]) -> AllowList:
        """What the wildcards among some entries stand for, and nothing else."""
        allowed = cls()
        for entry in entries:
            for endpoint in parse_allowed(entry):
                if endpoint.wildcard:
                    allowed._add(endpoint)
        return allowed

    def allows_entry(self, entry: str) -> bool:
        """Whether another entry without a wildcard, `host:port`, adds nothing to this list."""
        return any(self.allows(endpoint.domain, endpoint.port) for endpoint in parse_allowed(entry))

    def names(self, host: str) -> bool:
        """Whether the host may be reached on some port, so that the agent answers for its name."""
        domain = host if host.endswith(".") else f"{host}."
        if any(domain == listed for listed, port in self._exact if port != NO_PORT):
            return True
        return any(port != NO_PORT and matches_wildcard(pattern, domain) for pattern, port in self._wildcards.items())

    def allows(self, host: str, port: int) -> bool:
        """Whether a call to this host and port goes through; the host may end in a dot."""
        domain = host if host.endswith(".") else f"{host}."
        if (domain, port) in self._exact:
            return True
        return any(
            allowed_port == port and matches_wildcard(pattern, domain)
            for pattern, allowed_port in self._wildcards.items()
        )

    def _add(self, endpoint: AgentEndpoint) -> None:
        if endpoint.wildcard:
            # A wildcard that is listed with two ports uses only the first.
            self._wildcards.setdefault(endpoint.domain, endpoint.port)
        else:
            self._exact.add((endpoint.domain, endpoint.port))
