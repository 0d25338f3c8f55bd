"""How an enforcer's form of a policy differs from what the policy says, call by call."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from policystore.policy_language.endpoint_matcher import Pattern, Verdict, full_name

# A limit of enforcers that filter by address.
SHARED_ADDRESS = "Once a host is resolved, every other host with the same address is open on the same ports."


class Effect(StrEnum):
    """How an enforcer treats calls differently than the policy says."""

    OPENS = "opens"
    BLOCKS = "blocks"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class Difference:
    """Calls that an enforcer treats differently than the policy says, or may.

    `hosts` are names, wildcards, networks, or a dot and a name for that and all names below it; a call is meant if all
    of them match its host. No `ports` are all ports.
    """

    effect: Effect
    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    reason: str

    @property
    def calls(self) -> str:
        """The calls in a few words, such as `*.example.com:443`."""
        hosts = " and ".join(host.removeprefix(".") for host in self.hosts)
        if len(self.hosts) == 1 and len(self.ports) == 1:
            return f"{hosts}:{self.ports[0]}"
        if not self.ports:
            return hosts if "/" in hosts else f"{hosts}, any port"
        return f"{hosts}, port {' or '.join(map(str, self.ports))}"

    def covers(self, host: str, port: int) -> bool:
        """True if a call to a port of a host is meant."""
        return (not self.ports or port in self.ports) and all(_matches(pattern, host) for pattern in self.hosts)


def _matches(pattern: str, host: str) -> bool:
    if "/" in pattern:
        return _is_in(host, pattern)
    if pattern.startswith("."):
        return f".{host}".endswith(pattern)
    if "*" in pattern:
        return Pattern.of(pattern).matches(full_name(host))
    return pattern == host


def _is_in(host: str, network: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address in ipaddress.ip_network(network)


class Group(NamedTuple):
    """Differences with one reason; `calls` has each of them in a few words."""

    effect: Effect
    reason: str
    calls: list[str]


@dataclass(frozen=True, slots=True)
class Form:
    """A policy as one enforcer gets it.

    `language` is yaml, json or text. `limits` are sentences about what has no call of its own, such as settings that
    the enforcer lacks. `verdict` decides about a host and a port as the enforcer does in block mode.
    """

    text: str
    language: str
    differences: Sequence[Difference]
    limits: Sequence[str]
    verdict: Callable[[str, int], Verdict]

    def grouped(self) -> list[Group]:
        """The differences by effect and reason, what is opened first."""
        found: dict[tuple[Effect, str], list[str]] = {}
        for difference in self.differences:
            found.setdefault((difference.effect, difference.reason), []).append(difference.calls)
        order = list(Effect)
        groups = [Group(effect, reason, calls) for (effect, reason), calls in found.items()]
        return sorted(groups, key=lambda group: order.index(group.effect))


def verdict_of(allowed: bool) -> Verdict:
    """The verdict of an enforcer that is never in doubt."""
    return Verdict.ALLOWED if allowed else Verdict.BLOCKED
