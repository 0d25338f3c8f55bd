"""Hosts that no policy of an organization may allow, and the endpoints that would."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from policystore.policy_language.endpoint_matcher import BUILT_IN, Pattern, full_name

_LABELS = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}"
_HOST = re.compile(rf"(?:\*\.)?{_LABELS}")
MAX_HOST = 253


class NoHost(ValueError):
    """The text is neither a host nor a `*.` wildcard; `str()` says what would be valid."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A host, or `*.` and a host for all below it, and why it is never allowed."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class NeverAllow:
    """The hosts that an organization never allows."""

    refused: tuple[Refused, ...] = ()
    _exact: dict[str, Refused] = field(init=False, default_factory=dict)
    _below: dict[str, Refused] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for refused in self.refused:
            place = self._below if refused.host.startswith("*.") else self._exact
            place.setdefault(refused.host.removeprefix("*."), refused)

    def refusing(self, endpoint: str) -> Refused | None:
        """The entry that refuses a `host:port`, or None.

        It refuses its own host, and each wildcard that, as the agent matches it, also matches that host.
        """
        host = endpoint.rpartition(":")[0].removesuffix(".")
        if "*" in host:
            return next((refused for refused in self.refused if overlap(host, refused.host)), None)
        parents = [host[index + 1 :] for index, letter in enumerate(host) if letter == "."]
        return self._exact.get(host) or next((self._below[parent] for parent in parents if parent in self._below), None)


NOTHING_REFUSED = NeverAllow()


def from_pairs(refused: Iterable[tuple[str, str]]) -> NeverAllow:
    """Build it from pairs of host and reason."""
    return NeverAllow(tuple(Refused(host, reason) for host, reason in refused))


def read_host(text: str) -> str:
    """The host or wildcard in lower case, as it is kept. Raises NoHost."""
    host = text.strip().rstrip(".").lower()
    if len(host) > MAX_HOST or not _HOST.fullmatch(host):
        raise NoHost("Enter a host such as evil.example, or *.evil.example for all hosts below it, without a port.")
    return host


def overlap(one: str, other: str) -> bool:
    """True if the two, each a host or a wildcard as the agent matches it, have a host in common."""
    if "*" not in other:
        return Pattern.of(one).matches(full_name(other)) if "*" in one else full_name(one) == full_name(other)
    if "*" not in one:
        return Pattern.of(other).matches(full_name(one))
    return Pattern.of(one).overlaps(Pattern.of(other))


def let_through_anyway(host: str) -> tuple[str, ...]:
    """The endpoints of this host or wildcard that the agent allows whatever a policy lists."""
    return tuple(entry for entry in BUILT_IN if overlap(entry.rpartition(":")[0], host))
