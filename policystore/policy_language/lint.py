"""Problems of a document as a whole: what it leaves out, and entries that do not do what they seem to.

A conflict is an entry of one list that changes what another entry means to the agent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from policystore.policy_language import risks
from policystore.policy_language.endpoint_matcher import (
    BUILT_IN_HOSTS,
    BUILT_IN_WILDCARDS,
    VENDOR_HOSTS,
    AllowList,
    Pattern,
    Verdict,
    full_name,
    why_unresolvable,
)
from policystore.policy_language.endpoint_parser import Entry, clean, cleaned, ended_enforcement, refused_entry
from policystore.policy_language.never_allow import NeverAllow
from policystore.policy_language.problems import START, Positioned, Problem, error, quoted, warning
from policystore.policy_language.scopes import ScopeType
from policystore.policy_language.yaml_reader import MAX_PROBLEMS


@dataclass(frozen=True, slots=True)
class Listed:
    """Where an endpoint is listed: its own entry, or the name of the endpoint set that has it."""

    entry: Entry
    endpoint_set: str = ""

    def problem(self, problem: Problem) -> Problem:
        """A problem with the endpoint as it is shown at this place."""
        at = replace(problem, line=self.entry.line, column=self.entry.column)
        if not self.endpoint_set:
            return at
        return replace(at, message=f"In the endpoint set {quoted(self.endpoint_set)}: {problem.message}")


@dataclass(frozen=True, slots=True)
class Lockdown:
    """Lockdown mode: if `enabled`, a job ends as soon as one of `detections` is made on it."""

    enabled: bool
    detections: tuple[str, ...]


@dataclass(slots=True)
class Reading:
    """A document as far as it could be read; `entries` are all its endpoints, those of known sets included.

    `endpoints` has the document's own as its keys, in order. What ends in `at` is where the part begins.
    """

    problems: list[Problem]
    egress_policy: str | None = None
    egress_at: Positioned = START
    endpoints: dict[str, None] = field(default_factory=dict)
    endpoints_at: Positioned | None = None
    entries: dict[str, Listed] = field(default_factory=dict)
    set_names: list[Entry] = field(default_factory=list)
    sets_at: Positioned = START
    switches: dict[str, bool] = field(default_factory=dict)
    lockdown: Lockdown | None = None
    lockdown_at: Positioned = START


def doubts(reading: Reading, scope_types: Collection[str], stores: Collection[str]) -> list[Problem]:
    """The problems of the document as a whole; `stores` are the `host:port` at which jobs reach this store."""
    return [
        *_egress(reading),
        *_ended_enforcement(reading),
        *_conflicts(reading),
        *_stores(reading, stores),
        *_lockdown(reading, scope_types),
    ]


def _egress(reading: Reading) -> Iterator[Problem]:
    all_readable = not any(problem.severity == "error" for problem in reading.problems)
    if reading.egress_policy == "block" and not reading.endpoints and not reading.set_names and all_readable:
        message = "This policy blocks and lists no endpoints: nearly every call of a job will be blocked."
        yield warning(reading.egress_at, "block-without-endpoints", message, "List the endpoints that the jobs need.")
    listed_at = reading.endpoints_at if reading.endpoints else reading.sets_at if reading.set_names else None
    if reading.egress_policy is None and listed_at and all_readable:
        message = (
            "The policy lists endpoints but has no egress-policy. The Harden-Runner action itself defaults to block."
        )
        yield error(listed_at, "no-egress-policy", message, "Add egress-policy: audit or egress-policy: block.")


def _ended_enforcement(reading: Reading) -> Iterator[Problem]:
    mode = reading.egress_policy or "audit"
    for endpoint, listed in reading.entries.items():
        if mode == "block" or not listed.endpoint_set:
            entry = Entry(endpoint, 1, 1) if listed.endpoint_set else listed.entry
            yield from map(listed.problem, ended_enforcement(entry, endpoint, mode=mode))


def _conflicts(reading: Reading) -> Iterator[Problem]:
    for conflict in conflicts(reading.entries, telemetry=_has_telemetry(reading)):
        yield reading.entries[conflict.endpoint].problem(warning(START, conflict.code, conflict.message, conflict.hint))


def _has_telemetry(reading: Reading) -> bool:
    return not reading.switches.get("disable-telemetry", False)


def _stores(reading: Reading, stores: Collection[str]) -> Iterator[Problem]:
    """Jobs report to the store under its own name, which the agent allows only if it is listed."""
    if reading.egress_policy != "block" or not _has_telemetry(reading):
        return
    allowed = AllowList.from_entries(reading.entries)
    for store in stores:
        if allowed.verdict_of(store) is not Verdict.ALLOWED:
            yield warning(reading.egress_at, "store-not-listed", *_store_not_listed(store))


def _store_not_listed(store: str) -> tuple[str, str]:
    """The message and the hint for an address of the store that the agent blocks."""
    message = f"Jobs call this store at {quoted(store)}, which the policy does not list, so the agent blocks the call."
    why = why_unresolvable(store.rpartition(":")[0])
    if why:
        return message, f"It cannot be listed, because {why}: give the store a public name."
    return message, f"Add {quoted(store)}."


def _lockdown(reading: Reading, scope_types: Collection[str]) -> Iterator[Problem]:
    if reading.lockdown is None or not reading.lockdown.enabled:
        return
    if not reading.lockdown.detections:
        message = "Lockdown mode is enabled for no detection, so it never ends a job."
        yield warning(reading.lockdown_at, "lockdown-without-detections", message, "List the detections.")
    outside = [kind for kind in scope_types if kind != ScopeType.CLUSTER]
    if outside:
        message = "Lockdown mode works on ARC clusters only, and this policy is attached elsewhere too."
        yield warning(reading.lockdown_at, "lockdown-outside-cluster", message, "Attach it to a cluster.")


def clean_all(
    entries: Iterable[Entry],
    never_allow: NeverAllow,
    wildcard_ports: dict[str, str],
    *,
    clean: Callable[[Entry], tuple[str | None, list[Problem]]] = clean,
    mode: str | None = None,
) -> tuple[dict[str, Entry], list[Problem]]:
    """The clean endpoints of a list, each with its first entry, and what is wrong with any entry.

    `wildcard_ports` are the ports of the wildcards that were listed before; those of the list are added. Entries that
    make the agent stop enforcing are reported here only where `mode` is given.
    """
    found: dict[str, Entry] = {}
    problems: list[Problem] = []
    errors = 0
    for entry in entries:
        endpoint, more = clean(entry)
        problems += more
        if endpoint is not None:
            problems += refused_entry(entry, endpoint, never_allow)
            if mode is not None:
                problems += ended_enforcement(entry, endpoint, mode=mode)
            problems += risks.problems(entry, endpoint)
            problems += _repeated(entry, endpoint, found, wildcard_ports)
            found.setdefault(endpoint, entry)
        # Warnings do not stop a save, so the lines below them must be read, however many they are.
        errors += endpoint is None
        if errors > MAX_PROBLEMS:
            break
    return found, problems


def _repeated(
    entry: Entry, endpoint: str, found: Mapping[str, Entry], wildcard_ports: dict[str, str]
) -> Iterator[Problem]:
    """Warn of an endpoint that was found before, and of a wildcard listed with a second port."""
    if endpoint in found:
        message = f"{quoted(entry.text)} is already listed in line {found[endpoint].line}."
        yield warning(entry, "duplicate-endpoint", message, "Remove one of them.")
    host, _, port = endpoint.rpartition(":")
    if "*" in host and wildcard_ports.setdefault(host, port) != port:
        message = (
            f"{quoted(entry.text)} has no effect: {quoted(host)} is listed with port {wildcard_ports[host]} before."
        )
        yield warning(entry, "wildcard-second-port", message, "Remove it.")


def refused_in_set(name: Entry, endpoints: Collection[str], never_allow: NeverAllow) -> Iterator[Problem]:
    """Warn that an included set lists what runners do not get."""
    refused = [endpoint for endpoint in endpoints if never_allow.refusing(endpoint)]
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        message = f"The set {quoted(name.text)} lists {quoted(refused[0])}{more}, which {'are' if more else 'is'} never"
        hint = "Runners do not get it. Remove it from the set."
        yield warning(name, "never-allowed-in-set", f"{message} allowed in this organization.", hint)


def broken_in_set(name: Entry, endpoints: Collection[str]) -> Iterator[Problem]:
    """An error if an included set lists what cannot be listed, because it was saved by other means than this store."""
    for endpoint in endpoints:
        found = next((problem for problem in clean(Entry(endpoint, 1, 1))[1] if problem.severity == "error"), None)
        if found is not None:
            message = f"In the endpoint set {quoted(name.text)}: {found.message}"
            yield error(name, "broken-set", message, "Fix the endpoint set first.")
            return


def risky_in_set(name: Entry, endpoints: Collection[str]) -> Iterator[Problem]:
    """Note that an included set lists endpoints where data could be carried out."""
    risky = [endpoint for endpoint in endpoints if risks.risk_of(endpoint)]
    if risky:
        more = f" and {len(risky) - 1} more" if len(risky) > 1 else ""
        message = f"The set {quoted(name.text)} lists {quoted(risky[0])}{more}, where data could be carried out."
        yield Problem("note", name.line, name.column, "risk-in-set", message, "The page of the set says how.")


def second_ports(name: Entry, endpoints: Collection[str], wildcard_ports: dict[str, str]) -> Iterator[Problem]:
    """Warn of wildcards that an included set lists with another port than what comes before it."""
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        if "*" in host and wildcard_ports.setdefault(host, port) != port:
            message = (
                f"The set {quoted(name.text)} lists {quoted(endpoint)}, which has no effect: the wildcard is listed"
            )
            hint = "Only the first of them counts."
            at = f"with port {wildcard_ports[host]} before."
            yield warning(name, "wildcard-second-port", f"{message} {at}", hint)


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
    """Sentences about entries of a served list that do not do what they seem to; the entries need not be clean."""
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
        other = next((match for match in _overlapping(index, wildcard) if entries.wildcards[match] != port), "")
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
