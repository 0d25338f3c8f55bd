"""Adds endpoints to a list so that every added call is allowed, and none that was allowed before is blocked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policystore.policy_language.endpoint_matcher import (
    BUILT_IN_HOSTS,
    BUILT_IN_WILDCARDS,
    VENDOR_HOSTS,
    AllowList,
    Verdict,
    Wildcards,
    full_name,
)


@dataclass(frozen=True, slots=True)
class Addition:
    """The endpoints to add, and those of them that nobody asked for.

    The agent tries no wildcard for a host that is listed by name. So `also` repeats, under its name, what a wildcard
    allowed for a host that is now listed.
    """

    endpoints: tuple[str, ...]
    also: tuple[str, ...] = ()


def addition(wanted: Iterable[str], listed: Iterable[str] = ()) -> Addition:
    """What to add to a list of clean endpoints for the wanted ones, which are clean too.

    An endpoint that a wildcard covers is left out, unless its host has to be listed by name.
    """
    wanted, listed = list(dict.fromkeys(wanted)), list(dict.fromkeys(listed))
    chosen = _without_covered(wanted, listed)
    also = tuple(dict.fromkeys(_lost(chosen, listed)))
    return Addition((*chosen, *also), also)


def _without_covered(wanted: Sequence[str], listed: Sequence[str]) -> list[str]:
    covering = AllowList.listed(endpoint for endpoint in (*listed, *wanted) if "*" in endpoint)
    is_covered = {
        endpoint: "*" not in endpoint and covering.verdict_of(endpoint) is Verdict.ALLOWED for endpoint in wanted
    }
    by_name = {_host(endpoint) for endpoint in (*listed, *BUILT_IN_HOSTS, *VENDOR_HOSTS)}
    by_name |= {_host(endpoint) for endpoint in wanted if not is_covered[endpoint]}
    known = set(listed)
    return [
        endpoint
        for endpoint in wanted
        if endpoint not in known and (not is_covered[endpoint] or _host(endpoint) in by_name)
    ]


def _lost(chosen: Sequence[str], listed: Sequence[str]) -> Iterator[str]:
    """What a wildcard allowed, or was chosen to allow, for hosts that are listed by name."""
    before, new = Wildcards(), Wildcards()
    ports: defaultdict[str, set[int]] = defaultdict(set)
    for endpoint, wildcards in [
        *((endpoint, before) for endpoint in (*listed, *BUILT_IN_WILDCARDS)),
        *((endpoint, new) for endpoint in chosen),
    ]:
        host, _, port = endpoint.rpartition(":")
        if "*" in host:
            wildcards.add(host, int(port))
        else:
            ports[host].add(int(port))
    listed_hosts = {_host(endpoint) for endpoint in listed}
    for host, known in ports.items():
        matching = set(new.matching(full_name(host)))
        if host not in listed_hosts:
            matching.update(before.matching(full_name(host)))
        yield from (f"{host}:{port}" for port in sorted(matching - known))


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0]
