"""CargoWall: the policy that its action fetches, and how its firewall decides.

The rules were read in v1.3.5 to v2.0.0-rc.3 of the firewall. A plain host there also covers everything below it, on its
own ports, so a host that is listed by name gets a deny rule for the names below it. What a policy cannot say there is
left out: nothing is opened that the policy does not list, except what the firewall opens by itself.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

from policystore.enforcers.fidelity import SHARED_ADDRESS, Difference, Effect, Form, verdict_of
from policystore.enforcers.policy import EffectivePolicy, Wildcard, WildcardIndex, is_address, parents
from policystore.policy_language.endpoint_matcher import Verdict, full_name

HTTPS = 443
MAX_POLICY_BYTES = 1 << 20
# What the firewall opens for the cloud; the second on GitHub-hosted runners.
OPEN_ADDRESSES = {"169.254.169.254": (80,), "168.63.129.16": (80, 32526)}
# The inputs github-service-hosts and, on GitHub-hosted runners, azure-infra-hosts; each with everything below it.
GITHUB_SERVICES = (
    "github.com",
    "api.github.com",
    "githubapp.com",
    "actions.githubusercontent.com",
    "release-assets.githubusercontent.com",
    "avatars.githubusercontent.com",
    "github.githubassets.com",
)
AZURE_SERVICES = ("trafficmanager.net", "blob.core.windows.net")
# Checkout downloads from it; Harden-Runner always allows it.
_CHECKOUT = "codeload.github.com"

_OPENED = "CargoWall always allows GitHub's own services on port 443."
_OPENED_BELOW = "CargoWall always allows GitHub's own services on port 443, and all names below them."
_OPENED_ON_AZURE = "On GitHub-hosted runners, CargoWall always allows these on port 443, and all names below them."
_FOR_CHECKOUT = "Checkout needs it, and the names below github.com are otherwise blocked."
_CLOUD = "CargoWall always allows the cloud's services for its virtual machines, such as metadata."
_PARTIAL = "In CargoWall, a star stands for whole labels (the parts between dots), so these wildcards are left out."
_FIRST_PORT = "A wildcard gets only the first port that it is listed with, as in Harden-Runner."
_NAMED = "A rule for the host itself, on other ports, takes precedence over the wildcard."
_DENIED_BELOW = "A rule for a host also covers names below it. Unless all are listed with its ports, they are blocked."
_PARENT = "A rule for a host above these names, on other ports, takes precedence over the wildcard."
_OTHER_WILDCARD = "Two wildcards match, and CargoWall uses only the one that is listed first."


class Rule(NamedTuple):
    """A rule for a host, a pattern or an address. Deny rules have no ports and deny all of them."""

    value: str
    allow: bool = True
    ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rules:
    """The rules of a policy: its hosts, those whose names below are denied, its wildcards in order, its addresses."""

    hosts: dict[str, tuple[int, ...]]
    denied_below: frozenset[str]
    wildcards: WildcardIndex
    addresses: dict[str, tuple[int, ...]]

    @cached_property
    def named(self) -> dict[str, tuple[int, ...]]:
        """The ports of each host with a rule of its own: the policy's and, where it has none, the firewall's."""
        return {**dict.fromkeys((*AZURE_SERVICES, *GITHUB_SERVICES), (HTTPS,)), **self.hosts}

    def is_denied_above(self, host: str) -> bool:
        """True if a deny rule covers the host."""
        return any(parent in self.denied_below for parent in parents(host))

    def verdict(self, host: str, port: int) -> Verdict:
        """The firewall's verdict."""
        if is_address(host):
            return verdict_of(port in (*self.addresses.get(host, ()), *OPEN_ADDRESSES.get(host, ())))
        return verdict_of(port in self.ports_of(host))

    def ports_of(self, host: str) -> tuple[int, ...]:
        """The ports by the host's own rule, or a deny rule, or that of the nearest parent, or the first wildcard."""
        if host in self.named:
            return self.named[host]
        if self.is_denied_above(host):
            return ()
        for parent in parents(host):
            if parent in self.named:
                return self.named[parent]
        name = full_name(host)
        return next((wildcard.ports[:1] for wildcard in self.wildcards if wildcard.pattern.matches(name)), ())

    def in_order(self) -> Iterator[Rule]:
        """The rules as they are sent. In a pattern, `**` is one label or more."""
        for host, ports in self.hosts.items():
            yield Rule(host, ports=ports)
            if host in self.denied_below:
                yield Rule(f"**.{host}", allow=False)
        for wildcard in self.wildcards:
            yield Rule(wildcard.host.replace("*", "**"), ports=wildcard.ports[:1])
        for address, ports in self.addresses.items():
            yield Rule(str(ipaddress.ip_network(address)), ports=ports)


