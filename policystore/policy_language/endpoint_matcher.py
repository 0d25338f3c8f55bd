"""Endpoints as the Harden-Runner agent parses and matches them. Every verdict on a call comes from this module.

The rules are the agent's own, quirks included: its public Linux source (6923054), and the answers that its parser and
matcher gave (tests/contract/endpoint_vectors.json). Stored text can hold entries that a policy may no longer list;
they are matched as the agent would match them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

DEFAULT_PORT = 443
# The agent reads a port that is not a number as 0.
NO_PORT = 0
MAX_PORT = 65535

# Allowed whatever the policy lists.
BUILT_IN_WILDCARDS = ("*.actions.githubusercontent.com:443", "productionresultssa*.blob.core.windows.net:443")
BUILT_IN_HOSTS = ("codeload.github.com:443", "actions-results-receiver-production.githubapp.com:443")
# Allowed while telemetry is on. A store under another name has to be listed.
VENDOR_HOSTS = ("agent.api.stepsecurity.io:443", "prod.app-api.stepsecurity.io:443")
BUILT_IN = (*BUILT_IN_WILDCARDS, *BUILT_IN_HOSTS)

_GO_INTEGER = re.compile(r"[+-]?[0-9]+")
_LARGEST_GO_INTEGER = 2**63 - 1
# The agent refuses to resolve these before it looks at any wildcard.
_NEVER_RESOLVED = ".internal."
# Open in block mode. Only IPv4 on eth0 and docker0 is filtered, so loopback and IPv6 are open too.
OPEN_NETWORKS = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.169.254/32",
    )
)


class Verdict(StrEnum):
    """The agent's decision about a call in block mode; undetermined if it picks one of several ports at random."""

    ALLOWED = "allowed"
    BLOCKED = "blocked"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """An entry as the agent understands it; `domain` ends in a dot, port 0 never matches."""

    domain: str
    port: int
    wildcard: bool


def parse_allowed(text: str) -> list[AgentEndpoint]:
    """Parse a list as the agent does: split on the space character alone, `host[:port]`, case not folded."""
    return [_parse_entry(entry) for entry in text.split(" ") if entry]


def _parse_entry(entry: str) -> AgentEndpoint:
    host, *rest = entry.split(":")
    port = _port(rest[0]) if rest else DEFAULT_PORT
    return AgentEndpoint(domain=full_name(host), port=port, wildcard="*" in host)


def full_name(host: str) -> str:
    """The host with its final dot, as the agent compares names."""
    return host if host.endswith(".") else f"{host}."


def _port(text: str) -> int:
    if not _GO_INTEGER.fullmatch(text):
        return NO_PORT
    number = int(text) if len(text) < 25 else _LARGEST_GO_INTEGER + 1
    return number if abs(number) <= _LARGEST_GO_INTEGER else NO_PORT


@dataclass(frozen=True, slots=True)
class Pattern:
    """A wildcard as the agent matches it: split at every `*`, of which only the first two pieces count.

    A name, with its final dot, matches if it starts with `prefix` and ends with `suffix`; the two may overlap.
    """

    prefix: str
    suffix: str

    @classmethod
    def of(cls, host: str) -> Pattern:
        """The pattern of a host that has a `*`, with or without its final dot."""
        prefix, suffix = full_name(host).split("*")[:2]
        return cls(prefix, suffix)

    def matches(self, name: str) -> bool:
        """True if the pattern matches a name that ends in a dot."""
        return name.startswith(self.prefix) and name.endswith(self.suffix)

    def overlaps(self, other: Pattern) -> bool:
        """True if some name matches both patterns."""
        return (
            (self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix))
            and (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix))
            and self._can_match()
            and other._can_match()
        )

    def _can_match(self) -> bool:
        # Names end in a dot. Between two stars there may be anything.
        return self.suffix.endswith(".") or not self.suffix


@dataclass(slots=True)
class Wildcards:
    """Patterns with their ports. Indexed by suffix, so that matching a name does not try each of thousands."""

    _listed: set[str] = field(default_factory=set)
    _by_suffix: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    _lengths: set[int] = field(default_factory=set)

    def add(self, host: str, port: int) -> None:
        """Keep a wildcard with the first port that it is listed with; others do not count."""
        name = full_name(host)
        if name in self._listed:
            return
        self._listed.add(name)
        pattern = Pattern.of(name)
        self._lengths.add(len(pattern.suffix))
        self._by_suffix.setdefault(pattern.suffix, {}).setdefault(pattern.prefix, set()).add(port)

    def matching(self, name: str) -> Iterator[int]:
        """The ports of the wildcards that match a name with its final dot."""
        if name.endswith(_NEVER_RESOLVED):
            return
        for length in self._lengths:
            if length > len(name):
                continue
            for prefix, ports in self._by_suffix.get(name[len(name) - length :], {}).items():
                if name.startswith(prefix):
                    yield from ports


