"""CargoWall: the policy that its action fetches, and how its firewall decides.

The rules were read in v1.3.5 to v2.0.0-rc.3 of the firewall. A plain host there also covers everything below it, on its
own ports, so a host that is listed by name gets a deny rule for the names below it. What a policy cannot say there is
left out: never is more opened than the policy lists, but for what the firewall opens by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from policystore.enforcers.fidelity import Difference, Effect, Form, verdict_of
from policystore.enforcers.policy import EffectivePolicy, Wildcard, is_address, parents
from policystore.policy_language.endpoint_matcher import Pattern, Verdict

HTTPS = 443
MAX_POLICY_BYTES = 1 << 20
METADATA = "169.254.169.254"
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

_OPENED = "CargoWall always allows it on 443, for GitHub's own services."
_OPENED_BELOW = "CargoWall always allows it on 443 with everything below it, for GitHub's own services."
_OPENED_ON_AZURE = "On GitHub-hosted runners, CargoWall allows it on 443 with everything below it."
_FOR_CHECKOUT = "The names below github.com are blocked, and checkout needs this one."
_METADATA = "CargoWall always allows the cloud's metadata service."
_PARTIAL = "CargoWall has no wildcard for a part of a name between two dots."
_FIRST_PORT = "A wildcard takes the first port that it is listed with, as in Harden-Runner."
_NAMED = "The host has a rule of its own with other ports, which replaces the wildcard."
_DENIED_BELOW = "The names below {base} are blocked, because the host itself has other ports."
_PARENT = "The rule for {base} covers the names below it, with other ports, and replaces the wildcard."
_OTHER_WILDCARD = "The wildcard {host} is listed before it with another port, and the first that matches decides."


class Rule(NamedTuple):
    """A rule for a host, a pattern or an address. Deny rules have no ports and deny all of them."""

    value: str
    allow: bool = True
    ports: tuple[int, ...] = ()


class Rules(NamedTuple):
    """The rules of a policy: the hosts that are named, those whose names below are denied, and patterns in order."""

    hosts: dict[str, tuple[int, ...]]
    denied_below: frozenset[str]
    patterns: tuple[Rule, ...]
    addresses: dict[str, tuple[int, ...]]

    @property
    def services(self) -> tuple[str, ...]:
        """What the firewall adds by itself: allow rules on 443, except for hosts that are allowed already."""
        return tuple(host for host in (*AZURE_SERVICES, *GITHUB_SERVICES) if host not in self.hosts)

    def ports_of(self, host: str) -> tuple[int, ...]:
        """The ports of a host's own rule, whether it is the policy's or the firewall's; () if it has none."""
        return self.hosts.get(host) or ((HTTPS,) if host in self.services else ())

    def is_denied_above(self, host: str) -> bool:
        """True if a deny rule covers the host."""
        return any(parent in self.denied_below for parent in parents(host))

    def verdict(self, host: str, port: int) -> Verdict:
        """The firewall's verdict: an own rule, then a deny pattern, the nearest parent, the first allow pattern."""
        return verdict_of(host == METADATA or port in self._allowed_ports(host))

    def _allowed_ports(self, host: str) -> tuple[int, ...]:
        own = self.addresses.get(host) or self.ports_of(host)
        if own or is_address(host):
            return own
        if self.is_denied_above(host):
            return ()
        for parent in parents(host):
            if ports := self.ports_of(parent):
                return ports
        return next((rule.ports for rule in self.patterns if matches(rule.value, host)), ())

    def in_order(self) -> Iterator[Rule]:
        """The rules as they are sent."""
        for host, ports in self.hosts.items():
            yield Rule(host, ports=ports)
            if host in self.denied_below:
                yield Rule(f"**.{host}", allow=False)
        yield from self.patterns
        yield from (
            Rule(f"{address}/{128 if ':' in address else 32}", ports=p) for address, p in self.addresses.items()
        )


def matches(pattern: str, host: str) -> bool:
    """True if a pattern of the firewall matches a host: `*` is one label, `**` one or more."""
    return _compiled_pattern(pattern).fullmatch(host) is not None


@lru_cache(maxsize=10_000)
def _compiled_pattern(pattern: str) -> re.Pattern[str]:
    labels = {"*": r"[^.]+", "**": r"[^.]+(?:\.[^.]+)*"}
    return re.compile(r"\.".join(labels.get(label, re.escape(label)) for label in pattern.split(".")))


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
    hosts = {host: ports for host, ports in policy.hosts.items() if not is_address(host)}
    for wildcard in policy.wildcards:
        if is_expressible(wildcard):
            for host in _hosts_without_star(wildcard.pattern):
                hosts.setdefault(host, wildcard.ports[:1])
    denied = frozenset(host for host, ports in hosts.items() if _must_deny_below(policy, host, ports))
    if "github.com" in denied:
        hosts.setdefault(_CHECKOUT, (HTTPS,))
        if _must_deny_below(policy, _CHECKOUT, hosts[_CHECKOUT]):
            denied |= {_CHECKOUT}
    patterns = tuple(
        Rule(_pattern(wildcard.host), ports=wildcard.ports[:1])
        for wildcard in policy.wildcards
        if is_expressible(wildcard)
    )
    addresses = {host: ports for host, ports in policy.hosts.items() if is_address(host)}
    return Rules(hosts, denied, patterns, addresses)


def is_expressible(wildcard: Wildcard) -> bool:
    """True if a pattern of the firewall can match the same names: its one star is a whole label, and not the last."""
    labels = wildcard.host.split(".")
    stars = [label for label in labels if "*" in label]
    return stars == ["*"] and (labels[-1] != "*" or labels == ["*"])


