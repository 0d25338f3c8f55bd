"""Proposes wildcards where many observed hosts share a suffix, never broader than what one owner can register."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from policystore.policy_language.endpoint_matcher import BUILT_IN_HOSTS, BUILT_IN_WILDCARDS, VENDOR_HOSTS, Pattern
from policystore.policy_language.risks import registered_domain

LEAST_HOSTS = 3


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A wildcard endpoint such as `*.example.com:443`, and the observed endpoints that it would cover."""

    wildcard: str
    covers: tuple[str, ...]


def wildcards(endpoints: Iterable[str], *, listed: Iterable[str] = ()) -> list[Suggestion]:
    """Wildcards for `host:port` endpoints, the most specific first chosen, each for at least LEAST_HOSTS hosts.

    A wildcard does not match its own suffix (`*.example.com` is not `example.com`), so that host is not covered. Nor is
    a host that has to be listed by name, because it is called on several ports or is `listed` already: the agent tries
    no wildcard for it. No two wildcards with different ports share a host.
    """
    endpoints, listed = list(endpoints), list(listed)
    below = _by_suffix(endpoints, _hosts_by_name(endpoints, listed))
    kept = [_pattern(entry) for entry in (*listed, *BUILT_IN_WILDCARDS) if "*" in entry]
    # The longest suffix first: a broader one is only worth it for hosts that no narrower one covers.
    ordered = sorted(below, key=lambda place: (-place[0].count("."), place))
    covered: set[str] = set()
    found = []
    for suffix, port in ordered:
        fresh = sorted(below[suffix, port] - covered)
        suggestion = Suggestion(f"*.{suffix}:{port}", tuple(fresh))
        pattern = _pattern(suggestion.wildcard)
        if len(fresh) >= LEAST_HOSTS and not any(_conflict(pattern, other) for other in kept):
            kept.append(pattern)
            covered.update(fresh)
            found.append(suggestion)
    return sorted(found, key=lambda suggestion: suggestion.wildcard)


def _pattern(endpoint: str) -> tuple[Pattern, str]:
    host, _, port = endpoint.rpartition(":")
    return Pattern.of(host), port


def _conflict(one: tuple[Pattern, str], other: tuple[Pattern, str]) -> bool:
    return one[1] != other[1] and one[0].overlaps(other[0])


def _hosts_by_name(endpoints: Iterable[str], listed: Iterable[str]) -> set[str]:
    ports: defaultdict[str, set[str]] = defaultdict(set)
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        ports[host].add(port)
    listed_hosts = {endpoint.rpartition(":")[0] for endpoint in (*listed, *BUILT_IN_HOSTS, *VENDOR_HOSTS)}
    return listed_hosts | {host for host, called in ports.items() if len(called) > 1}


def _by_suffix(endpoints: Iterable[str], by_name: set[str]) -> dict[tuple[str, str], set[str]]:
    below: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        if "*" in host or host in by_name:
            continue
        for suffix in _suffixes(host):
            below[suffix, port].add(endpoint)
    return below


def _suffixes(host: str) -> Iterable[str]:
    """The parents of a host, up to the domain that its owner registered; none for an address or a bare suffix."""
    # It is below private suffixes, too, so that no wildcard spans several owners.
    registered = registered_domain(host)
    if not registered:
        return
    parent = host.partition(".")[2]
    while parent.endswith(registered) and parent.count(".") >= registered.count("."):
        yield parent
        parent = parent.partition(".")[2]
