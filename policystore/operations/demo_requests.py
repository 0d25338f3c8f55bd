"""The demo's change requests: for a while, a second person had to agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from policystore.accounts.actors import Actor
from policystore.inventory.models import Organization
from policystore.policies.actions import change_requests, four_eyes, policies
from policystore.policies.actions.four_eyes import NeedsApproval
from policystore.policies.models import ChangeRequest, Policy


def ask(organization: Organization, *, people: Sequence[Actor], at: Callable[[float], datetime]) -> None:
    """For a while a second person had to agree: one change was declined, one still waits."""
    maria, jonas, *_ = people
    four_eyes.switch_on(organization=organization, by=maria, at=at(6))
    blocking = Policy.objects.filter(organization=organization, egress_policy=Policy.Mode.BLOCK).order_by("pk")
    first, second = (
        _ask_to_audit(policy, by=jonas, at=at(day)) for policy, day in zip(blocking[:2], (5.8, 5.5), strict=True)
    )
    comment = "One endpoint is missing; add it instead."
    change_requests.decline(request=first, by=maria, comment=comment, at=at(5.7))
    agreed = Actor(maria.name, maria.kind, approved_by=jonas.name)
    four_eyes.switch_off(organization=second.organization, by=agreed, at=at(5))


def _ask_to_audit(policy: Policy, *, by: Actor, at: datetime) -> ChangeRequest:
    try:
        policies.update(
            policy=policy,
            name=policy.name,
            description=policy.description,
            text=policy.text.replace("egress-policy: block", "egress-policy: audit"),
            expected_version=policy.version,
            by=by,
            at=at,
        )
    except NeedsApproval as waiting:
        return change_requests.ask(change=waiting.change, by=by, at=at)
    raise AssertionError("four eyes are on, and the policy blocks")
