"""Attaches policies to scopes and detaches them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from policystore.accounts.actor import Actor
from policystore.audit_log import history
from policystore.inventory import actions as inventory
from policystore.policies.approvals import rules as approvals
from policystore.policies.core import locks, queries
from policystore.policies.core.queries import SCOPES_PER_QUERY
from policystore.policies.errors import ForeignScope, PolicyGone, ScopesTaken, TakenScope
from policystore.policies.models import Attachment, Policy, RequestedAttachments
from policystore.policy_language.scopes import Scope, ScopeType

MODIFY, DETACH = "policy.attach", "policy.detach"
NO_REPLACEMENTS: Mapping[str, int] = {}


def modify(
    *,
    policy: Policy,
    by: Actor,
    add: Collection[Scope] = (),
    remove: Collection[Scope] = (),
    replacing: Mapping[str, int] | None = NO_REPLACEMENTS,
    requested: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> None:
    """Add and remove scopes of a policy in one transaction; both sides of a replacement get a history event.

    `replacing` maps the key of each scope that another policy may lose to the id of that policy, as the person agreed
    to it; None lets any policy lose its scope. `requested` is the request of the management API, for reading it back.
    Raises ScopesTaken for taken scopes that nobody agreed to replace, ForeignScope for a scope of another organization,
    PolicyGone when the policy was deleted, NeedsApproval where a second person is wanted.
    """
    wanted = {scope.key: scope for scope in add}
    unwanted = {scope.key for scope in remove} - wanted.keys()
    _refuse_foreign(policy, wanted.values())
    now = at or timezone.now()
    with transaction.atomic():
        holders = _lock_holders(policy, [*wanted, *unwanted])
        mine = {key for key, holder in holders.items() if holder.policy_id == policy.pk}
        taken = {key: holders[key] for key in wanted.keys() & holders.keys() - mine}
        if replacing is not None:
            _refuse_unconfirmed(taken, replacing)
        _let_wait(policy, by=by, add=wanted.keys() - mine, remove=mine & unwanted, taken=taken, requested=requested)
        _take(taken, by=by, at=now, successor=policy.name)
        added = [wanted[key] for key in sorted(wanted.keys() - mine)]
        _insert(policy, added, by=by, at=now)
        inventory.learn_scopes(organization=policy.organization, scopes=added)
        removed = [Scope.from_key(key) for key in sorted(mine & unwanted)]
        _delete(policy, [scope.key for scope in removed])
        if added or removed:
            history.record_scopes(
                policy=policy, added=added, removed=removed, by=by, at=now, reason=_replaced_names(taken)
            )
            _count_attachments({policy.pk, *(holder.policy_id for holder in taken.values())})
        if requested is not None:
            RequestedAttachments.objects.update_or_create(policy=policy, defaults={"body": requested})


def detach_all(*, policy: Policy, by: Actor, at: datetime | None = None, reason: str = "") -> None:
    """Remove every attachment of the policy, which stays but applies nowhere. Raises PolicyGone and NeedsApproval."""
    with transaction.atomic():
        _lock_policies({policy.pk}, must_exist=policy)
        removed = [attachment.scope for attachment in Attachment.objects.filter(policy=policy)]
        if not removed:
            return
        approvals.guard(
            by=by,
            concerned=concern(policy=policy, scopes=removed),
            change=approvals.of_policy(DETACH, policy, {}),
        )
        Attachment.objects.filter(policy=policy).delete()
        history.record_scopes(policy=policy, removed=removed, by=by, at=at or timezone.now(), reason=reason)
        _count_attachments({policy.pk})


def concern(*, policy: Policy, scopes: Collection[Scope], replaced: Collection[int] = ()) -> bool:
    """True if attaching or detaching these scopes may have to wait for approval.

    It may where this policy, one that it replaces, or one whose jobs it gains or loses thereby blocks.
    """
    wide = any(scope.type == ScopeType.ORGANIZATION for scope in scopes)
    return wide or approvals.any_blocks({policy.pk, *replaced, *_behind(policy, scopes)})


def _let_wait(
    policy: Policy,
    *,
    by: Actor,
    add: Collection[str],
    remove: Collection[str],
    taken: Mapping[str, Attachment],
    requested: Mapping[str, Any] | None,
) -> None:
    added, removed = sorted(add), sorted(remove)
    if not added and not removed:
        return
    approvals.guard(
        by=by,
        concerned=concern(
            policy=policy,
            scopes=[Scope.from_key(key) for key in (*added, *removed)],
            replaced={holder.policy_id for holder in taken.values()},
        ),
        change=approvals.of_policy(MODIFY, policy, {"add": added, "remove": removed, "requested": requested}),
    )


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
    locks.keep_rules(policy.organization_id)
    locks.change_attachments(policy.organization_id)
    found = queries.holders(policy.organization, keys)
    _lock_policies({policy.pk, *(holder.policy_id for holder in found.values())}, must_exist=policy)
    return queries.holders(policy.organization, keys)


def _lock_policies(ids: Collection[int], *, must_exist: Policy) -> None:
    locks.keep_rules(must_exist.organization_id)
    rows = Policy.objects.select_for_update().filter(pk__in=ids).order_by("pk")
    if must_exist.pk not in {row.pk for row in rows}:
        raise PolicyGone(f"The policy {must_exist.name} was deleted in the meantime.")


def _refuse_unconfirmed(taken: Mapping[str, Attachment], replacing: Mapping[str, int]) -> None:
    unconfirmed = [
        TakenScope(scope=holder.scope, policy_id=holder.policy_id, policy_name=holder.policy.name)
        for key, holder in sorted(taken.items())
        if replacing.get(key) != holder.policy_id
    ]
    if unconfirmed:
        raise ScopesTaken(unconfirmed)


def _take(taken: Mapping[str, Attachment], *, by: Actor, at: datetime, successor: str) -> None:
    lost: defaultdict[int, list[Attachment]] = defaultdict(list)
    for holder in taken.values():
        lost[holder.policy_id].append(holder)
    for holders in lost.values():
        loser = holders[0].policy
        _delete(loser, [holder.scope_key for holder in holders])
        history.record_scopes(
            policy=loser,
            removed=[holder.scope for holder in holders],
            by=by,
            at=at,
            reason=f"Replaced by {successor}.",
        )


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


def _count_attachments(policy_ids: Collection[int]) -> None:
    counted = (
        Attachment.objects.filter(policy=OuterRef("pk")).order_by().values("policy").annotate(n=Count("pk")).values("n")
    )
    Policy.objects.filter(pk__in=policy_ids).update(attachment_count=Coalesce(Subquery(counted), 0))
