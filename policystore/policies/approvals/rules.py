"""Decides which changes wait for approval by a second person, if the organization has switched that on.

Either all changes wait, or only those requested with management keys. Changes that affect enforcement wait: to policies
that block (before or after), to what such policies include or which scopes they serve, and to organization-wide scopes.

These never wait: creating a policy, which applies nowhere until it is attached; staging a version that no canary gets,
or discarding one, because the live version was approved; changes by the store itself; and break glass, which is for
emergencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from policystore.accounts import permissions
from policystore.accounts.actor import Actor
from policystore.audit_log import event_types, history
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies.errors import TooFewApprovers
from policystore.policies.models import FourEyes, Policy

SWITCH_OFF, KEYS_ALONE = "four_eyes.off", "four_eyes.keys_alone"


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


def guard(*, by: Actor, concerned: bool, change: Change) -> None:
    """Go on, or raise NeedsApproval. Call it inside the change's transaction, before anything is written."""
    if concerned and has_to_wait(by, change.organization):
        raise NeedsApproval(change)


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


def switch_on(*, organization: Organization, by: Actor, at: datetime | None = None) -> None:
    """From now on everybody's changes wait; does nothing where they do already. Raises TooFewApprovers."""
    with transaction.atomic():
        _set(organization, keys_alone=False, by=by, at=at or timezone.now())


def keys_alone(*, organization: Organization, by: Actor, at: datetime | None = None) -> None:
    """From now on changes wait that a management key asks for, and those of people do not.

    Where theirs do, that takes two: raises NeedsApproval. Raises TooFewApprovers.
    """
    with transaction.atomic():
        change = Change(KEYS_ALONE, organization, history.organization_subject(organization), {})
        guard(by=by, concerned=_can_be_approved(organization), change=change)
        _set(organization, keys_alone=True, by=by, at=at or timezone.now())


def switch_off(*, organization: Organization, by: Actor, at: datetime | None = None) -> None:
    """Changes no longer wait. Raises NeedsApproval where people's changes wait.

    An owner can do it alone once too few approvers remain (people leave on GitHub): nobody else could ever approve it.
    """
    now = at or timezone.now()
    with transaction.atomic():
        change = Change(SWITCH_OFF, organization, history.organization_subject(organization), {})
        guard(by=by, concerned=_can_be_approved(organization), change=change)
        if FourEyes.objects.filter(organization=organization).delete()[0]:
            _record(event_types.FOUR_EYES_OFF, organization, by, now)


def _can_be_approved(organization: Organization) -> bool:
    return permissions.count_approvers(organization) >= permissions.MIN_APPROVERS


def _set(organization: Organization, *, keys_alone: bool, by: Actor, at: datetime) -> None:
    number = permissions.count_approvers(organization)
    if number < permissions.MIN_APPROVERS:
        raise TooFewApprovers(number)
    wanted = {"keys_alone": keys_alone, "since": at, "set_by": by.name}
    current, fresh = FourEyes.objects.select_for_update().get_or_create(organization=organization, defaults=wanted)
    if not fresh and current.keys_alone == keys_alone:
        return
    FourEyes.objects.filter(pk=current.pk).update(**wanted)
    reason = "For what management keys ask for, not for people." if keys_alone else ""
    _record(event_types.FOUR_EYES_ON, organization, by, at, reason=reason, details={"keys_alone": keys_alone})


def _record(kind: str, organization: Organization, by: Actor, at: datetime, **values: Any) -> None:
    history.record(
        kind, organization=organization, subject=history.organization_subject(organization), by=by, at=at, **values
    )
