"""Changes that can wait for approval, as data: pages, the API, policy as code and change requests build the same ones.

Each kind of change is a frozen dataclass that derives from Command. It is the only writer of what it changes.

Four eyes let changes wait for approval by a second person, if the organization has switched that on: either
everybody's, or only those requested with management keys. Which changes wait is decided by the `prepare` of each
command. It is those that affect enforcement: changes to policies that block (before or after), to what such policies
include or which scopes they serve, and to organization-wide scopes.

These never wait: creating a policy, which applies nowhere until it is attached; staging a version that no canary gets,
or discarding one, because the live version was approved; changes by the store itself; and break glass, which is for
emergencies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, Generic, Self, TypeVar

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from policystore.accounts import access
from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies.errors import PolicyGone, TooFewApprovers
from policystore.policies.models import FourEyes, Policy

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Change:
    """A change that can wait; `payload` has the fields of its command as JSON."""

    verb: str
    organization: Organization
    subject: tuple[str, int, str]
    payload: Mapping[str, Any]


class NeedsApproval(Exception):
    """The change waits for a second person; nothing was changed."""

    def __init__(self, change: Change) -> None:
        super().__init__("This change waits for a second person.")
        self.change = change


@dataclass(frozen=True, slots=True)
class Prepared(Generic[Result]):
    """A validated command: the change with normalized fields, if it affects what is enforced, and how to write it."""

    change: Change
    needs_approval: bool
    write: Callable[[], Result]


class Command(ABC, Generic[Result]):
    """A change and its fields. `permission` is what a person needs to approve it; `Result` is what `apply` returns."""

    __slots__ = ()

    verb: ClassVar[str]
    label: ClassVar[str]
    permission: ClassVar[str] = "policies.change_policy"

    @classmethod
    @abstractmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> Self:
        """Restore the command from a change request. Raises PolicyError if its subject no longer exists."""

    @abstractmethod
    def touched_policies(self) -> set[int]:
        """The ids of the policies that the change can affect."""

    @abstractmethod
    def prepare(self, *, by: Actor, at: datetime) -> Prepared[Result]:
        """Lock the rows and validate, in the transaction of `apply`. What this writes is undone if the change waits.

        Raises PolicyError.
        """

    def apply(self, *, by: Actor, at: datetime | None = None) -> Result:
        """Make the change in one transaction.

        Raises PolicyError if it is not valid, and NeedsApproval if this actor's changes wait for approval.
        """
        now = at or timezone.now()
        with transaction.atomic():
            prepared = self.prepare(by=by, at=now)
            if prepared.needs_approval and has_to_wait(by, prepared.change.organization):
                # Leaving the transaction this way undoes what `prepare` has written.
                raise NeedsApproval(prepared.change)
            return prepared.write()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCommand(Command[Result]):
    """A command that changes one policy. If other fields of it are not JSON, it has a `from_json` of its own."""

    policy: Policy

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> Self:
        """Restore the command. Raises PolicyGone."""
        return cls(policy=policy_of(organization, payload), **{name: payload[name] for name in cls._own_fields()})

    def touched_policies(self) -> set[int]:
        """The policy alone."""
        return {self.policy.pk}

    @classmethod
    def _own_fields(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name != "policy"]

    def change(self, current: Policy, **normalized: Any) -> Change:
        """The change with its fields as JSON: `normalized` in place of what was given."""
        own = {name: getattr(self, name) for name in self._own_fields()}
        subject = (HistoryEvent.SubjectType.POLICY, current.pk, current.name)
        return Change(self.verb, current.organization, subject, {"policy_id": current.pk, **own, **normalized})


def policy_of(organization: Organization, payload: Mapping[str, Any]) -> Policy:
    """The policy that a change request names. Raises PolicyGone."""
    policy = Policy.objects.filter(organization=organization, pk=payload["policy_id"]).first()
    if policy is None:
        raise PolicyGone("The policy was deleted in the meantime.")
    return policy


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


def switch_on_four_eyes(*, organization: Organization, by: Actor, at: datetime | None = None) -> None:
    """From now on everybody's changes wait; does nothing if they do already. Raises TooFewApprovers."""
    with transaction.atomic():
        _require_approvers(organization)
        _set_four_eyes(organization, keys_alone=False, by=by, at=at or timezone.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Switch(Command[None]):
    """A command that affects an organization and no policy."""

    permission: ClassVar = "policies.change_foureyes"

    organization: Organization

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> Self:
        """Restore the command."""
        return cls(organization=organization)

    def touched_policies(self) -> set[int]:
        """None."""
        return set()

    def _change(self) -> Change:
        return Change(self.verb, self.organization, history.organization_subject(self.organization), {})


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitFourEyesToKeys(_Switch):
    """From now on only changes that a management key requests wait. `apply` raises TooFewApprovers."""

    verb: ClassVar = "four_eyes.keys_alone"
    label: ClassVar = "Limit four eyes to management keys"

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[None]:
        """It needs approval."""
        _require_approvers(self.organization)

        def write() -> None:
            _set_four_eyes(self.organization, keys_alone=True, by=by, at=at)

        return Prepared(self._change(), True, write)


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
        return Prepared(self._change(), can_be_approved, write)


def _require_approvers(organization: Organization) -> None:
    number = access.count_approvers(organization)
    if number < access.MIN_APPROVERS:
        raise TooFewApprovers(number)


def _set_four_eyes(organization: Organization, *, keys_alone: bool, by: Actor, at: datetime) -> None:
    wanted = {"keys_alone": keys_alone, "since": at, "set_by": by.name}
    current, fresh = FourEyes.objects.select_for_update().get_or_create(organization=organization, defaults=wanted)
    if not fresh and current.keys_alone == keys_alone:
        return
    FourEyes.objects.filter(pk=current.pk).update(**wanted)
    reason = "For what management keys ask for, not for people." if keys_alone else ""
    _record(event_types.FOUR_EYES_ON, organization, by, at, reason=reason, details={"keys_alone": keys_alone})


def _record(kind: str, organization: Organization, by: Actor, at: datetime, **values: Any) -> None:
    subject = history.organization_subject(organization)
    history.record(kind, organization=organization, subject=subject, by=by, at=at, **values)
