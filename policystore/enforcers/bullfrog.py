"""Bullfrog: the inputs of its step, and how its agent decides (v0.10; it fetches no policy)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from policystore.enforcers.fidelity import SHARED_ADDRESS, Difference, Effect, Form, verdict_of
from policystore.enforcers.policy import EffectivePolicy, is_address
from policystore.policy_language.endpoint_matcher import Verdict

# What the agent allows by itself.
DEFAULT_DOMAINS = (
    "*.actions.githubusercontent.com",
    "*.githubapp.com",
    "glb-*.github.com",
    *(f"productionresultssa{number}.blob.core.windows.net" for number in range(20)),
)
DEFAULT_ADDRESSES = ("168.63.129.16", "169.254.169.254", "127.0.0.1")

_ANY_PORT = "Bullfrog allows a host on every port."
_DEFAULT = "Bullfrog always allows it."
_UNDERSCORE = "Bullfrog refuses a list with an underscore in it, so these hosts are left out."


def compiled(policy: EffectivePolicy) -> Form:
    """The `with:` block of a Bullfrog step."""
    addresses = [host for host in policy.hosts if is_address(host)]
    domains = [host for host in _domains(policy) if "_" not in host]
    lines = ["- uses: bullfrogsec/bullfrog@v0.10.0", "  with:", f"    egress-policy: {policy.mode}"]
    if policy.disable_sudo or policy.disable_sudo_and_containers:
        lines.append("    enable-sudo: false")
    for name, values in (("allowed-domains", domains), ("allowed-ips", addresses)):
        if values:
            lines += [f"    {name}: |", *(f"      {value}" for value in values)]

    def verdict(host: str, port: int) -> Verdict:
        if is_address(host):
            return verdict_of(host in addresses or host in DEFAULT_ADDRESSES)
        return verdict_of(any(_matches(domain, host) for domain in (*DEFAULT_DOMAINS, *domains)))

    return Form("\n".join([*lines, ""]), "yaml", [*_differences(policy)], [*_limits(policy)], verdict)


def _domains(policy: EffectivePolicy) -> dict[str, None]:
    """The hosts that are not addresses, each once. A pattern of Bullfrog does not match without its star."""
    domains = dict.fromkeys(host for host in policy.hosts if not is_address(host))
    for wildcard in policy.wildcards:
        domains |= dict.fromkeys((wildcard.host, *wildcard.hosts_without_star))
    return domains


def _matches(domain: str, host: str) -> bool:
    return domain == host or ("*" in domain and _compiled_domain(domain).fullmatch(host) is not None)


@lru_cache(maxsize=10_000)
def _compiled_domain(domain: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, domain.split("*"))))


def _differences(policy: EffectivePolicy) -> Iterator[Difference]:
    for host, ports in (*policy.hosts.items(), *((wildcard.host, wildcard.ports) for wildcard in policy.wildcards)):
        if "_" in host:
            yield Difference(Effect.BLOCKS, (host,), ports, _UNDERSCORE)
        else:
            yield Difference(Effect.OPENS, (host,), (), _ANY_PORT)
    for host in (*DEFAULT_DOMAINS, *DEFAULT_ADDRESSES):
        yield Difference(Effect.OPENS, (host,), (), _DEFAULT)


def _limits(policy: EffectivePolicy) -> Iterator[str]:
    yield SHARED_ADDRESS
    yield "It works on GitHub-hosted Ubuntu runners, and not in jobs that run in a container."
    if policy.disable_sudo_and_containers:
        yield "Bullfrog can turn off sudo, but not containers."
    if policy.lockdown:
        yield "Lockdown mode is a feature of Harden-Runner."
