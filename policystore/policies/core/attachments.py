"""Attaches policies to scopes and detaches them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce

from policystore.accounts.models import Actor
from policystore.audit_log import history
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.approvals.commands import PolicyCommand, Prepared, any_blocks, policy_of
from policystore.policies.core import queries
from policystore.policies.core.queries import SCOPES_PER_QUERY
from policystore.policies.errors import ForeignScope, PolicyGone, ScopesTaken
from policystore.policies.models import Attachment, Policy, RequestedAttachments
from policystore.policy_language.scopes import Scope, ScopeType


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifyAttachments(PolicyCommand[None]):
    """Add and remove scopes of a policy in one transaction; both sides of a replacement get a history event.

    `replacing` maps the key of each scope that another policy may lose to the id of that policy, as the person agreed
    to it; None lets any policy lose its scope. `requested` is the request of the management API, for reading it back.
    `apply` raises ScopesTaken for taken scopes without confirmation, ForeignScope for a scope of
    another organization, and PolicyGone if the policy was deleted.
    """

    verb: ClassVar = "policy.attach"
    label: ClassVar = "Modify attachment"

    add: Collection[Scope] = ()
    remove: Collection[Scope] = ()
    replacing: Mapping[str, int] | None = field(default_factory=dict)
    requested: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> ModifyAttachments:
        """Restore the command, for an approver who sees which policies lose their scopes now. Raises PolicyGone."""
        return cls(
            policy=policy_of(organization, payload),
            add=[Scope.from_key(key) for key in payload["add"]],
            remove=[Scope.from_key(key) for key in payload["remove"]],
            replacing=None,
            requested=payload["requested"],
        )

    def touched_policies(self) -> set[int]:
        """The policy, and those that hold the scopes now."""
        holders = queries.holders(self.policy.organization, [scope.key for scope in self.add])
        return {self.policy.pk, *(holder.policy_id for holder in holders.values())}

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[None]:
        """Lock the policy and the holders of the scopes."""
        policy = self.policy
        wanted = {scope.key: scope for scope in self.add}
        unwanted = {scope.key for scope in self.remove} - wanted.keys()
        _refuse_foreign(policy, wanted.values())
        holders = _lock_holders(policy, [*wanted, *unwanted])
        mine = {key for key, holder in holders.items() if holder.policy_id == policy.pk}
        taken = {key: holders[key] for key in wanted.keys() & holders.keys() - mine}
        if self.replacing is not None:
            _refuse_unconfirmed(taken, self.replacing)
        added = [wanted[key] for key in sorted(wanted.keys() - mine)]
        removed = [Scope.from_key(key) for key in sorted(mine & unwanted)]
        keys = {"add": [scope.key for scope in added], "remove": [scope.key for scope in removed]}

        def write() -> None:
            _take(taken, by=by, at=at, successor=policy.name)
            _insert(policy, added, by=by, at=at)
            inventory.learn_scopes(organization=policy.organization, scopes=added)
            _delete(policy, keys["remove"])
            if added or removed:
                reason = _replaced_names(taken)
                history.record_scopes(policy=policy, added=added, removed=removed, by=by, at=at, reason=reason)
                _count_attachments({policy.pk, *(holder.policy_id for holder in taken.values())}, by=by, at=at)
            if self.requested is not None:
                RequestedAttachments.objects.update_or_create(policy=policy, defaults={"body": self.requested})

        replaced = {holder.policy_id for holder in taken.values()}
        changed = [*added, *removed]
        concerned = bool(changed) and needs_approval(policy=policy, scopes=changed, replaced=replaced)
        return Prepared(self.change(policy, replacing=None, **keys), concerned, write)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachPolicy(PolicyCommand[None]):
    """Remove every attachment of the policy, which then applies nowhere. `apply` raises PolicyGone."""

    verb: ClassVar = "policy.detach"
    label: ClassVar = "Detach policy"

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[None]:
        """Lock the policy."""
        compiler.keep_rules(self.policy.organization_id)
        _lock_policies({self.policy.pk}, must_exist=self.policy)
        attached = [attachment.scope for attachment in Attachment.objects.filter(policy=self.policy)]
        concerned = bool(attached) and needs_approval(policy=self.policy, scopes=attached)
        write = partial(remove_all, policy=self.policy, by=by, at=at)
        return Prepared(self.change(self.policy), concerned, write)


def remove_all(*, policy: Policy, by: Actor, at: datetime, reason: str = "") -> None:
    """Delete the attachments of a policy that the caller has locked."""
    removed = [attachment.scope for attachment in Attachment.objects.filter(policy=policy)]
    if removed:
        Attachment.objects.filter(policy=policy).delete()
        history.record_scopes(policy=policy, removed=removed, by=by, at=at, reason=reason)
        _count_attachments({policy.pk}, by=by, at=at)


def needs_approval(*, policy: Policy, scopes: Collection[Scope], replaced: Collection[int] = ()) -> bool:
    """True if attaching or detaching these scopes may have to wait for approval.

    It may if this policy, one that it replaces, or one whose jobs it gains or loses thereby blocks.
    """
    wide = any(scope.type == ScopeType.ORGANIZATION for scope in scopes)
    return wide or any_blocks({policy.pk, *replaced, *_behind(policy, scopes)})


def _behind(policy: Policy, scopes: Collection[Scope]) -> set[int]:
    """The policies that jobs in these scopes get where nothing is attached to the scopes themselves."""
    narrow = [scope for scope in scopes if scope.repository]
    if not narrow:
        return set()
    holders = queries.holders(policy.organization, {key for scope in narrow for key in scope.wider_keys})
    next_ones = {next((holders[key].policy_id for key in scope.wider_keys if key in holders), None) for scope in narrow}
    behind = {policy_id for policy_id in next_ones if policy_id is not None}
    if None in next_ones:
        # Which cluster a job runs on is known only when it runs, so every cluster's policy may be meant.
        clusters = Attachment.objects.filter(organization=policy.organization, scope_type=ScopeType.CLUSTER)
        behind.update(clusters.order_by().values_list("policy_id", flat=True).distinct())
    return behind


def _refuse_foreign(policy: Policy, scopes: Collection[Scope]) -> None:
    for scope in scopes:
        if scope.owner.lower() != policy.organization.key:
            raise ForeignScope(f"{scope.label} does not belong to {policy.organization.login}.")


def _lock_holders(policy: Policy, keys: Collection[str]) -> dict[str, Attachment]:
    """The attachments on these scopes. All their policies are locked, in one order, which prevents deadlocks."""
    compiler.keep_rules(policy.organization_id)
    compiler.change_attachments(policy.organization_id)
    found = queries.holders(policy.organization, keys)
    _lock_policies({policy.pk, *(holder.policy_id for holder in found.values())}, must_exist=policy)
    return queries.holders(policy.organization, keys)


def _lock_policies(ids: Collection[int], *, must_exist: Policy) -> None:
    rows = Policy.objects.select_for_update().filter(pk__in=ids).order_by("pk")
    if must_exist.pk not in {row.pk for row in rows}:
        raise PolicyGone(f"The policy {must_exist.name} was deleted in the meantime.")


def _refuse_unconfirmed(taken: Mapping[str, Attachment], replacing: Mapping[str, int]) -> None:
    unconfirmed = [holder for key, holder in sorted(taken.items()) if replacing.get(key) != holder.policy_id]
    if unconfirmed:
        raise ScopesTaken(unconfirmed)


def _take(taken: Mapping[str, Attachment], *, by: Actor, at: datetime, successor: str) -> None:
    lost: defaultdict[int, list[Attachment]] = defaultdict(list)
    for holder in taken.values():
        lost[holder.policy_id].append(holder)
    for holders in lost.values():
        loser = holders[0].policy
        _delete(loser, [holder.scope_key for holder in holders])
        removed, reason = [holder.scope for holder in holders], f"Replaced by {successor}."
        history.record_scopes(policy=loser, removed=removed, by=by, at=at, reason=reason)


def _insert(policy: Policy, scopes: Collection[Scope], *, by: Actor, at: datetime) -> None:
    Attachment.objects.bulk_create(
        Attachment(
            policy=policy,
            organization=policy.organization,
            scope_key=scope.key,
            scope_type=scope.type,
            attached_at=at,
            attached_by=by.name,
        )
        for scope in scopes
    )


def _delete(policy: Policy, keys: list[str]) -> None:
    for start in range(0, len(keys), SCOPES_PER_QUERY):
        chunk = keys[start : start + SCOPES_PER_QUERY]
        Attachment.objects.filter(policy=policy, scope_key__in=chunk).delete()


def _replaced_names(taken: Mapping[str, Attachment]) -> str:
    names = sorted({holder.policy.name for holder in taken.values()})
    return f"Replaced {', '.join(names)}."[:500] if names else ""


def _count_attachments(policy_ids: Collection[int], *, by: Actor, at: datetime) -> None:
    counted = (
        Attachment.objects.filter(policy=OuterRef("pk")).order_by().values("policy").annotate(n=Count("pk")).values("n")
    )
    Policy.objects.filter(pk__in=policy_ids).update(
        attachment_count=Coalesce(Subquery(counted), 0), changed_at=at, changed_by=by.name
    )
