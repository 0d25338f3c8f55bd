"""Cilium: a CiliumNetworkPolicy for the runner pods of Actions Runner Controller, and how its DNS rules match."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml

from policystore.enforcers.fidelity import Difference, Effect, Form, verdict_of
from policystore.enforcers.policy import EffectivePolicy, is_address
from policystore.policy_language.endpoint_matcher import Verdict

# What Actions Runner Controller labels runner pods with.
_RUNNER_PODS = {"actions-ephemeral-runner": "True"}
_DNS_PODS = {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}

_ONE_LABEL = "In Cilium a star does not match dots, so hosts with more labels in its place are blocked."


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
        return verdict_of(any(port in w.ports and matches(w.host, host) for w in policy.wildcards))

    text = yaml.safe_dump(manifest, sort_keys=False, width=120)
    return Form(text, "yaml", [*_differences(policy)], [*_limits(policy)], verdict)


def matches(pattern: str, host: str) -> bool:
    """True if a matchPattern matches a host: a star is any number of characters but dots; alone, it is every host."""
    return pattern == "*" or _compiled_pattern(pattern).fullmatch(host) is not None


@lru_cache(maxsize=10_000)
def _compiled_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("[-a-zA-Z0-9_]*".join(map(re.escape, pattern.split("*"))))


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
            networks.setdefault(tuple(sorted(ports)), []).append(f"{host}/32")
        else:
            names.setdefault(tuple(sorted(ports)), []).append({"matchName": host})
    for wildcard in policy.wildcards:
        names.setdefault(tuple(sorted(wildcard.ports)), []).append({"matchPattern": wildcard.host})
    for ports, selectors in names.items():
        yield {"toFQDNs": selectors, "toPorts": _to_ports(ports)}
    for ports, addresses in networks.items():
        yield {"toCIDR": addresses, "toPorts": _to_ports(ports)}


def _to_ports(ports: tuple[int, ...]) -> list[dict[str, Any]]:
    return [{"ports": [{"port": str(port), "protocol": "TCP"} for port in ports]}]


def _differences(policy: EffectivePolicy) -> Iterator[Difference]:
    for wildcard in policy.wildcards:
        if wildcard.host != "*":
            yield Difference(Effect.BLOCKS, (wildcard.host,), wildcard.ports, _ONE_LABEL)


def _limits(policy: EffectivePolicy) -> Iterator[str]:
    yield "Once a host is resolved, Cilium allows its address, and so every host with the same address."
    yield "Change endpointSelector to the labels of your runner pods if they differ."
    if policy.mode == "audit":
        yield "Cilium cannot audit a single policy: this manifest blocks, though the policy only audits."
    if policy.disable_sudo or policy.disable_sudo_and_containers or policy.lockdown:
        yield "A network policy changes neither sudo nor containers, and has no lockdown mode."
