"""Harden-Runner: the inputs of its step, and how its agent decides (`policy_language.endpoint_matcher`)."""

from __future__ import annotations

from collections.abc import Iterator

from policystore.enforcers.fidelity import SHARED_ADDRESS, Difference, Effect, Form
from policystore.enforcers.policy import EffectivePolicy, Wildcard, WildcardIndex, is_address
from policystore.policy_language.endpoint_matcher import (
    BUILT_IN_HOSTS,
    BUILT_IN_WILDCARDS,
    OPEN_NETWORKS,
    VENDOR_HOSTS,
    AllowList,
    Pattern,
    Verdict,
)
from policystore.policy_language.values import SWITCH_FIELDS

# For addresses: no entry of a list matches one.
_OPEN_ALONE = AllowList()
_INTERNAL = "*.internal"
_IS_BUILT_IN = "The agent always allows it, for GitHub's own services."
_IS_TELEMETRY = "The agent allows it while telemetry is on."
_IS_OPEN = "The agent does not filter this network."
_NAMED = "The policy or the agent lists the host by name with other ports, so the agent tries no wildcard for it."
_FIRST_PORT = "The agent reads only the first port that a wildcard is listed with."
_RANDOM_PORT = "Two wildcards match, and the agent picks the ports of one of them at random."
_NEVER_RESOLVED = "The agent does not resolve names below .internal for a wildcard."


def compiled(policy: EffectivePolicy) -> Form:
    """The `with:` block of a step that lists everything itself, for jobs that do not fetch from the store."""
    allowed = AllowList.from_entries(policy.endpoints, telemetry=not policy.disable_telemetry)
    limits = [SHARED_ADDRESS]
    if policy.lockdown:
        limits.append("Lockdown mode cannot be set in a step. Only jobs that fetch the policy get it.")

    def verdict(host: str, port: int) -> Verdict:
        if allowed.gives_up:
            return Verdict.ALLOWED
        return (_OPEN_ALONE if is_address(host) else allowed).verdict(host, port)

    return Form(_step(policy), "yaml", [*_differences(policy, allowed.gives_up)], limits, verdict)


def _step(policy: EffectivePolicy) -> str:
    lines = ["- uses: step-security/harden-runner@v2", "  with:", f"    egress-policy: {policy.mode}"]
    lines += [f"    {name.replace('_', '-')}: true" for name in SWITCH_FIELDS if getattr(policy, name)]
    if policy.endpoints:
        lines += ["    allowed-endpoints: >", *(f"      {endpoint}" for endpoint in policy.endpoints)]
    return "\n".join([*lines, ""])


def _differences(policy: EffectivePolicy, gives_up: str) -> Iterator[Difference]:
    if gives_up:
        reason = f"{gives_up} makes the agent stop enforcing for the whole job."
        yield Difference(Effect.OPENS, ("*",), (), reason)
        yield Difference(Effect.OPENS, ("0.0.0.0/0",), (), reason)
        yield Difference(Effect.OPENS, ("::/0",), (), reason)
        return
    telemetry = () if policy.disable_telemetry else VENDOR_HOSTS
    yield from _built_in(policy, (*BUILT_IN_HOSTS, *BUILT_IN_WILDCARDS), _IS_BUILT_IN)
    yield from _built_in(policy, telemetry, _IS_TELEMETRY)
    for network in (*map(str, OPEN_NETWORKS), "::/0"):
        yield Difference(Effect.OPENS, (network,), (), _IS_OPEN)
    yield from _of_names(policy, [entry.rpartition(":")[0] for entry in (*BUILT_IN_HOSTS, *telemetry)])
    yield from _of_wildcards(policy)


def _built_in(policy: EffectivePolicy, entries: tuple[str, ...], reason: str) -> Iterator[Difference]:
    for entry in entries:
        host, _, port = entry.rpartition(":")
        if not any(host == wildcard.host for wildcard in policy.wildcards) and not policy.lists(host, int(port)):
            yield Difference(Effect.OPENS, (host,), (int(port),), reason)


def _of_names(policy: EffectivePolicy, added: list[str]) -> Iterator[Difference]:
    for host in dict.fromkeys((*policy.hosts, *added)):
        listed = {port for wildcard in policy.wildcards.matching(host) for port in wildcard.ports}
        named = {*policy.hosts.get(host, ()), *([443] if host in added else [])}
        if lost := sorted(listed - named):
            yield Difference(Effect.BLOCKS, (host,), tuple(lost), _NAMED)


def _of_wildcards(policy: EffectivePolicy) -> Iterator[Difference]:
    built_in = (Wildcard(entry.rpartition(":")[0], (443,)) for entry in BUILT_IN_WILDCARDS)
    listed = {wildcard.host: wildcard for wildcard in (*built_in, *policy.wildcards)}
    every = WildcardIndex(listed.values())
    for wildcard in every:
        if wildcard.ports[1:]:
            yield Difference(Effect.BLOCKS, (wildcard.host,), wildcard.ports[1:], _FIRST_PORT)
        if wildcard.pattern.overlaps(Pattern.of(_INTERNAL)):
            yield Difference(Effect.BLOCKS, (wildcard.host, _INTERNAL), wildcard.ports, _NEVER_RESOLVED)
    for wildcard, other in every.contradicting():
        ports = tuple(sorted({*wildcard.ports, *other.ports}))
        yield Difference(Effect.UNDETERMINED, (wildcard.host, other.host), ports, _RANDOM_PORT)
