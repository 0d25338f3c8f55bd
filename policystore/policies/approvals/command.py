"""A change that can wait for approval, as data: pages, the API, policy as code and change requests build the same one.

Each kind of change is a frozen dataclass that derives from Command. It is the only writer of what it changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, Self, TypeVar

from django.db import transaction
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.inventory.models import Organization
from policystore.policies.approvals import rules
from policystore.policies.approvals.rules import Change, NeedsApproval
from policystore.policies.errors import PolicyGone
from policystore.policies.models import Policy

Result = TypeVar("Result")


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

    @classmethod
    @abstractmethod
    def touched_policies(cls, organization: Organization, payload: Mapping[str, Any]) -> set[int]:
        """The ids of the policies that the change can affect."""

    @abstractmethod
    def prepare(self, *, by: Actor, at: datetime) -> Prepared[Result]:
        """Lock the rows and validate, in the transaction of `attempt`. What this writes is undone if the change waits.

        Raises PolicyError.
        """

    def apply(self, *, by: Actor, at: datetime | None = None) -> Result:
        """Make the change in one transaction.

        Raises PolicyError if it is not valid, and NeedsApproval if this actor's changes wait for approval.
        """
        result = self.attempt(by=by, at=at)
        if isinstance(result, Change):
            raise NeedsApproval(result)
        return result

    def attempt(self, *, by: Actor, at: datetime | None = None) -> Result | Change:
        """Make the change in one transaction, or return it, with nothing written, if it has to wait for approval.

        Raises PolicyError.
        """
        now = at or timezone.now()
        with transaction.atomic():
            prepared = self.prepare(by=by, at=now)
            if prepared.needs_approval and rules.has_to_wait(by, prepared.change.organization):
                transaction.set_rollback(True)
                return prepared.change
            return prepared.write()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCommand(Command[Result]):
    """A command that changes one policy. What has other fields as well restores them with a `from_json` of its own."""

    policy: Policy

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> Self:
        """Restore the command. Raises PolicyGone."""
        return cls(policy=policy_of(organization, payload))

    @classmethod
    def touched_policies(cls, organization: Organization, payload: Mapping[str, Any]) -> set[int]:
        """The policy alone."""
        return {payload["policy_id"]}


def policy_of(organization: Organization, payload: Mapping[str, Any]) -> Policy:
    """The policy that a change request names. Raises PolicyGone."""
    policy = Policy.objects.filter(organization=organization, pk=payload["policy_id"]).first()
    if policy is None:
        raise PolicyGone("The policy was deleted in the meantime.")
    return policy
