"""Problems of a document as a whole: what it leaves out, and entries that do not do what they seem to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from policystore.policy_language import risks
from policystore.policy_language.conflicts import conflicts
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.endpoint_parser import Entry, clean, ended_enforcement
from policystore.policy_language.never_allow import NeverAllow
from policystore.policy_language.problems import Problem, error, quoted, warning
from policystore.policy_language.scopes import ScopeType
from policystore.policy_language.unresolvable import why_unresolvable


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


class LockdownLike(Protocol):
    """The part of lockdown mode that the checks read."""

    @property
    def enabled(self) -> bool: ...

    @property
    def detections(self) -> tuple[str, ...]: ...


class Reading(Protocol):
    """A document as far as it could be read; `entries` are all its endpoints, those of known sets included."""

    @property
    def egress_policy(self) -> str | None: ...

    @property
    def egress_at(self) -> tuple[int, int]: ...

    @property
    def endpoints(self) -> Collection[str]: ...

    @property
    def entries(self) -> Mapping[str, Listed]: ...

    @property
    def switches(self) -> Mapping[str, bool]: ...

    @property
    def endpoints_at(self) -> tuple[int, int] | None: ...

    @property
    def set_names(self) -> Collection[Entry]: ...

    @property
    def sets_at(self) -> tuple[int, int]: ...

    @property
    def lockdown(self) -> LockdownLike | None: ...

    @property
    def lockdown_at(self) -> tuple[int, int]: ...

    @property
    def problems(self) -> Collection[Problem]: ...


def doubts(reading: Reading, scope_types: Collection[str], stores: Collection[str]) -> list[Problem]:
    """The problems of the document as a whole; `store` is the `host:port` at which jobs reach this store, or empty."""
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
        yield warning(*reading.egress_at, "block-without-endpoints", message, "List the endpoints that the jobs need.")
    listed_at = reading.endpoints_at if reading.endpoints else reading.sets_at if reading.set_names else None
    if reading.egress_policy is None and listed_at and all_readable:
        message = (
            "The policy lists endpoints but has no egress-policy. The Harden-Runner action itself defaults to block."
        )
        yield error(*listed_at, "no-egress-policy", message, "Add egress-policy: audit or egress-policy: block.")


def _ended_enforcement(reading: Reading) -> Iterator[Problem]:
    mode = reading.egress_policy or "audit"
    for endpoint, listed in reading.entries.items():
        if mode == "block" or not listed.endpoint_set:
            entry = Entry(endpoint, 1, 1) if listed.endpoint_set else listed.entry
            yield from map(listed.problem, ended_enforcement(entry, endpoint, mode=mode))


def _conflicts(reading: Reading) -> Iterator[Problem]:
    for conflict in conflicts(reading.entries, telemetry=_has_telemetry(reading)):
        yield reading.entries[conflict.endpoint].problem(warning(1, 1, conflict.code, conflict.message, conflict.hint))


def _has_telemetry(reading: Reading) -> bool:
    return not reading.switches.get("disable-telemetry", False)


def _stores(reading: Reading, stores: Collection[str]) -> Iterator[Problem]:
    """Jobs report to the store under its own name, which the agent allows only if it is listed."""
    if reading.egress_policy != "block" or not _has_telemetry(reading):
        return
    allowed = AllowList.from_entries(reading.entries)
    for store in stores:
        if allowed.verdict_of(store) is not Verdict.ALLOWED:
            yield warning(*reading.egress_at, "store-not-listed", *_store_not_listed(store))


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
        yield warning(*reading.lockdown_at, "lockdown-without-detections", message, "List the detections.")
    outside = [kind for kind in scope_types if kind != ScopeType.CLUSTER]
    if outside:
        message = "Lockdown mode works on ARC clusters only, and this policy is attached elsewhere too."
        yield warning(*reading.lockdown_at, "lockdown-outside-cluster", message, "Attach it to a cluster.")


def repeated(entry: Entry, endpoint: str, lines: dict[str, int], wildcard_ports: dict[str, str]) -> Iterator[Problem]:
    """Warn of an endpoint listed before (`lines` has its line), and of a wildcard listed with a second port."""
    if endpoint in lines:
        message = f"{quoted(entry.text)} is already listed in line {lines[endpoint]}."
        yield warning(entry.line, entry.column, "duplicate-endpoint", message, "Remove one of them.")
    host, _, port = endpoint.rpartition(":")
    if "*" in host and wildcard_ports.setdefault(host, port) != port:
        message = (
            f"{quoted(entry.text)} has no effect: {quoted(host)} is listed with port {wildcard_ports[host]} before."
        )
        yield warning(entry.line, entry.column, "wildcard-second-port", message, "Remove it.")


def refused_in_set(name: Entry, endpoints: Collection[str], never_allow: NeverAllow) -> Iterator[Problem]:
    """Warn that an included set lists what runners do not get."""
    refused = [endpoint for endpoint in endpoints if never_allow.refusing(endpoint)]
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        message = f"The set {quoted(name.text)} lists {quoted(refused[0])}{more}, which {'are' if more else 'is'} never"
        hint = "Runners do not get it. Remove it from the set."
        yield warning(name.line, name.column, "never-allowed-in-set", f"{message} allowed in this organization.", hint)


def broken_in_set(name: Entry, endpoints: Collection[str]) -> Iterator[Problem]:
    """An error if an included set lists what cannot be listed, because it was saved by other means than this store."""
    for endpoint in endpoints:
        found = next((problem for problem in clean(Entry(endpoint, 1, 1))[1] if problem.severity == "error"), None)
        if found is not None:
            message = f"In the endpoint set {quoted(name.text)}: {found.message}"
            yield error(name.line, name.column, "broken-set", message, "Fix the endpoint set first.")
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
            yield warning(name.line, name.column, "wildcard-second-port", f"{message} {at}", hint)
