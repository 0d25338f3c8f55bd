"""What a policy allows by its own text, apart from any enforcer: the measure that every enforcer is compared with."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from policystore.policy_language.endpoint_matcher import Pattern, full_name


class Wildcard(NamedTuple):
    """A host with `*`, and the ports that it is listed with, in the order of the policy."""

    host: str
    ports: tuple[int, ...]

    @property
    def pattern(self) -> Pattern:
        """What matches a name that ends in a dot."""
        return Pattern.of(self.host)


@dataclass(frozen=True)
class EffectivePolicy:
    """A compiled policy: its mode, its endpoints as clean `host:port`, each once, and its switches.

    A call is allowed if an endpoint lists it: a host by name, or a wildcard whose `*` stands for any characters of a
    name. A wildcard lists no address.
    """

    mode: str = "block"
    endpoints: tuple[str, ...] = ()
    disable_sudo: bool = False
    disable_sudo_and_containers: bool = False
    disable_file_monitoring: bool = False
    disable_telemetry: bool = False
    lockdown: bool = False

    @classmethod
    def from_reply(cls, reply: Mapping[str, Any]) -> EffectivePolicy:
        """Read what is compiled for runners (`policy_language.document.read_reply`)."""
        switches = ("disable_sudo", "disable_sudo_and_containers", "disable_file_monitoring", "disable_telemetry")
        return cls(
            mode=reply.get("egress_policy", "audit"),
            endpoints=tuple(reply["allowed_endpoints"]),
            lockdown=bool(reply.get("lockdown", {}).get("enabled")),
            **{name: bool(reply.get(name)) for name in switches},
        )

    @cached_property
    def hosts(self) -> dict[str, tuple[int, ...]]:
        """The ports of each host that is listed by name."""
        return {host: ports for host, ports in self._ports.items() if "*" not in host}

    @cached_property
    def wildcards(self) -> WildcardIndex:
        """The wildcards with their ports."""
        return WildcardIndex(Wildcard(host, ports) for host, ports in self._ports.items() if "*" in host)

    @cached_property
    def _ports(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for endpoint in self.endpoints:
            host, _, port = endpoint.rpartition(":")
            found[host] = (*found.get(host, ()), int(port))
        return found

    def lists(self, host: str, port: int) -> bool:
        """True if the policy allows a call to a port of a host."""
        if port in self.hosts.get(host, ()):
            return True
        return not is_address(host) and any(port in wildcard.ports for wildcard in self.wildcards.matching(host))


class WildcardIndex:
    """Wildcards that can be found by the names they touch, without trying each of thousands."""

    def __init__(self, wildcards: Iterable[Wildcard]) -> None:
        self.listed = list(wildcards)
        self._below: dict[str, list[Wildcard]] = {}
        self._under_parent: dict[str, list[Wildcard]] = {}
        self._others: list[Wildcard] = []
        for wildcard in self.listed:
            base = _base(wildcard.host)
            if not base:
                self._others.append(wildcard)
                continue
            self._below.setdefault(base, []).append(wildcard)
            for parent in parents(base):
                self._under_parent.setdefault(parent, []).append(wildcard)

    def __iter__(self) -> Iterator[Wildcard]:
        return iter(self.listed)

    def matching(self, host: str) -> Iterator[Wildcard]:
        """The wildcards that match a host."""
        for parent in parents(host):
            yield from self._below.get(parent, ())
        name = full_name(host)
        yield from (wildcard for wildcard in self._others if wildcard.pattern.matches(name))

    def touching(self, base: str) -> Iterator[Wildcard]:
        """The wildcards that match some name below a host."""
        for parent in (base, *parents(base)):
            yield from self._below.get(parent, ())
        yield from self._under_parent.get(base, ())
        below = Pattern.of(f"*.{base}")
        yield from (wildcard for wildcard in self._others if wildcard.pattern.overlaps(below))

    def overlapping(self, wildcard: Wildcard) -> Iterator[Wildcard]:
        """The other wildcards that match some of the names that this one matches."""
        base, pattern = _base(wildcard.host), wildcard.pattern
        candidates = self.touching(base) if base else (o for o in self.listed if o.pattern.overlaps(pattern))
        yield from (other for other in candidates if other.host != wildcard.host)


def _base(wildcard: str) -> str:
    """The host below which a wildcard matches everything; empty for other wildcards."""
    base = wildcard.removeprefix("*.")
    return "" if base == wildcard or "*" in base else base


def parents(host: str) -> Iterator[str]:
    """The domains that a host is below, nearest first: a.b.c is below b.c and c."""
    while "." in host:
        host = host.partition(".")[2]
        yield host


def is_address(host: str) -> bool:
    """True for an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
