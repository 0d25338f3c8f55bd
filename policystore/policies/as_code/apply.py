"""Applies a bundle to the store, and marks the policies that are managed as code."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization
from policystore.policies import compiler, endpoint_sets, exceptions, never_allow
from policystore.policies import staging as staged
from policystore.policies.as_code import plan as as_code
from policystore.policies.as_code.plan import Change, Plan, PolicyChange
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments, queries
from policystore.policies.models import (
    EndpointSet,
    ManagedPolicy,
    NeverAllowHost,
    Policy,
    PolicyException,
    StagedVersion,
)
from policystore.policy_language.bundle import Bundle, BundledHost, BundledPolicy, BundledSet

MAX_SOURCE = 200


class PlanChanged(Exception):
    """Applying would no longer change what was planned; `plan` is the current plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__("The store or the folder changed since the plan was made; look at the new plan.")
        self.plan = plan


def apply(*, bundle: Bundle, by: Actor, source: str, expected: str = "", keep_missing: bool = False) -> Plan:
    """Make the organization match the bundle in one transaction: its endpoint sets, policies and attachments, and its
    never-allow hosts, exceptions and staged versions as far as the bundle has files for them.

    Returns what it changed. Policies of the bundle are managed as code from then on. A managed policy that the bundle
    no longer has is deleted, or with `keep_missing` stays and is no longer managed. Policies that were never managed
    stay as they are, except that they lose the scopes that the bundle attaches. `source` says where the bundle comes
    from; `expected` is the digest of the plan that was agreed to, if any.

    Raises BrokenBundle, PlanChanged, and PolicyError if the same policies are changed at the same time.
    """
    now, source = timezone.now(), source.strip()[:MAX_SOURCE]
    with transaction.atomic():
        organization = inventory.add_organization(login=bundle.organization)
        # Nobody saves a policy between the plan and what is made of it.
        compiler.change_rules(organization.pk)
        plan = as_code.plan(bundle, organization)
        if expected and plan.digest != expected:
            raise PlanChanged(plan)
        allow_again(organization, plan.host_changes, by=by, at=now)
        for set_change in plan.set_changes:
            _write_set(organization, set_change.item, by=by, at=now)
        for change in plan.changes:
            if change.after:
                _write(organization, change.after, by=by, at=now, source=source)
        missing = {change.item.name.lower() for change in plan.changes if change.after is None}
        _settle_missing(organization, missing, by=by, at=now, source=source, keep=keep_missing)
        for change in plan.changes:
            write_exceptions(organization, change, by=by, at=now)
            write_staged(organization, change, by=by, at=now)
        forbid(organization, plan.host_changes, by=by, at=now)
        _mark(organization, bundle, by=by, at=now, source=source)
    return plan


def release(*, policy: Policy, by: Actor) -> None:
    """Manage a policy by its pages again; does nothing where it is not managed as code. Raises PolicyGone."""
    with transaction.atomic():
        current = policies.locked(policy)
        managed = ManagedPolicy.objects.filter(policy=current).first()
        if managed is not None:
            _release(current, managed.source, by=by, at=timezone.now())


def _write_set(organization: Organization, wanted: BundledSet, *, by: Actor, at: datetime) -> None:
    found = EndpointSet.objects.filter(organization=organization, name_key=wanted.name.lower()).first()
    name, text, description = wanted.name, wanted.text, wanted.description
    if found is None:
        endpoint_sets.create(organization=organization, name=name, text=text, description=description, by=by, at=at)
        return
    endpoint_sets.UpdateEndpointSet(
        endpoint_set=found, name=name, text=text, description=description, expected_version=found.version
    ).apply(by=by, at=at)


def _write(organization: Organization, wanted: BundledPolicy, *, by: Actor, at: datetime, source: str) -> None:
    reason = _reason(source)
    found = Policy.objects.filter(organization=organization, name_key=wanted.name.lower()).first()
    values: dict[str, Any] = {"name": wanted.name, "text": wanted.text, "description": wanted.description}
    if found is None:
        policy = policies.create(organization=organization, by=by, at=at, reason=reason, **values)
    else:
        policy = policies.UpdatePolicy(policy=found, expected_version=found.version, reason=reason, **values).apply(
            by=by, at=at
        )
    held = {attachment.scope for attachment in policy.attachments.all()}
    add, remove = set(wanted.scopes) - held, held - set(wanted.scopes)
    taken = queries.holders(organization, [scope.key for scope in add])
    replacing = {key: holder.policy_id for key, holder in taken.items()}
    attachments.ModifyAttachments(policy=policy, add=sorted(add), remove=remove, replacing=replacing).apply(
        by=by, at=at
    )


