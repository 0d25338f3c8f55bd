"""Decides whose changes wait for approval by a second person, if the organization has switched that on.

Either everybody's wait, or only those requested with management keys. Which changes wait is decided by the `prepare` of
each command. It is those that affect enforcement: changes to policies that block (before or after), to what such
policies include or which scopes they serve, and to organization-wide scopes.

These never wait: creating a policy, which applies nowhere until it is attached; staging a version that no canary gets,
or discarding one, because the live version was approved; changes by the store itself; and break glass, which is for
emergencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q

from policystore.accounts.models import Actor
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies.models import FourEyes, Policy


@dataclass(frozen=True, slots=True)
class Change:
    """A change that can wait; `payload` has the fields of its command as JSON."""

    verb: str
    organization: Organization
    subject: tuple[str, int, str]
    payload: Mapping[str, Any]


def of_policy(verb: str, policy: Policy, payload: Mapping[str, Any]) -> Change:
    """A change of a policy, which its payload names."""
    subject = (HistoryEvent.SubjectType.POLICY, policy.pk, policy.name)
    return Change(verb, policy.organization, subject, {"policy_id": policy.pk, **payload})


class NeedsApproval(Exception):
    """The change waits for a second person; nothing was changed."""

    def __init__(self, change: Change) -> None:
        super().__init__("This change waits for a second person.")
        self.change = change


def has_to_wait(by: Actor, organization: Organization) -> bool:
    """True if this actor's changes of what is enforced wait for approval."""
    if by.kind == "system" or by.approved_by:
        return False
    current = FourEyes.objects.filter(organization=organization).first()
    return current is not None and (by.kind == "api_key" or not current.keys_alone)


def any_blocks(policy_ids: set[int]) -> bool:
    """True if one of these policies blocks, even if only for its canaries."""
    live = Q(egress_policy=Policy.Mode.BLOCK)
    canaries = Q(staged__egress_policy=Policy.Mode.BLOCK, staged__canaries__isnull=False)
    return Policy.objects.filter(live | canaries, pk__in=policy_ids).exists()
