"""Cilium: a CiliumNetworkPolicy for the runner pods of Actions Runner Controller, and how its DNS rules match."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml

from policystore.enforcers.fidelity import SHARED_ADDRESS, Difference, Effect, Form, verdict_of
from policystore.enforcers.policy import EffectivePolicy, Wildcard, is_address
from policystore.policy_language.endpoint_matcher import Verdict, full_name

# What Actions Runner Controller labels runner pods with.
_RUNNER_PODS = {"actions-ephemeral-runner": "True"}
_DNS_PODS = {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}

# In one list, by the schema of the resource.
_MAX_PORTS = 40

_ONE_LABEL = "In Cilium, only a star that is the whole first label matches dots. Hosts with dots in others are blocked."


def compiled(policy: EffectivePolicy) -> Form:
    """A manifest that allows DNS and the policy's endpoints, and nothing else."""
    manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "policy-store"},
        "spec": {
            "endpointSelector": {"matchLabels": _RUNNER_PODS},
            "egress": [_dns_rule(), *_egress(policy)],
        },
    }

    def verdict(host: str, port: int) -> Verdict:
        if port in policy.hosts.get(host, ()) or is_address(host):
            return verdict_of(port in policy.hosts.get(host, ()))
        return verdict_of(any(port in w.ports and _matches(w, host) for w in policy.wildcards))

    text = yaml.safe_dump(manifest, sort_keys=False, width=120)
    return Form(text, "yaml", [*_differences(policy)], [*_limits(policy)], verdict)


def _matches(wildcard: Wildcard, host: str) -> bool:
    if _is_first_label(wildcard):
        return wildcard.pattern.matches(full_name(host))
    return host in wildcard.hosts_without_star or _compiled_pattern(wildcard.host).fullmatch(host) is not None


def _is_first_label(wildcard: Wildcard) -> bool:
    return wildcard.host.partition(".")[0] == "*"


@lru_cache(maxsize=10_000)
def _compiled_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("[-a-z0-9_]*".join(map(re.escape, pattern.split("*"))))


def _dns_rule() -> dict[str, Any]:
    ports = [{"port": "53", "protocol": "ANY"}]
    dns = {"ports": ports, "rules": {"dns": [{"matchPattern": "*"}]}}
    return {"toEndpoints": [{"matchLabels": _DNS_PODS}], "toPorts": [dns]}


def _egress(policy: EffectivePolicy) -> Iterator[dict[str, Any]]:
    """A rule for each combination of ports."""
    names: dict[tuple[int, ...], list[dict[str, str]]] = {}
    networks: dict[tuple[int, ...], list[str]] = {}
    for host, ports in policy.hosts.items():
        if is_address(host):
            networks.setdefault(tuple(sorted(ports)), []).append(str(ipaddress.ip_network(host)))
        else:
            names.setdefault(tuple(sorted(ports)), []).append({"matchName": host})
    for wildcard in policy.wildcards:
        # Two stars in front match dots, too. A pattern does not match without its star.
        pattern = f"*{wildcard.host}" if wildcard.host.startswith("*.") else wildcard.host
        selectors = [{"matchPattern": pattern}, *({"matchName": host} for host in wildcard.hosts_without_star)]
        names.setdefault(tuple(sorted(wildcard.ports)), []).extend(selectors)
    for ports, selectors in names.items():
        yield {"toFQDNs": selectors, "toPorts": _to_ports(ports)}
    for ports, addresses in networks.items():
        yield {"toCIDR": addresses, "toPorts": _to_ports(ports)}


def _to_ports(ports: tuple[int, ...]) -> list[dict[str, Any]]:
    listed = [{"port": str(port), "protocol": "TCP"} for port in ports]
    return [{"ports": listed[start : start + _MAX_PORTS]} for start in range(0, len(listed), _MAX_PORTS)]


def _differences(policy: EffectivePolicy) -> Iterator[Difference]:
    for wildcard in policy.wildcards:
        if not _is_first_label(wildcard):
            yield Difference(Effect.BLOCKS, (wildcard.host,), wildcard.ports, _ONE_LABEL)


def _limits(policy: EffectivePolicy) -> Iterator[str]:
    yield "It opens nothing for the runner itself. List the hosts that runners need, or no job starts."
    yield (
        "It applies to the runner pods of runner scale sets. If jobs run in pods of their own (the container mode "
        "kubernetes), change endpointSelector to the labels of those."
    )
    yield SHARED_ADDRESS
    if any(wildcard.host.startswith("*.") for wildcard in policy.wildcards):
        yield "Before version 1.19, Cilium reads ** as *, and blocks hosts with dots in its place."
    if policy.mode == "audit":
        yield "Cilium has no audit mode for a single policy. This manifest blocks, although the policy only audits."
    if policy.disable_sudo or policy.disable_sudo_and_containers or policy.lockdown:
        yield "A network policy changes neither sudo nor containers, and has no lockdown mode."