def _settle_missing(
    organization: Organization, names: Collection[str], *, by: Actor, at: datetime, source: str, keep: bool
) -> None:
    if not names:
        return
    for policy in [policy for policy in _policies(organization) if policy.name_key in names]:
        if keep:
            _release(policy, source, by=by, at=at)
        else:
            policies.DeletePolicy(policy=policy).apply(by=by, at=at)


def _release(policy: Policy, source: str, *, by: Actor, at: datetime) -> None:
    ManagedPolicy.objects.filter(policy=policy).delete()
    history.record_policy(event_types.RELEASED, policy=policy, by=by, at=at, details={"source": source})


def _mark(organization: Organization, bundle: Bundle, *, by: Actor, at: datetime, source: str) -> None:
    known = {managed.policy_id: managed for managed in ManagedPolicy.objects.filter(policy__organization=organization)}
    rows = {policy.name_key: policy for policy in _policies(organization)}
    for wanted in bundle.policies:
        policy = rows[wanted.name.lower()]
        if policy.pk not in known:
            history.record_policy(event_types.MANAGED, policy=policy, by=by, at=at, details={"source": source})
    ManagedPolicy.objects.bulk_create(
        [
            ManagedPolicy(
                policy_id=rows[wanted.name.lower()].pk,
                source=source,
                applied_at=at,
                applied_by=by.name,
                text=wanted.text,
                description=wanted.description,
                scopes=[scope.key for scope in wanted.scopes],
            )
            for wanted in bundle.policies
        ],
        update_conflicts=True,
        unique_fields=["policy"],
        update_fields=["source", "applied_at", "applied_by", "text", "description", "scopes"],
        batch_size=500,
    )


def _policies(organization: Organization) -> QuerySet[Policy]:
    """Every policy of the organization, without its long texts."""
    rows = Policy.objects.filter(organization=organization).select_related("organization")
    return rows.defer(*queries.LONG_TEXTS).order_by("pk")


def _reason(source: str) -> str:
    return f"Applied from {source}." if source else "Applied from a folder of files."


def allow_again(organization: Organization, changes: Iterable[Change[BundledHost]], *, by: Actor, at: datetime) -> None:
    """Take off the list what the bundle no longer has, before policies are written that may list it."""
    for change in changes:
        if change.after is None:
            never_allow.RemoveNeverAllow(entry=_entry(organization, change)).apply(by=by, at=at)


def forbid(organization: Organization, changes: Iterable[Change[BundledHost]], *, by: Actor, at: datetime) -> None:
    """Add new never-allow hosts, after the policies that no longer list them were saved; and update reasons."""
    for change in changes:
        if change.after and change.before:
            never_allow.explain(entry=_entry(organization, change), reason=change.after.reason, by=by, at=at)
        elif change.after:
            host, reason = change.after.host, change.after.reason
            never_allow.add(organization=organization, host=host, reason=reason, by=by, at=at)


def write_exceptions(organization: Organization, change: PolicyChange, *, by: Actor, at: datetime) -> None:
    """End and add what differs. If an exception's owner, reason or end changes, it is ended and added again."""
    removed, added = change.exceptions_removed, change.exceptions_added
    if not removed and not added:
        return
    policy = _policy(organization, change.item.name)
    endpoints = [one.endpoint for one in removed]
    for row in PolicyException.objects.active(at).filter(policy=policy, endpoint__in=endpoints).order_by("pk"):
        row.policy = policy
        exceptions.end(exception=row, by=by, at=at)
    for one in added:
        command = exceptions.AddException(
            policy=policy, endpoint=one.endpoint, reason=one.reason, expires_at=one.until, owner=one.owner
        )
        command.apply(by=by, at=at)


def write_staged(organization: Organization, change: PolicyChange, *, by: Actor, at: datetime) -> None:
    """Stage, discard, or change canaries, as far as it differs."""
    if change.staged is None:
        return
    before, after = change.staged
    policy = _policy(organization, change.item.name)
    current = StagedVersion.objects.filter(pk=policy.pk).first()
    event = current.event_id if current else None
    if after.is_nothing:
        if event is not None:
            staged.discard(policy=policy, expected_event=event, by=by, at=at)
        return
    if before.text != after.text or event is None:
        version = policy.version
        made = staged.StageVersion(policy=policy, text=after.text, live_version=version, expected_event=event).apply(
            by=by, at=at
        )
        event = made.event_id
    staged.SetCanaries(policy=policy, scopes=after.canaries, expected_event=event).apply(by=by, at=at)


def _policy(organization: Organization, name: str) -> Policy:
    return Policy.objects.select_related("organization").get(organization=organization, name_key=name.lower())


def _entry(organization: Organization, change: Change[BundledHost]) -> NeverAllowHost:
    rows = NeverAllowHost.objects.select_related("organization")
    return rows.get(organization=organization, host=change.item.host)
