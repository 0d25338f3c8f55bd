"""Warnings about documents that can be saved but may not do what their author wants."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from policystore.documents import risks
from policystore.documents.entries import Entry, shown
from policystore.documents.never_allow import NeverAllow
from policystore.documents.problems import Problem, warning
from policystore.documents.scopes import ScopeType


class LockdownLike(Protocol):
    """What a warning needs to know of lockdown mode."""

    @property
    def enabled(self) -> bool: ...

    @property
    def detections(self) -> tuple[str, ...]: ...


class Reading(Protocol):
    """What the warnings look at: a document as far as it could be read."""

    @property
    def egress_policy(self) -> str | None: ...

    @property
    def egress_at(self) -> tuple[int, int]: ...

    @property
    def endpoints(self) -> Collection[str]: ...

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


def doubts(reading: Reading, scope_types: Collection[str]) -> list[Problem]:
    """The warnings about the document as a whole."""
    return [*_egress(reading), *_lockdown(reading, scope_types)]


def _egress(reading: Reading) -> Iterator[Problem]:
    all_readable = not any(problem.severity == "error" for problem in reading.problems)
    if reading.egress_policy == "block" and not reading.endpoints and not reading.set_names and all_readable:
        message = "This policy blocks and lists no endpoints: nearly every call of a job will be blocked."
        yield warning(*reading.egress_at, "block-without-endpoints", message, "List what the jobs need.")
    listed_at = reading.endpoints_at if reading.endpoints else reading.sets_at if reading.set_names else None
    if reading.egress_policy is None and listed_at and all_readable:
        message = "Endpoints are listed but egress-policy is missing, which means audit: nothing is blocked."
        yield warning(*listed_at, "no-egress-policy", message, "Add egress-policy: block.")


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
    """Warn of an endpoint listed before (`lines` tells where), and of a wildcard listed with a second port."""
    if endpoint in lines:
        message = f"{shown(entry.text)} is listed already, in line {lines[endpoint]}."
        yield warning(entry.line, entry.column, "duplicate-endpoint", message, "Remove one of them.")
    host, _, port = endpoint.rpartition(":")
    if "*" in host and wildcard_ports.setdefault(host, port) != port:
        message = f"The wildcard {shown(host)} is listed with port {wildcard_ports[host]} before; only that one counts."
        yield warning(entry.line, entry.column, "wildcard-second-port", message, "Remove it.")


def refused_in_set(name: Entry, endpoints: Collection[str], never_allow: NeverAllow) -> Iterator[Problem]:
    """Warn that an included set lists what runners do not get."""
    refused = [endpoint for endpoint in endpoints if never_allow.refusing(endpoint)]
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        message = f"The set {shown(name.text)} lists {shown(refused[0])}{more}, which {'are' if more else 'is'} never"
        hint = "Runners do not get it. Take it out of the set."
        yield warning(name.line, name.column, "never-allowed-in-set", f"{message} allowed in this organization.", hint)


def risky_in_set(name: Entry, endpoints: Collection[str]) -> Iterator[Problem]:
    """Note that an included set lists endpoints where data could be carried out."""
    risky = [endpoint for endpoint in endpoints if risks.risk_of(endpoint)]
    if risky:
        more = f" and {len(risky) - 1} more" if len(risky) > 1 else ""
        message = f"The set {shown(name.text)} lists {shown(risky[0])}{more}, where data could be carried out."
        yield Problem("note", name.line, name.column, "risk-in-set", message, "The page of the set says how.")


def second_ports(name: Entry, endpoints: Collection[str], wildcard_ports: dict[str, str]) -> Iterator[Problem]:
    """Warn of wildcards that an included set lists with another port than what comes before it."""
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        if "*" in host and wildcard_ports.setdefault(host, port) != port:
            message = f"The set {shown(name.text)} lists {shown(host)} with port {port}; before, it has port"
            hint = "Only the first of them counts."
            yield warning(name.line, name.column, "wildcard-second-port", f"{message} {wildcard_ports[host]}.", hint)