def _pattern(host: str) -> str:
    return ".".join("**" if label == "*" else label for label in host.split("."))


def _hosts_without_star(pattern: Pattern) -> Iterator[str]:
    """The hosts that a pattern matches where its two sides overlap: s3.*.amazonaws.com also lists s3.amazonaws.com."""
    shorter = min(len(pattern.prefix), len(pattern.suffix))
    for length in range(1, shorter + 1):
        if pattern.prefix.endswith(pattern.suffix[:length]):
            yield f"{pattern.prefix}{pattern.suffix[length:]}".removesuffix(".")


def _must_deny_below(policy: EffectivePolicy, host: str, ports: tuple[int, ...]) -> bool:
    """True unless a wildcard lists all names below the host with exactly its ports, and none has other ports there."""
    touching = [wildcard for wildcard in policy.wildcards.touching(host) if is_expressible(wildcard)]
    covering = [wildcard for wildcard in touching if _covers_below(wildcard.host, host)]
    return not covering or any(wildcard.ports[:1] != ports for wildcard in touching)


def _covers_below(wildcard: str, host: str) -> bool:
    base = wildcard.removeprefix("*").removeprefix(".")
    return "*" not in base and (not base or host == base or host.endswith(f".{base}"))


def _differences(policy: EffectivePolicy, rules: Rules) -> Iterator[Difference]:
    yield Difference(Effect.OPENS, (METADATA,), (), _METADATA)
    yield from _opened(policy, rules)
    for wildcard in policy.wildcards:
        if is_expressible(wildcard):
            yield from _blocked(policy, rules, wildcard)
        else:
            yield Difference(Effect.BLOCKS, (wildcard.host,), wildcard.ports, _PARTIAL)


def _opened(policy: EffectivePolicy, rules: Rules) -> Iterator[Difference]:
    if _CHECKOUT in rules.hosts and not policy.lists(_CHECKOUT, HTTPS) and HTTPS in rules.hosts[_CHECKOUT]:
        yield Difference(Effect.OPENS, (_CHECKOUT,), (HTTPS,), _FOR_CHECKOUT)
    for host in rules.services:
        reason = _OPENED_ON_AZURE if host in AZURE_SERVICES else _OPENED_BELOW
        if rules.is_denied_above(host):
            opened, reason = host, _OPENED
        elif policy.lists(host, HTTPS):
            opened = f"*.{host}"
        else:
            opened = f".{host}"
        if not (policy.lists(host, HTTPS) and (opened == host or _lists_all_below(policy, host))):
            yield Difference(Effect.OPENS, (opened,), (HTTPS,), reason)


def _lists_all_below(policy: EffectivePolicy, host: str) -> bool:
    return any(
        HTTPS in wildcard.ports and _covers_below(wildcard.host, host) for wildcard in policy.wildcards.touching(host)
    )


def _blocked(policy: EffectivePolicy, rules: Rules, wildcard: Wildcard) -> Iterator[Difference]:
    """What a wildcard lists and the rules do not allow."""
    port = wildcard.ports[0]
    if wildcard.ports[1:]:
        yield Difference(Effect.BLOCKS, (wildcard.host,), wildcard.ports[1:], _FIRST_PORT)
    pattern = wildcard.pattern
    named = (*rules.hosts, *rules.services)
    for host in (host for host in named if pattern.matches(f"{host}.")):
        if lost := tuple(set(wildcard.ports) - set(rules.ports_of(host))):
            yield Difference(Effect.BLOCKS, (host,), lost, _NAMED)
    for host in (host for host in named if pattern.overlaps(Pattern.of(f"*.{host}"))):
        if host in rules.denied_below:
            yield Difference(Effect.BLOCKS, _both(wildcard.host, host), wildcard.ports, _DENIED_BELOW.format(base=host))
        elif port not in rules.ports_of(host):
            yield Difference(Effect.BLOCKS, _both(wildcard.host, host), (port,), _PARENT.format(base=host))
    for other in _listed_before(policy.wildcards.overlapping(wildcard), policy, wildcard):
        if is_expressible(other) and other.ports[0] != port:
            reason = _OTHER_WILDCARD.format(host=other.host)
            yield Difference(Effect.BLOCKS, (wildcard.host, other.host), (port,), reason)


def _listed_before(others: Iterable[Wildcard], policy: EffectivePolicy, wildcard: Wildcard) -> Iterator[Wildcard]:
    place = policy.wildcards.listed.index
    return (other for other in others if place(other) < place(wildcard))


def _both(wildcard: str, host: str) -> tuple[str, ...]:
    """The hosts that match a wildcard and are below a host."""
    below = f"*.{host}"
    if _covers_below(wildcard, host):
        return (below,)
    return (wildcard,) if _covers_below(below, wildcard.removeprefix("*.")) else (wildcard, below)


def _limits(policy: EffectivePolicy, text: str) -> Iterator[str]:
    if len(text) > MAX_POLICY_BYTES:
        yield "The policy is larger than 1 MiB, which CargoWall v1.3.6 and newer refuse. List fewer endpoints."
    yield "The store's own host, and every name below it, is open on port 443."
    ports = policy.hosts.get("github.com")
    if ports and HTTPS not in ports:
        yield "github.com is listed without port 443, so checking out the repository fails."
    if policy.disable_sudo_and_containers:
        yield "CargoWall can lock sudo, but not containers."
    if policy.lockdown:
        yield "Lockdown mode is a feature of Harden-Runner."
