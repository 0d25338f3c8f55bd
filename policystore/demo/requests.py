"""The demo's change requests: one was declined, one still waits for a second person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from policystore.accounts.actor import Actor
from policystore.inventory.models import Organization
from policystore.policies.actions import approvals, change_requests, policies
from policystore.policies.models import ChangeRequest, Policy


def ask(organization: Organization, *, people: Sequence[Actor], at: Callable[[float], datetime]) -> None:
    """Request to audit two policies that block, and decline one of the requests."""
    maria, jonas, *_ = people
    blocking = Policy.objects.filter(organization=organization, egress_policy=Policy.Mode.BLOCK).order_by("pk")
    first, _ = (
        _ask_to_audit(policy, by=jonas, at=at(day)) for policy, day in zip(blocking[:2], (5.8, 5.5), strict=True)
    )
    comment = "One endpoint is missing; add it instead."
    change_requests.decline(request=first, by=maria, comment=comment, at=at(5.7))


def _ask_to_audit(policy: Policy, *, by: Actor, at: datetime) -> ChangeRequest:
    payload = {
        "name": policy.name,
        "description": policy.description,
        "text": policy.text.replace("egress-policy: block", "egress-policy: audit"),
        "expected_version": policy.version,
    }
    change = approvals.of_policy(policies.UPDATE, policy, payload)
    return change_requests.ask(change=change, by=by, at=at)