@dataclass(slots=True)
class AllowList:
    """Everything that a job may reach under a list of entries, as the agent decides it in block mode.

    `gives_up` is the first entry that makes the agent stop enforcing for the whole job; empty where there is none.
    """

    gives_up: str = ""
    _names: dict[str, set[int]] = field(default_factory=dict)
    _wildcards: Wildcards = field(default_factory=Wildcards)

    @classmethod
    def from_entries(cls, entries: Iterable[str], *, telemetry: bool = True) -> AllowList:
        """A policy's entries with what the agent adds to them; `telemetry` is false where the policy disables it."""
        return cls.listed([*entries, *BUILT_IN, *(VENDOR_HOSTS if telemetry else ())])

    @classmethod
    def listed(cls, entries: Iterable[str]) -> AllowList:
        """Some entries and nothing besides."""
        allowed = cls()
        for entry in entries:
            for endpoint in parse_allowed(entry):
                allowed._add(endpoint)
        return allowed

    def verdict(self, host: str, port: int) -> Verdict:
        """The verdict on a call to a port of a host, which may end in a dot."""
        if not 0 < port <= MAX_PORT:
            return Verdict.BLOCKED
        if _is_open_address(host):
            return Verdict.ALLOWED
        name = full_name(host)
        ports = self._names.get(name)
        if ports is None:
            # Wildcards are never tried for a host that is listed by name.
            ports = set(self._wildcards.matching(name))
            if port in ports and len(ports) > 1:
                return Verdict.UNDETERMINED
        return Verdict.ALLOWED if port in ports else Verdict.BLOCKED

    def verdict_of(self, endpoint: str) -> Verdict:
        """The verdict on a call to a clean `host:port`."""
        host, _, port = endpoint.rpartition(":")
        return self.verdict(host, int(port))

    def tries_wildcards(self, host: str) -> bool:
        """True if wildcards can decide about the host at all."""
        name = full_name(host)
        return name not in self._names and not name.endswith(_NEVER_RESOLVED)

    def resolves(self, host: str) -> bool:
        """True if the agent answers a DNS query for the host, whatever port is called afterwards."""
        name = full_name(host)
        return name in self._names or any(True for _ in self._wildcards.matching(name))

    def _add(self, endpoint: AgentEndpoint) -> None:
        if endpoint.wildcard:
            self._wildcards.add(endpoint.domain, endpoint.port)
            return
        self._names.setdefault(endpoint.domain, set()).add(endpoint.port)
        if not self.gives_up and why_it_gives_up(endpoint):
            self.gives_up = f"{endpoint.domain.removesuffix('.')}:{endpoint.port}"


def why_it_gives_up(endpoint: AgentEndpoint) -> str:
    """Why this entry makes the agent stop enforcing for the whole job, in block mode; empty where it does not."""
    if endpoint.wildcard:
        return ""
    if not 0 <= endpoint.port <= MAX_PORT:
        return "the firewall rejects its port"
    return why_unresolvable(endpoint.domain.removesuffix("."))


@lru_cache(maxsize=50_000)
def _is_open_address(host: str) -> bool:
    if not (host[:1].isdigit() or ":" in host):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == 6 or any(address in network for network in OPEN_NETWORKS)


# In block mode the agent looks up every host that is listed by name in public DNS before the job starts. If one has no
# address there, it stops enforcing for the whole job.

# The special-use domain names that IANA registers, and those that RFC 6762 (appendix G) and Kubernetes use privately.
# Without .example, which documentation may use in any way.
_PRIVATE = (
    "internal",
    "invalid",
    "test",
    "local",
    "localhost",
    "onion",
    "alt",
    "home.arpa",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "svc",
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


@lru_cache(maxsize=50_000)
def why_unresolvable(host: str) -> str:
    """Why no public DNS server has an address for a host without `*`; empty if nothing in its name says so."""
    if len(host) > 253 or not _HOST.fullmatch(host):
        return "it is not a host name"
    if _is_address(host):
        return "it is an IP address"
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return "its last label is a number, as in an IP address"
    if "." not in host:
        return "it has no dot"
    private = next((name for name in _PRIVATE if host.lower().endswith(f".{name}")), "")
    return f"names below .{private} are not in public DNS" if private else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