def compiled(policy: EffectivePolicy) -> Form:
    """The document that `GET …/action/policy` answers with."""
    rules = rules_of(policy)
    text = _document(policy, rules)
    return Form(text, "json", [*_differences(policy, rules)], [*_limits(policy, text)], rules.verdict)


def document(policy: EffectivePolicy) -> str:
    """The text of `compiled` alone, for the path of a fetch."""
    return _document(policy, rules_of(policy))


def _document(policy: EffectivePolicy, rules: Rules) -> str:
    """Protobuf JSON with a rule on each line."""
    mode = "AUDIT" if policy.mode == "audit" else "ENFORCE"
    head = f' "mode": "CARGO_WALL_MODE_{mode}",\n "defaultAction": "CARGO_WALL_ACTION_TYPE_DENY",\n'
    # Without it, the workflow's own input applies; an empty one would turn that off.
    if policy.disable_sudo or policy.disable_sudo_and_containers:
        head += ' "sudoLockdown": {"enabled": true},\n'
    listed = ",\n".join(f"  {json.dumps(_serialized(rule))}" for rule in rules.in_order())
    return f'{{\n{head} "rules": [\n{listed}\n ]\n}}\n'


def _serialized(rule: Rule) -> dict[str, Any]:
    kind = "CIDR" if "/" in rule.value else "HOSTNAME"
    action = "ALLOW" if rule.allow else "DENY"
    serialized: dict[str, Any] = {
        "type": f"CARGO_WALL_RULE_TYPE_{kind}",
        "value": rule.value,
        "action": f"CARGO_WALL_ACTION_TYPE_{action}",
    }
    if rule.ports:
        serialized["ports"] = [{"protocol": "CARGO_WALL_PROTOCOL_TCP", "port": port} for port in rule.ports]
    return serialized


def rules_of(policy: EffectivePolicy) -> Rules:
    """The rules of a policy, never wider than the policy itself."""
    wildcards = WildcardIndex(filter(is_expressible, policy.wildcards))
    addresses = {host: ports for host, ports in policy.hosts.items() if is_address(host)}
    hosts = {host: ports for host, ports in policy.hosts.items() if host not in addresses}
    for wildcard in wildcards:
        for host in wildcard.hosts_without_star:
            hosts.setdefault(host, wildcard.ports[:1])
    denied = frozenset(host for host, ports in hosts.items() if _must_deny_below(wildcards, host, ports))
    if "github.com" in denied and _CHECKOUT not in hosts:
        hosts[_CHECKOUT] = (HTTPS,)
    return Rules(hosts, denied, wildcards, addresses)


def is_expressible(wildcard: Wildcard) -> bool:
    """True if a pattern of the firewall can match the same names: the star is a whole label."""
    return "*" in wildcard.host.split(".")


def _must_deny_below(wildcards: WildcardIndex, host: str, ports: tuple[int, ...]) -> bool:
    """True unless a wildcard lists all names below the host with exactly its ports, and none has other ports there."""
    is_covered = any(True for _ in wildcards.covering(host))
    touching = chain(wildcards.inside(host), wildcards.reaching(host))
    return not is_covered or any(wildcard.ports[:1] != ports for wildcard in touching)


