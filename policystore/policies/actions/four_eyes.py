"""Lets a change wait for a second person, where an organization wants that: the guard that other actions call.

What waits: changes to policies that block (before or after), to whatever alters them, and to organization-wide scopes.
Creating a policy does not: it applies nowhere until it is attached. Nor does staging a version that no canary gets, or
discarding one, since what is live was agreed upon. Neither does what the store does by itself, and breaking the glass,
which cannot wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from policystore.accounts.actors import Actor
from policystore.inventory.models import Organization
from policystore.policies import event_types
from policystore.policies.actions import history
from policystore.policies.models import FourEyes, HistoryEvent, Policy

SWITCH_OFF = "four_eyes.off"


@dataclass(frozen=True, slots=True)
class Change:
    """A change that can wait: `payload` is what `change_verbs` needs to make it, `shown` what people look at."""

    verb: str
    organization: Organization
    subject: tuple[str, int, str]
    payload: Mapping[str, Any]
    shown: Mapping[str, Any] = field(default_factory=dict)


class NeedsApproval(Exception):
    """The change waits for a second person; nothing was changed."""

    def __init__(self, change: Change) -> None:
        super().__init__("This change waits for a second person.")
        self.change = change


def is_on(organization: Organization) -> bool:
    """Whether the organization wants a second person."""
    return FourEyes.objects.filter(organization=organization).exists()


def guard(*, by: Actor, concerned: bool, change: Change) -> None:
    """Go on, or raise NeedsApproval. Call it inside the change's transaction, before anything is written."""
    if concerned and (by.asking or _has_to_wait(by, change.organization)):
        raise NeedsApproval(change)


def _has_to_wait(by: Actor, organization: Organization) -> bool:
    return by.kind != "system" and not by.approved_by and is_on(organization)


def any_blocks(policy_ids: set[int]) -> bool:
    """Whether one of these policies blocks."""
    return Policy.objects.filter(pk__in=policy_ids, egress_policy=Policy.Mode.BLOCK).exists()


def switch_on(*, organization: Organization, by: Actor, at: datetime | None = None) -> None:
    """From now on changes wait; does nothing where they do already."""
    now = at or timezone.now()
    with transaction.atomic():
        _, fresh = FourEyes.objects.get_or_create(organization=organization, defaults={"since": now, "set_by": by.name})
        if fresh:
            _record(event_types.FOUR_EYES_ON, organization, by, now)


def switch_off(*, organization: Organization, by: Actor, at: datetime | None = None) -> None:
    """Changes wait no more; that itself takes two. Raises NeedsApproval."""
    now = at or timezone.now()
    with transaction.atomic():
        guard(by=by, concerned=True, change=Change(SWITCH_OFF, organization, _subject(organization), {}))
        if FourEyes.objects.filter(organization=organization).delete()[0]:
            _record(event_types.FOUR_EYES_OFF, organization, by, now)


def _record(kind: str, organization: Organization, by: Actor, at: datetime) -> None:
    history.record(kind, organization=organization, subject=_subject(organization), by=by, at=at)


def _subject(organization: Organization) -> tuple[str, int, str]:
    return (HistoryEvent.SubjectType.ORGANIZATION, organization.pk, organization.login)
