"""Proposes wildcards where many observed hosts share a suffix, never broader than what one owner can register."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import tldextract

LEAST_HOSTS = 3

# The list that the package carries: nothing is fetched. Suffixes below which anybody gets a host of their own
# (blob.core.windows.net, github.io) count as suffixes, so that no wildcard spans several owners.
_EXTRACT = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A wildcard endpoint such as `*.example.com:443`, and the observed endpoints that it would stand for."""

    wildcard: str
    covers: tuple[str, ...]


def wildcards(endpoints: Iterable[str], *, least: int = LEAST_HOSTS) -> list[Suggestion]:
    """Wildcards for `host:port` endpoints, the most specific first chosen, each for at least `least` hosts.

    A wildcard does not match its own suffix (`*.example.com` is not `example.com`), so that host is not covered.
    """
    below = _by_suffix(endpoints)
    # The longest suffix first: a broader one is only worth it for hosts that no narrower one covers.
    ordered = sorted(below, key=lambda place: (-place[0].count("."), place))
    covered: set[str] = set()
    found = []
    for suffix, port in ordered:
        fresh = sorted(below[suffix, port] - covered)
        if len(fresh) >= least:
            covered.update(fresh)
            found.append(Suggestion(f"*.{suffix}:{port}", tuple(fresh)))
    return sorted(found, key=lambda suggestion: suggestion.wildcard)


def _by_suffix(endpoints: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    below: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        if "*" in host:
            continue
        for suffix in _suffixes(host):
            below[suffix, port].add(endpoint)
    return below


def _suffixes(host: str) -> Iterable[str]:
    """The parents of a host, up to the domain that its owner registered; none for an address or a bare suffix."""
    registered = _EXTRACT(host).top_domain_under_public_suffix
    if not registered:
        return
    parent = host.partition(".")[2]
    while parent.endswith(registered) and parent.count(".") >= registered.count("."):
        yield parent
        parent = parent.partition(".")[2]
