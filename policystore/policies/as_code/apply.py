"""Applies a bundle to the store, and marks the policies that are managed as code."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
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
        super().__init__("The store or the folder changed since the plan was made; review the new plan.")
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
    with transaction.atomic():
        organization = inventory.add_organization(login=bundle.organization)
        # No policy can be saved between making the plan and applying it.
        compiler.change_rules(organization.pk)
        plan = as_code.plan(bundle, organization, keep_missing=keep_missing)
        if expected and plan.digest != expected:
            raise PlanChanged(plan)
        applied = _Applied(organization, by, timezone.now(), source.strip()[:MAX_SOURCE])
        applied.allow_again(plan.host_changes)
        for set_change in plan.set_changes:
            applied.write_set(set_change.item)
        for change in plan.changes:
            if change.after:
                applied.write_policy(change.after)
        missing = {change.item.name.lower() for change in plan.changes if change.after is None}
        applied.settle_missing(missing, keep=keep_missing)
        for change in plan.changes:
            applied.write_exceptions(change)
            applied.write_staged(change)
        applied.forbid(plan.host_changes)
        applied.mark(bundle)
    return plan


def release(*, policy: Policy, by: Actor) -> None:
    """Manage a policy by its pages again; does nothing where it is not managed as code. Raises PolicyGone."""
    with transaction.atomic():
        current = policies.locked(policy)
        managed = ManagedPolicy.objects.filter(policy=current).first()
        if managed is not None:
            _release(current, managed.source, by=by, at=timezone.now())


def _release(policy: Policy, source: str, *, by: Actor, at: datetime) -> None:
    ManagedPolicy.objects.filter(policy=policy).delete()
    history.record_policy(event_types.RELEASED, policy=policy, by=by, at=at, details={"source": source})


@dataclass(frozen=True, slots=True)
class _Applied:
    """Writes a plan to the store: for which organization, by whom, when, and from which source."""

    organization: Organization
    by: Actor
    at: datetime
    source: str

    def allow_again(self, changes: Iterable[Change[BundledHost]]) -> None:
        """Take off the list what the bundle no longer has, before policies are written that may list it."""
        for change in changes:
            if change.after is None:
                never_allow.RemoveNeverAllow(entry=self._entry(change)).apply(by=self.by, at=self.at)

    def forbid(self, changes: Iterable[Change[BundledHost]]) -> None:
        """Add new never-allow hosts, after the policies that no longer list them were saved; and update reasons."""
        for change in changes:
            if change.after and change.before:
                entry = self._entry(change)
                never_allow.explain(entry=entry, reason=change.after.reason, by=self.by, at=self.at)
            elif change.after:
                values: dict[str, Any] = {"host": change.after.host, "reason": change.after.reason}
                never_allow.add(organization=self.organization, by=self.by, at=self.at, **values)

    def write_set(self, wanted: BundledSet) -> None:
        """Create or update an endpoint set."""
        values: dict[str, Any] = {"name": wanted.name, "text": wanted.text, "description": wanted.description}
        found = EndpointSet.objects.filter(organization=self.organization, name_key=wanted.name.lower()).first()
        if found is None:
            endpoint_sets.create(organization=self.organization, by=self.by, at=self.at, **values)
            return
        command = endpoint_sets.UpdateEndpointSet(endpoint_set=found, expected_version=found.version, **values)
        command.apply(by=self.by, at=self.at)

    def write_policy(self, wanted: BundledPolicy) -> None:
        """Create or update a policy, and attach it; other policies lose its scopes."""
        reason = f"Applied from {self.source}." if self.source else "Applied from a folder of files."
        values: dict[str, Any] = {
            "name": wanted.name,
            "text": wanted.text,
            "description": wanted.description,
            "reason": reason,
        }
        policy = Policy.objects.filter(organization=self.organization, name_key=wanted.name.lower()).first()
        if policy is None:
            policy = policies.create(organization=self.organization, by=self.by, at=self.at, **values)
        else:
            command = policies.UpdatePolicy(policy=policy, expected_version=policy.version, **values)
            policy = command.apply(by=self.by, at=self.at)
        held = {attachment.scope for attachment in policy.attachments.all()}
        add, remove = set(wanted.scopes) - held, held - set(wanted.scopes)
        modify = attachments.ModifyAttachments(policy=policy, add=sorted(add), remove=remove, replacing=None)
        modify.apply(by=self.by, at=self.at)

    def settle_missing(self, names: Collection[str], *, keep: bool) -> None:
        """Delete the policies that the bundle no longer has, or stop managing them."""
        for policy in [policy for policy in self._policies() if policy.name_key in names] if names else ():
            if keep:
                _release(policy, self.source, by=self.by, at=self.at)
            else:
                policies.DeletePolicy(policy=policy).apply(by=self.by, at=self.at)

    def write_exceptions(self, change: PolicyChange) -> None:
        """End and add what differs. If an exception's owner, reason or end changes, it is ended and added again."""
        removed, added = change.exceptions_removed, change.exceptions_added
        if not removed and not added:
            return
        policy = self._policy(change.item.name)
        endpoints = [one.endpoint for one in removed]
        for row in PolicyException.objects.active(self.at).filter(policy=policy, endpoint__in=endpoints).order_by("pk"):
            row.policy = policy
            exceptions.end(exception=row, by=self.by, at=self.at)
        for one in added:
            values: dict[str, Any] = {"endpoint": one.endpoint, "reason": one.reason, "owner": one.owner}
            command = exceptions.AddException(policy=policy, expires_at=one.until, **values)
            command.apply(by=self.by, at=self.at)

    def write_staged(self, change: PolicyChange) -> None:
        """Stage, discard, or change canaries, as far as it differs."""
        if change.staged is None:
            return
        before, after = change.staged
        policy = self._policy(change.item.name)
        event = StagedVersion.objects.filter(pk=policy.pk).values_list("event_id", flat=True).first()
        if after.is_nothing:
            if event is not None:
                staged.discard(policy=policy, expected_event=event, by=self.by, at=self.at)
            return
        if before.text != after.text or event is None:
            values: dict[str, Any] = {"text": after.text, "live_version": policy.version, "expected_event": event}
            event = staged.StageVersion(policy=policy, **values).apply(by=self.by, at=self.at).event_id
        canaries = staged.SetCanaries(policy=policy, scopes=after.canaries, expected_event=event)
        canaries.apply(by=self.by, at=self.at)

    def mark(self, bundle: Bundle) -> None:
        """Mark the bundle's policies as managed, with what was applied."""
        managed = ManagedPolicy.objects.filter(policy__organization=self.organization)
        known = set(managed.values_list("policy", flat=True))
        rows = {policy.name_key: policy for policy in self._policies()}
        marks = []
        for wanted in bundle.policies:
            policy = rows[wanted.name.lower()]
            if policy.pk not in known:
                details = {"source": self.source}
                history.record_policy(event_types.MANAGED, policy=policy, by=self.by, at=self.at, details=details)
            marks.append(
                ManagedPolicy(
                    policy=policy,
                    source=self.source,
                    applied_at=self.at,
                    applied_by=self.by.name,
                    text=wanted.text,
                    description=wanted.description,
                    scopes=[scope.key for scope in wanted.scopes],
                )
            )
        ManagedPolicy.objects.bulk_create(
            marks,
            update_conflicts=True,
            unique_fields=["policy"],
            update_fields=["source", "applied_at", "applied_by", "text", "description", "scopes"],
            batch_size=500,
        )

    def _policies(self) -> QuerySet[Policy]:
        """Every policy of the organization, without its long texts."""
        rows = Policy.objects.filter(organization=self.organization).select_related("organization")
        return rows.defer(*queries.LONG_TEXTS).order_by("pk")

    def _policy(self, name: str) -> Policy:
        return Policy.objects.select_related("organization").get(organization=self.organization, name_key=name.lower())

    def _entry(self, change: Change[BundledHost]) -> NeverAllowHost:
        rows = NeverAllowHost.objects.select_related("organization")
        return rows.get(organization=self.organization, host=change.item.host)
