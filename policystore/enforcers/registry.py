"""The enforcers that a policy can be compiled for: one module and one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from policystore.enforcers import bullfrog, cargowall, cilium, github_firewall, harden_runner
from policystore.enforcers.fidelity import Effect, Form, Group
from policystore.enforcers.policy import EffectivePolicy


class Enforcer(NamedTuple):
    """An enforcer: the key in addresses, its name, what its form is, and the file name of a download."""

    key: str
    name: str
    form: str
    file_name: str
    compiled: Callable[[EffectivePolicy], Form]


_ALL = (
    Enforcer("harden-runner", "Harden-Runner", "Step with its own list", "step.yml", harden_runner.compiled),
    Enforcer("cargowall", "CargoWall", "Policy as its action fetches it", "cargowall.json", cargowall.compiled),
    Enforcer("github", "GitHub's firewall", "File of the repository", "egress-firewall.yaml", github_firewall.compiled),
    Enforcer("bullfrog", "Bullfrog", "Step with its own list", "step.yml", bullfrog.compiled),
    Enforcer("cilium", "Cilium", "CiliumNetworkPolicy", "network-policy.yaml", cilium.compiled),
)
ENFORCERS = {enforcer.key: enforcer for enforcer in _ALL}


def blocked_by_others(policy: EffectivePolicy) -> list[tuple[Enforcer, list[Group]]]:
    """The enforcers besides Harden-Runner that block calls which the policy lists, and which calls."""
    others = [enforcer for enforcer in _ALL if enforcer.compiled is not harden_runner.compiled]
    found = [
        (enforcer, [group for group in enforcer.compiled(policy).grouped() if group.effect is Effect.BLOCKS])
        for enforcer in others
    ]
    return [(enforcer, groups) for enforcer, groups in found if groups]
