"""Stages a version of a policy beside the live one, gives it canaries, promotes it or discards it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from django.db import transaction
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.approvals.commands import PolicyCommand, Prepared, policy_of
from policystore.policies.core import actions as policies
from policystore.policies.errors import EditConflict, ScopeNotCovered, StagedConflict, StagedGone
from policystore.policies.models import Attachment, CanaryScope, Policy, StagedVersion
from policystore.policy_language.scopes import Scope, ScopeType, overlap

MAX_CANARIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StageVersion(PolicyCommand[StagedVersion]):
    """Stage this text, or put it in place of what is staged; canaries stay. The same again changes nothing.

    `live_version` is the policy's version that the author saw, `expected_event` the event of the staged version that
    they saw, or None. `apply` raises InvalidDocument, StagedConflict if another version was staged
    meanwhile, EditConflict if the policy was edited after `live_version`, and PolicyGone.
    """

    verb: ClassVar = "staged.stage"
    label: ClassVar = "Stage another version for canaries"

    text: str
    live_version: int
    expected_event: int | None

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[StagedVersion]:
        """Compile the text. It needs approval if canaries get it and it blocks, or what is staged does."""
        current = policies.locked(self.policy)
        staged = StagedVersion.objects.filter(pk=current.pk).first()
        if (staged.event_id if staged else None) != self.expected_event:
            raise StagedConflict(staged)
        if current.version != self.live_version and policies.was_edited(current, since=self.live_version):
            raise EditConflict(current)
        change = self.change(current)
        if staged and (staged.text, staged.based_on_version) == (self.text, current.version):
            return Prepared(change, False, partial(_unchanged, staged))
        text_before, mode_before = (staged.text, staged.egress_policy) if staged else (current.text, "")
        fresh = staged or StagedVersion(pk=current.pk)
        fresh.policy, fresh.text, fresh.based_on_version = current, self.text, current.version
        document, with_rules = compiler.checked(current, self.text)
        compiler.compile_staged(fresh, document=document, with_rules=with_rules)
        blocks = fresh.canaries.exists() and Policy.Mode.BLOCK in (mode_before, fresh.egress_policy)

        def write() -> StagedVersion:
            compiler.save_staged(fresh, text_before=text_before, by=by, at=at)
            return fresh

        return Prepared(change, blocks, write)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCanaries(PolicyCommand[StagedVersion]):
    """Let jobs in these scopes, and no others, get the staged version, provided that they get the policy at all.

    `apply` raises ScopeNotCovered for scopes none of whose jobs can get the policy, StagedConflict,
    StagedGone and PolicyGone.
    """

    verb: ClassVar = "staged.canaries"
    label: ClassVar = "Change canary scopes"

    scopes: Collection[Scope]
    expected_event: int

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> SetCanaries:
        """Restore the command. Raises PolicyGone."""
        scopes = [Scope.from_key(key) for key in payload["scopes"]]
        policy = policy_of(organization, payload)
        return cls(policy=policy, scopes=scopes, expected_event=payload["expected_event"])

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[StagedVersion]:
        """Compare the scopes. A change needs approval if a version blocks, or if it is organization-wide."""
        current, staged = _locked(self.policy, self.expected_event)
        requested = {scope.key: scope for scope in self.scopes}
        held = set(staged.canaries.values_list("scope_key", flat=True))
        added, removed = sorted(requested.keys() - held), sorted(held - requested.keys())
        change = self.change(current, scopes=sorted(requested))
        if not added and not removed:
            return Prepared(change, False, partial(_unchanged, staged))
        _refuse_uncovered(current, [requested[key] for key in added], total=len(requested))
        wide = any(Scope.from_key(key).type == ScopeType.ORGANIZATION for key in (*added, *removed))
        blocks = Policy.Mode.BLOCK in (current.egress_policy, staged.egress_policy)

        def write() -> StagedVersion:
            staged.canaries.filter(scope_key__in=removed).delete()
            CanaryScope.objects.bulk_create(CanaryScope(staged=staged, scope_key=key) for key in added)
            history.record_policy(
                event_types.CANARIES_CHANGED, policy=current, by=by, at=at, scopes_added=added, scopes_removed=removed
            )
            return staged

        return Prepared(change, wide or blocks, write)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteStaged(PolicyCommand[Policy]):
    """Make the staged version the live one; canaries end with it.

    `apply` raises EditConflict if the policy was edited after the staged version was based on it,
    StagedConflict, StagedGone and PolicyGone.
    """

    verb: ClassVar = "staged.promote"
    label: ClassVar = "Promote the staged version"

    expected_event: int

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[Policy]:
        """Check that nothing changed meanwhile. It needs approval if either version blocks."""
        current, staged = _locked(self.policy, self.expected_event)
        if has_moved_on(current, staged):
            raise EditConflict(current)
        blocks = Policy.Mode.BLOCK in (current.egress_policy, staged.egress_policy)
        return Prepared(self.change(current), blocks, partial(self._write, current, staged, by=by, at=at))

    def _write(self, current: Policy, staged: StagedVersion, *, by: Actor, at: datetime) -> Policy:
        if current.text == staged.text:
            _end(current, staged, by=by, at=at, reason="The live version says the same.")
            return current
        text = staged.text
        staged.delete()
        return policies.UpdatePolicy(
            policy=current,
            name=current.name,
            description=current.description,
            text=text,
            expected_version=current.version,
            reason="Promotes the staged version.",
            details={"promotes": self.expected_event},
        ).apply(by=by, at=at)


def discard(*, policy: Policy, expected_event: int, by: Actor, at: datetime | None = None) -> None:
    """Delete the staged version; canaries get the live one again. Raises StagedConflict, StagedGone and PolicyGone.

    It never waits for approval, because the live version was approved.
    """
    with transaction.atomic():
        current, staged = _locked(policy, expected_event)
        _end(current, staged, by=by, at=at or timezone.now())


def covered(policy: Policy, scopes: Collection[Scope]) -> list[Scope]:
    """The scopes that share jobs with an attachment of the policy."""
    attached = [attachment.scope for attachment in Attachment.objects.filter(policy=policy)] if scopes else []
    return [scope for scope in scopes if any(overlap(scope, held) for held in attached)]


def has_moved_on(policy: Policy, staged: StagedVersion) -> bool:
    """True if the policy was edited after the staged version was based on it."""
    return policy.version != staged.based_on_version and policies.was_edited(policy, since=staged.based_on_version)


def _refuse_uncovered(policy: Policy, scopes: Collection[Scope], *, total: int) -> None:
    if total > MAX_CANARIES:
        raise ScopeNotCovered(f"A staged version can have at most {MAX_CANARIES} canary scopes. Choose wider scopes.")
    within = covered(policy, scopes)
    for scope in scopes:
        if scope not in within:
            raise ScopeNotCovered(f"No job of {scope.label} gets {policy.name}: attach the policy there first.")


def _locked(policy: Policy, expected_event: int) -> tuple[Policy, StagedVersion]:
    current = policies.locked(policy)
    staged = StagedVersion.objects.filter(pk=current.pk).first()
    if staged is None:
        raise StagedGone("The staged version no longer exists.")
    staged.policy = current
    if staged.event_id != expected_event:
        raise StagedConflict(staged)
    return current, staged


def _unchanged(staged: StagedVersion) -> StagedVersion:
    return staged


def _end(policy: Policy, staged: StagedVersion, *, by: Actor, at: datetime, reason: str = "") -> None:
    canaries = list(staged.canaries.values_list("scope_key", flat=True))
    details = {"text_before": staged.text, "text_after": policy.text, "canaries": canaries}
    history.record_policy(event_types.STAGED_DISCARDED, policy=policy, by=by, at=at, reason=reason, details=details)
    staged.delete()
