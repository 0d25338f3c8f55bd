"""Merges the inputs of a Harden-Runner step with the store's reply, as the action does.

The rules are the action's own (v2.20): for each field, one of the two sides wins. The job hooks of self-hosted runners
merge nothing; on those runners, the store's reply applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from policystore.policy_language.values import SWITCH_FIELDS

Source = Literal["policy_store", "policy", "workflow"]

# For telemetry, the action follows its own input and never what a policy says.
_FOLLOWED_SWITCHES = tuple(field for field in SWITCH_FIELDS if field != "disable_telemetry")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The step's `with:` block; what it leaves out has the action's defaults."""

    egress_policy: str = "block"
    allowed_endpoints: str = ""
    disable_sudo: bool = False
    disable_sudo_and_containers: bool = False
    disable_file_monitoring: bool = False
    disable_telemetry: bool = False
    use_policy_store: bool = False
    policy: str = ""

    @property
    def asks(self) -> Source:
        """The request that the action makes: `use-policy-store` beats `policy:`; `workflow` is no request at all."""
        if self.use_policy_store:
            return "policy_store"
        return "policy" if self.policy else "workflow"


@dataclass(frozen=True, slots=True)
class Merged:
    """The settings that apply on the runner; `reasons` has one sentence for each decision."""

    source: Source
    egress_policy: str
    allowed_endpoints: tuple[str, ...]
    disable_sudo: bool
    disable_sudo_and_containers: bool
    disable_file_monitoring: bool
    disable_telemetry: bool
    reasons: tuple[str, ...]


def merge(inputs: Inputs, reply: Mapping[str, Any] | None) -> Merged:
    """Merge the inputs with the store's 200, or with its 404 where `reply` is None.

    `reply` answers the request that `inputs.asks` names: the fetch for the job, or the policy of that name. It is
    ignored if the action makes no request.
    """
    if inputs.asks == "workflow":
        return _merged(inputs, ["The step asks the store for nothing, so its own inputs hold."])
    if reply is None:
        return _without_reply(inputs)
    endpoints, reason = _endpoints(inputs, reply)
    switches: dict[str, Any] = {switch: bool(reply[switch]) for switch in _FOLLOWED_SWITCHES}
    followed = replace(inputs, egress_policy=str(reply["egress_policy"]), allowed_endpoints=endpoints, **switches)
    reasons = [f"The store says {followed.egress_policy}, whatever the step says.", reason]
    changed = [switch for switch in _FOLLOWED_SWITCHES if getattr(inputs, switch) != getattr(followed, switch)]
    reasons += [
        f"{switch.replace('_', '-')} is {str(getattr(followed, switch)).lower()}, as the store says."
        for switch in changed
    ]
    if bool(reply["disable_telemetry"]) != inputs.disable_telemetry:
        reasons.append("The action follows its own disable-telemetry; only the job hooks follow the policy's.")
    return _merged(followed, reasons)


def _without_reply(inputs: Inputs) -> Merged:
    if inputs.asks == "policy":
        return _merged(inputs, [f"The store has no policy named {inputs.policy}, so the step's own inputs hold."])
    reason = "No policy applies, which the action takes for audit even where the step says block."
    return _merged(replace(inputs, egress_policy="audit"), [reason])


def _endpoints(inputs: Inputs, reply: Mapping[str, Any]) -> tuple[str, str]:
    if inputs.allowed_endpoints:
        return inputs.allowed_endpoints, "The step lists endpoints of its own, which replace the store's list."
    return " ".join(reply["allowed_endpoints"]), "The step lists no endpoints, so the store's list holds."


def _merged(inputs: Inputs, reasons: list[str]) -> Merged:
    return Merged(
        source=inputs.asks,
        egress_policy=inputs.egress_policy,
        allowed_endpoints=tuple(inputs.allowed_endpoints.split()),
        reasons=tuple(reasons),
        **{field: getattr(inputs, field) for field in SWITCH_FIELDS},
    )