def _differences(policy: EffectivePolicy, rules: Rules) -> Iterator[Difference]:
    yield from _opened(policy, rules)
    for wildcard in policy.wildcards:
        if not is_expressible(wildcard):
            yield Difference(Effect.BLOCKS, (wildcard.host,), wildcard.ports, _PARTIAL)
        elif wildcard.ports[1:]:
            yield Difference(Effect.BLOCKS, (wildcard.host,), wildcard.ports[1:], _FIRST_PORT)
    yield from _blocked_by_hosts(rules)
    for one, other in rules.wildcards.contradicting():
        yield Difference(Effect.BLOCKS, (other.host, one.host), other.ports[:1], _OTHER_WILDCARD)


def _opened(policy: EffectivePolicy, rules: Rules) -> Iterator[Difference]:
    for address, ports in OPEN_ADDRESSES.items():
        if unlisted := tuple(port for port in ports if not policy.lists(address, port)):
            yield Difference(Effect.OPENS, (address,), unlisted, _CLOUD)
    if HTTPS in rules.hosts.get(_CHECKOUT, ()) and not policy.lists(_CHECKOUT, HTTPS):
        yield Difference(Effect.OPENS, (_CHECKOUT,), (HTTPS,), _FOR_CHECKOUT)
    for host in (*AZURE_SERVICES, *GITHUB_SERVICES):
        if host in rules.hosts:
            continue
        is_listed, is_denied = policy.lists(host, HTTPS), rules.is_denied_above(host)
        if is_denied or any(HTTPS in wildcard.ports for wildcard in policy.wildcards.covering(host)):
            opened = "" if is_listed else host
        else:
            opened = f"*.{host}" if is_listed else f".{host}"
        if opened:
            reason = _OPENED_ON_AZURE if host in AZURE_SERVICES else _OPENED if is_denied else _OPENED_BELOW
            yield Difference(Effect.OPENS, (opened,), (HTTPS,), reason)


def _blocked_by_hosts(rules: Rules) -> Iterator[Difference]:
    """What wildcards list, and the rules for hosts that are named do not allow."""
    for host, ports in rules.named.items():
        listed = {wildcard.ports[0] for wildcard in rules.wildcards.matching(host)}
        if lost := listed.difference(ports):
            yield Difference(Effect.BLOCKS, (host,), tuple(sorted(lost)), _NAMED)
        below = {wildcard.host: {wildcard.ports[0]} for wildcard in rules.wildcards.inside(host)}
        below.setdefault(f"*.{host}", set()).update(wildcard.ports[0] for wildcard in rules.wildcards.reaching(host))
        for hosts, listed in below.items():
            if lost := listed.difference(rules.ports_of(hosts)):
                reason = _DENIED_BELOW if rules.is_denied_above(hosts) else _PARENT
                yield Difference(Effect.BLOCKS, (hosts,), tuple(sorted(lost)), reason)


def _limits(policy: EffectivePolicy, text: str) -> Iterator[str]:
    if len(text) > MAX_POLICY_BYTES:
        yield "The policy is larger than 1 MiB, which CargoWall v1.3.6 and newer refuse. List fewer endpoints."
    yield (
        "Unless the policy lists them by name, the store's host and the hosts of the job's Actions services are open "
        "on port 443, and so are all names below them."
    )
    yield (
        "A name that ends in .cluster.local, or in the internal domain of the runner's cloud, is also matched without "
        "that ending."
    )
    yield SHARED_ADDRESS
    ports = policy.hosts.get("github.com")
    if ports and HTTPS not in ports:
        yield "github.com is listed without port 443, so checking out the repository fails."
    if policy.disable_sudo_and_containers:
        yield "CargoWall can lock down sudo, but not containers."
    if policy.lockdown:
        yield "Lockdown mode is a feature of Harden-Runner."
