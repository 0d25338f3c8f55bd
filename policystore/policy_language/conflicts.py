"""Entries of one list that change what other entries mean to the agent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from policystore.policy_language.endpoint_matcher import (
    BUILT_IN_HOSTS,
    BUILT_IN_WILDCARDS,
    VENDOR_HOSTS,
    AllowList,
    Pattern,
    full_name,
)
from policystore.policy_language.endpoint_parser import Entry, clean, cleaned
from policystore.policy_language.problems import quoted

BY_NAME, AT_RANDOM, REPLACED = "hidden-wildcard", "ambiguous-wildcards", "replaced-built-in"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conflict, for the line of `endpoint`; `code` names its kind, `hint` says how to resolve it."""

    endpoint: str
    code: str
    message: str
    hint: str


def conflicts(endpoints: Iterable[str], *, telemetry: bool = True) -> Iterator[Conflict]:
    """The conflicts among clean endpoints and with what the agent adds to them, each once for each line concerned."""
    entries = _Entries.of(endpoints, telemetry=telemetry)
    yield from _replaced(entries)
    yield from _hidden(entries)
    yield from _ambiguous(entries)


def remarks(entries: Iterable[str], *, egress_policy: str, telemetry: bool) -> list[str]:
    """What a served list does otherwise than it seems to, in sentences; its entries need not be clean."""
    entries = list(entries)
    found: dict[str, None] = {}
    gives_up = AllowList.from_entries(entries, telemetry=telemetry).gives_up if egress_policy == "block" else ""
    if gives_up:
        found[f"{quoted(gives_up)} makes the agent stop enforcing for the whole job: nothing is blocked."] = None
    for entry in entries:
        problems = clean(Entry(entry, 1, 1))[1]
        found |= dict.fromkeys(problem.message for problem in problems if problem.severity == "error")
    endpoints = [endpoint for entry in entries if (endpoint := cleaned(entry))]
    found |= dict.fromkeys(conflict.message for conflict in conflicts(endpoints, telemetry=telemetry))
    return list(found)


@dataclass(slots=True)
class _Entries:
    """The hosts of a list with their ports, and the wildcards with the one port that counts for each.

    `built_in` holds the hosts and wildcards that only the agent adds, which have no line.
    """

    hosts: dict[str, list[int]] = field(default_factory=dict)
    wildcards: dict[str, int] = field(default_factory=dict)
    built_in: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, endpoints: Iterable[str], *, telemetry: bool) -> _Entries:
        entries = cls()
        for endpoint in endpoints:
            entries._add(endpoint)
        for endpoint in (*BUILT_IN_WILDCARDS, *BUILT_IN_HOSTS, *(VENDOR_HOSTS if telemetry else ())):
            host = endpoint.rpartition(":")[0]
            if host not in entries.hosts and host not in entries.wildcards:
                entries.built_in.add(host)
            entries._add(endpoint)
        return entries

    def _add(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        if "*" in host:
            self.wildcards.setdefault(host, int(port))
        else:
            self.hosts.setdefault(host, []).append(int(port))

    def label(self, wildcard: str) -> str:
        """A wildcard as messages name it."""
        shown = quoted(f"{wildcard}:{self.wildcards[wildcard]}")
        return f"the built-in {shown}" if wildcard in self.built_in else shown

    def line(self, host: str) -> str:
        """The endpoint on whose line a problem with a listed host or wildcard is shown."""
        ports = self.hosts.get(host)
        return f"{host}:{ports[0] if ports else self.wildcards[host]}"


def _replaced(entries: _Entries) -> Iterator[Conflict]:
    for built_in in BUILT_IN_WILDCARDS:
        host, _, port = built_in.rpartition(":")
        if entries.wildcards[host] != int(port):
            endpoint = entries.line(host)
            message = f"{quoted(endpoint)} replaces the built-in {quoted(built_in)}: jobs lose GitHub's service there."
            yield Conflict(endpoint, REPLACED, message, f"Remove it, or list {quoted(built_in)} instead.")


def _hidden(entries: _Entries) -> Iterator[Conflict]:
    """Hosts that are listed by name, so that a wildcard which matches them has no effect on them."""
    index = _by_suffix(entries.wildcards)
    hidden: defaultdict[str, list[str]] = defaultdict(list)
    for host, ports in entries.hosts.items():
        if host in entries.built_in:
            continue
        found = [wildcard for wildcard in _matching(index, full_name(host)) if entries.wildcards[wildcard] not in ports]
        for wildcard in found:
            hidden[wildcard].append(host)
        if found:
            yield _hidden_on(entries, entries.line(host), found[0], [host])
    for wildcard, hosts in hidden.items():
        if wildcard not in entries.built_in:
            yield _hidden_on(entries, entries.line(wildcard), wildcard, hosts)


def _hidden_on(entries: _Entries, line: str, wildcard: str, hosts: Sequence[str]) -> Conflict:
    port, label = entries.wildcards[wildcard], entries.label(wildcard)
    more = f" and {len(hosts) - 1:,} more" if len(hosts) > 1 else ""
    message = (
        f"{label[0].upper()}{label[1:]} does not apply to {quoted(hosts[0])}{more}: the agent tries no wildcard for a"
        f" host that is listed by name, so port {port} is blocked there."
    )
    return Conflict(line, BY_NAME, message, f"List {quoted(f'{hosts[0]}:{port}')} too.")


def _ambiguous(entries: _Entries) -> Iterator[Conflict]:
    """Wildcards with different ports that match the same hosts."""
    index = _by_suffix(entries.wildcards)
    reported: set[str] = set()
    for wildcard, port in entries.wildcards.items():
        other = next((one for one in _overlapping(index, wildcard) if entries.wildcards[one] != port), "")
        for line, rest in ((wildcard, other), (other, wildcard)):
            if other and line not in entries.built_in and line not in reported:
                reported.add(line)
                message = (
                    f"{quoted(entries.line(line))} and {entries.label(rest)} match the same hosts with different ports."
                    " The agent uses one of them at random."
                )
                yield Conflict(entries.line(line), AT_RANDOM, message, "Use one port, or list the hosts by name.")


def _by_suffix(wildcards: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """The wildcards by suffix and prefix, so that thousands are not each compared with each other."""
    index: dict[str, dict[str, str]] = {}
    for wildcard in wildcards:
        pattern = Pattern.of(wildcard)
        index.setdefault(pattern.suffix, {}).setdefault(pattern.prefix, wildcard)
    return index


def _matching(index: Mapping[str, Mapping[str, str]], name: str) -> Iterator[str]:
    for start in range(len(name)):
        for prefix, wildcard in index.get(name[start:], {}).items():
            if name.startswith(prefix):
                yield wildcard


def _overlapping(index: Mapping[str, Mapping[str, str]], wildcard: str) -> Iterator[str]:
    """The wildcards that share a host with this one, and whose suffix is no longer than its own."""
    pattern = Pattern.of(wildcard)
    for start in range(len(pattern.suffix)):
        for prefix, other in index.get(pattern.suffix[start:], {}).items():
            if prefix.startswith(pattern.prefix) or pattern.prefix.startswith(prefix):
                yield other
