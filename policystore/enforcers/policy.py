"""What a policy allows by its own text, apart from any enforcer: the measure that every enforcer is compared with."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from policystore.policy_language.endpoint_matcher import Pattern, full_name


@dataclass(frozen=True)
class Wildcard:
    """A host with `*`, and the ports that it is listed with, in the order of the policy."""

    host: str
    ports: tuple[int, ...]

    @cached_property
    def pattern(self) -> Pattern:
        """What matches a name that ends in a dot."""
        return Pattern.of(self.host)

    @property
    def hosts_without_star(self) -> Iterator[str]:
        """The hosts that it matches where its two sides overlap: s3.*.amazonaws.com also lists s3.amazonaws.com."""
        prefix, suffix = self.pattern.prefix, self.pattern.suffix
        for length in range(1, min(len(prefix), len(suffix)) + 1):
            if prefix.endswith(suffix[:length]):
                yield f"{prefix}{suffix[length:]}".removesuffix(".")


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
    """Wildcards that can be found by the names they match, without trying each of thousands."""

    def __init__(self, wildcards: Iterable[Wildcard]) -> None:
        self._listed = listed = list(wildcards)
        self._by_suffix: dict[str, list[Wildcard]] = {}
        self._inside: dict[str, list[Wildcard]] = {}
        for wildcard in listed:
            suffix = wildcard.pattern.suffix
            self._by_suffix.setdefault(suffix, []).append(wildcard)
            for parent in parents(f"*{suffix.removesuffix('.')}"):
                self._inside.setdefault(parent, []).append(wildcard)
        self._lengths = {len(suffix) for suffix in self._by_suffix}
        self._without_prefix = {wildcard.pattern.suffix: wildcard for wildcard in listed if not wildcard.pattern.prefix}

    def __iter__(self) -> Iterator[Wildcard]:
        return iter(self._listed)

    def matching(self, host: str) -> Iterator[Wildcard]:
        """The wildcards that match a host."""
        name = full_name(host)
        return (wildcard for wildcard in self._with_suffix_of(name) if name.startswith(wildcard.pattern.prefix))

    def inside(self, host: str) -> Sequence[Wildcard]:
        """The wildcards that match only names below a host."""
        return self._inside.get(host, ())

    def reaching(self, host: str) -> Iterator[Wildcard]:
        """The wildcards that match names below a host, and others."""
        return self._with_suffix_of(full_name(host))

    def covering(self, host: str) -> Iterator[Wildcard]:
        """The wildcards that match every name below a host."""
        endings = self._endings(f".{host}.")
        return (self._without_prefix[ending] for ending in endings if ending in self._without_prefix)

    def contradicting(self) -> Iterator[tuple[Wildcard, Wildcard]]:
        """Pairs that match some of the same names and differ in their first ports, the one that is listed first."""
        place = {wildcard.host: number for number, wildcard in enumerate(self._listed)}
        for wildcard in self._listed:
            suffix, number = wildcard.pattern.suffix, place[wildcard.host]
            for other in self._with_suffix_of(suffix):
                is_found_twice = other.pattern.suffix == suffix and place[other.host] > number
                if wildcard.ports[0] == other.ports[0] or is_found_twice:
                    continue
                if wildcard.pattern.overlaps(other.pattern):
                    yield (wildcard, other) if number < place[other.host] else (other, wildcard)

    def _with_suffix_of(self, name: str) -> Iterator[Wildcard]:
        for ending in self._endings(name):
            yield from self._by_suffix.get(ending, ())

    def _endings(self, name: str) -> Iterator[str]:
        return (name[len(name) - length :] for length in self._lengths if length <= len(name))


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
