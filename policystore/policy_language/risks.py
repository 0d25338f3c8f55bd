"""Endpoints where data could be carried out of a job, from the hosts that `risks.toml` lists."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import tldextract

from policystore.policy_language.endpoint_matcher import Pattern
from policystore.policy_language.endpoint_parser import Entry
from policystore.policy_language.problems import Problem, Severity, quoted

_DATA: Final = (Path(__file__).parent / "risks.toml").read_bytes()
_LABEL: Final = "[a-z0-9-]+"
REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class Risk:
    """Why an endpoint is risky: `what` completes a sentence that begins with it, `instead` says what to do."""

    kind: str
    severity: Severity
    what: str
    instead: str


def risk_of(endpoint: str) -> Risk | None:
    """How data could be carried out by a clean `host:port`; None where nothing is known against it."""
    return _risk_of(endpoint.rpartition(":")[0])


def count(endpoints: Iterable[str]) -> int:
    """The number of risky endpoints."""
    return sum(1 for endpoint in endpoints if risk_of(endpoint))


def problems(entry: Entry, endpoint: str) -> Iterator[Problem]:
    """The note or warning about a risky entry; `lint` reports that a bare wildcard covers everything."""
    risk = risk_of(endpoint)
    if risk and not endpoint.startswith("*:"):
        message = f"{quoted(entry.text)} {risk.what}"
        yield Problem(risk.severity, entry.line, entry.column, f"risk-{risk.kind}", message, risk.instead)


@lru_cache(maxsize=REMEMBERED)
def _risk_of(host: str) -> Risk | None:
    return _of_wildcard(host) if "*" in host else _of_host(host)


def _of_host(host: str) -> Risk | None:
    for place in _parents(host):
        if place in _DOMAINS:
            return _DOMAINS[place]
    return next((risk for pattern, risk in _HOSTS if pattern.fullmatch(host)), None)


def _of_wildcard(host: str) -> Risk | None:
    """A wildcard below a listed domain, else one over hosts of many owners, else one that covers a listed domain."""
    pattern = Pattern.of(host)
    before, after = pattern.prefix, pattern.suffix.removesuffix(".")
    for place in _parents(after.removeprefix(".")) if after.startswith(".") else ():
        if place in _DOMAINS:
            return _DOMAINS[place]
    if _is_over_many_owners(after):
        return _MANY_OWNERS
    return next((_DOMAINS[domain] for domain in _ENDING.get(after, ()) if domain.startswith(before)), None)


def _is_over_many_owners(after: str) -> bool:
    """True if the hosts with this ending, whatever comes before it, belong to more than one owner."""
    if not after.startswith(".") or not registered_domain(after[1:]):
        # Nothing whole is left of the domain: anyone who registers a matching domain has a host in it.
        return True
    return after in _SHARED_ENDINGS or any(_ends(shared, after) for shared in _SHARED_ANYWHERE)


def _ends(shared: str, after: str) -> bool:
    """True if hosts below the shared domain, whose `*` is one label, can end in `after`."""
    return any(f".{shared.replace('*', label)}".endswith(after) for label in {"x", *after.split(".")})


def _parents(host: str) -> Iterator[str]:
    while host:
        yield host
        host = host.partition(".")[2]


def _by_ending(domains: Iterable[str]) -> dict[str, list[str]]:
    """The listed domains by each of their endings that begins with a dot."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for domain in domains:
        for parent in _parents(domain.partition(".")[2]):
            found[f".{parent}"].append(domain)
    return dict(found)


def _read() -> list[tuple[Risk, dict[str, Any]]]:
    kinds = tomllib.loads(_DATA.decode())["kind"]
    return [(Risk(kind["name"], kind["severity"], kind["what"], kind["instead"]), kind) for kind in kinds]


_KINDS: Final = _read()
_DOMAINS: Final = {domain: risk for risk, kind in _KINDS for domain in kind.get("domains", ())}
_HOSTS: Final = tuple(
    (re.compile(re.escape(host).replace(r"\*", _LABEL)), risk)
    for risk, kind in _KINDS
    for host in kind.get("hosts", ())
)
_ENDING: Final = _by_ending(_DOMAINS)
_SHARED: Final = tuple(domain for _, kind in _KINDS for domain in kind.get("shared", ()))
_SHARED_ANYWHERE: Final = tuple(domain for domain in _SHARED if "*" in domain)
_SHARED_ENDINGS: Final = frozenset(
    f".{parent}" for domain in _SHARED if "*" not in domain for parent in _parents(domain)
)
_MANY_OWNERS: Final = next(risk for risk, kind in _KINDS if "shared" in kind)


# The Public Suffix List that the package contains: nothing is fetched. Suffixes below which anyone gets a host of their
# own (blob.core.windows.net, github.io) count as public suffixes.
_EXTRACT = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


def registered_domain(host: str) -> str:
    """The domain that the host's owner registered; empty for an address and for a bare public suffix."""
    return _EXTRACT(host).top_domain_under_public_suffix
