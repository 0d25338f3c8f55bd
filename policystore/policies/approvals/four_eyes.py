"""Switches four eyes on and off: whether changes wait for approval by a second person, and whose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

from django.db import transaction
from django.utils import timezone

from policystore.accounts import access
from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies.approvals.command import Command, Prepared
from policystore.policies.approvals.rules import Change
from policystore.policies.errors import TooFewApprovers
from policystore.policies.models import FourEyes


def switch_on(*, organization: Organization, by: Actor, at: datetime | None = None) -> None:
    """From now on everybody's changes wait; does nothing if they do already. Raises TooFewApprovers."""
    with transaction.atomic():
        _require_approvers(organization)
        _set(organization, keys_alone=False, by=by, at=at or timezone.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Switch(Command[None]):
    """A command that affects an organization and no policy."""

    permission: ClassVar = "policies.change_foureyes"

    organization: Organization

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> Self:
        """Restore the command."""
        return cls(organization=organization)

    @classmethod
    def touched_policies(cls, organization: Organization, payload: Mapping[str, Any]) -> set[int]:
        """None."""
        return set()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitFourEyesToKeys(_Switch):
    """From now on only changes that a management key requests wait. `apply` and `attempt` raise TooFewApprovers."""

    verb: ClassVar = "four_eyes.keys_alone"
    label: ClassVar = "Keep four eyes for keys alone"

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[None]:
        """It needs approval."""
        _require_approvers(self.organization)

        def write() -> None:
            _set(self.organization, keys_alone=True, by=by, at=at)

        return Prepared(_change(self.verb, self.organization), True, write)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOffFourEyes(_Switch):
    """Changes no longer wait.

    An owner can do it alone once too few approvers remain (people leave on GitHub): nobody else could ever approve it.
    """

    verb: ClassVar = "four_eyes.off"
    label: ClassVar = "Switch off four eyes"

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[None]:
        """It needs approval if enough approvers remain."""

        def write() -> None:
            if FourEyes.objects.filter(organization=self.organization).delete()[0]:
                _record(event_types.FOUR_EYES_OFF, self.organization, by, at)

        can_be_approved = access.count_approvers(self.organization) >= access.MIN_APPROVERS
        return Prepared(_change(self.verb, self.organization), can_be_approved, write)


def _require_approvers(organization: Organization) -> None:
    number = access.count_approvers(organization)
    if number < access.MIN_APPROVERS:
        raise TooFewApprovers(number)


def _set(organization: Organization, *, keys_alone: bool, by: Actor, at: datetime) -> None:
    wanted = {"keys_alone": keys_alone, "since": at, "set_by": by.name}
    current, fresh = FourEyes.objects.select_for_update().get_or_create(organization=organization, defaults=wanted)
    if not fresh and current.keys_alone == keys_alone:
        return
    FourEyes.objects.filter(pk=current.pk).update(**wanted)
    reason = "For what management keys ask for, not for people." if keys_alone else ""
    _record(event_types.FOUR_EYES_ON, organization, by, at, reason=reason, details={"keys_alone": keys_alone})


def _change(verb: str, organization: Organization) -> Change:
    return Change(verb, organization, _subject(organization), {})


def _record(kind: str, organization: Organization, by: Actor, at: datetime, **values: Any) -> None:
    history.record(kind, organization=organization, subject=_subject(organization), by=by, at=at, **values)


def _subject(organization: Organization) -> tuple[str, int, str]:
    return (HistoryEvent.SubjectType.ORGANIZATION, organization.pk, organization.login)
