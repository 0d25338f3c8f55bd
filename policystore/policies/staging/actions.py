"""Stages a version of a policy beside the live one, gives it canaries, promotes it or discards it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from policystore.accounts.actor import Actor
from policystore.audit_log import event_types, history
from policystore.policies.approvals import rules as approvals
from policystore.policies.compile import context as compile_context
from policystore.policies.core import actions as policies
from policystore.policies.errors import EditConflict, InvalidDocument, ScopeNotCovered, StagedConflict, StagedGone
from policystore.policies.models import Attachment, CanaryScope, Policy, StagedVersion
from policystore.policies.staging import recompile as staging
from policystore.policy_language.scopes import Scope, ScopeType, overlap

STAGE, CANARIES, PROMOTE = "staged.stage", "staged.canaries", "staged.promote"
MAX_CANARIES = 200


def stage(
    *,
    policy: Policy,
    text: str,
    live_version: int,
    expected_event: int | None,
    by: Actor,
    at: datetime | None = None,
) -> StagedVersion:
    """Stage this text, or put it in place of what is staged; canaries stay. The same again changes nothing.

    `live_version` is the policy's version that the author had before them, `expected_event` the event of the staged
    version that they saw, or None. Raises InvalidDocument, StagedConflict if another version was staged meanwhile,
    EditConflict when the policy was edited after `live_version`, PolicyGone, and NeedsApproval where canaries would get
    it and a second person is wanted.
    """
    now = at or timezone.now()
    with transaction.atomic():
        current = policies.locked(policy)
        staged = StagedVersion.objects.filter(pk=current.pk).first()
        if (staged.event_id if staged else None) != expected_event:
            raise StagedConflict(staged)
        if current.version != live_version and policies.was_edited(current, since=live_version):
            raise EditConflict(current)
        if staged and (staged.text, staged.based_on_version) == (text, current.version):
            return staged
        text_before, mode_before = (staged.text, staged.egress_policy) if staged else (current.text, "")
        staged = staged or StagedVersion(pk=current.pk)
        staged.policy, staged.text, staged.based_on_version = current, text, current.version
        _compile(staged)
        asked = {"text": text, "live_version": live_version, "expected_event": expected_event}
        approvals.guard(
            by=by,
            concerned=staged.canaries.exists() and Policy.Mode.BLOCK in (mode_before, staged.egress_policy),
            change=approvals.of_policy(STAGE, current, asked),
        )
        staging.save(staged, text_before=text_before, by=by, at=now)
    return staged


def set_canaries(
    *, policy: Policy, scopes: Collection[Scope], expected_event: int, by: Actor, at: datetime | None = None
) -> StagedVersion:
    """Let jobs in these scopes, and no others, get the staged version, as far as they get the policy at all.

    Raises ScopeNotCovered for scopes none of whose jobs can get the policy, StagedConflict, StagedGone, PolicyGone, and
    NeedsApproval where a second person is wanted.
    """
    now = at or timezone.now()
    wanted = {scope.key: scope for scope in scopes}
    with transaction.atomic():
        current, staged = _locked(policy, expected_event)
        held = set(staged.canaries.values_list("scope_key", flat=True))
        added, removed = sorted(wanted.keys() - held), sorted(held - wanted.keys())
        if not added and not removed:
            return staged
        _refuse_uncovered(current, [wanted[key] for key in added], total=len(wanted))
        wide = any(Scope.from_key(key).type == ScopeType.ORGANIZATION for key in (*added, *removed))
        asked = {"scopes": sorted(wanted), "expected_event": expected_event}
        approvals.guard(
            by=by,
            concerned=wide or Policy.Mode.BLOCK in (current.egress_policy, staged.egress_policy),
            change=approvals.of_policy(CANARIES, current, asked),
        )
        staged.canaries.filter(scope_key__in=removed).delete()
        CanaryScope.objects.bulk_create(CanaryScope(staged=staged, scope_key=key) for key in added)
        history.record_policy(
            event_types.CANARIES_CHANGED, policy=current, by=by, at=now, scopes_added=added, scopes_removed=removed
        )
    return staged


def promote(*, policy: Policy, expected_event: int, by: Actor, at: datetime | None = None) -> Policy:
    """Make the staged version the live one; canaries end with it.

    Raises EditConflict when the policy was edited after what is staged was based on it, StagedConflict, StagedGone,
    PolicyGone, and NeedsApproval where a second person is wanted.
    """
    now = at or timezone.now()
    with transaction.atomic():
        current, staged = _locked(policy, expected_event)
        if has_moved_on(current, staged):
            raise EditConflict(current)
        approvals.guard(
            by=by,
            concerned=Policy.Mode.BLOCK in (current.egress_policy, staged.egress_policy),
            change=approvals.of_policy(PROMOTE, current, {"expected_event": expected_event}),
        )
        if current.text == staged.text:
            _end(current, staged, by=by, at=now, reason="The live version says the same.")
            return current
        staged.delete()
        return policies.update(
            policy=current,
            name=current.name,
            description=current.description,
            text=staged.text,
            expected_version=current.version,
            by=by,
            at=now,
            reason="Promotes the staged version.",
            details={"promotes": expected_event},
        )


def discard(*, policy: Policy, expected_event: int, by: Actor, at: datetime | None = None) -> None:
    """Drop the staged version; canaries get the live one again. Raises StagedConflict, StagedGone and PolicyGone.

    It waits for nobody: what is live was agreed upon.
    """
    with transaction.atomic():
        current, staged = _locked(policy, expected_event)
        _end(current, staged, by=by, at=at or timezone.now())


def covered(policy: Policy, scopes: Collection[Scope]) -> list[Scope]:
    """Those of the scopes that share jobs with an attachment of the policy."""
    attached = [attachment.scope for attachment in Attachment.objects.filter(policy=policy)] if scopes else []
    return [scope for scope in scopes if any(overlap(scope, held) for held in attached)]


def has_moved_on(policy: Policy, staged: StagedVersion) -> bool:
    """Whether the policy was edited after what is staged was based on it."""
    return policy.version != staged.based_on_version and policies.was_edited(policy, since=staged.based_on_version)


def _refuse_uncovered(policy: Policy, scopes: Collection[Scope], *, total: int) -> None:
    if total > MAX_CANARIES:
        raise ScopeNotCovered(f"A staged version has {MAX_CANARIES} canary scopes at most; choose wider ones.")
    within = covered(policy, scopes)
    for scope in scopes:
        if scope not in within:
            raise ScopeNotCovered(f"No job of {scope.label} gets {policy.name}: attach the policy there first.")


def _locked(policy: Policy, expected_event: int) -> tuple[Policy, StagedVersion]:
    current = policies.locked(policy)
    staged = StagedVersion.objects.filter(pk=current.pk).first()
    if staged is None:
        raise StagedGone("There is no staged version any more.")
    staged.policy = current
    if staged.event_id != expected_event:
        raise StagedConflict(staged)
    return current, staged


def _compile(staged: StagedVersion) -> None:
    policy = staged.policy
    with_rules = compile_context.for_text(policy.organization, staged.text)
    held = policy.attachments.order_by().values_list("scope_type", flat=True).distinct()
    checked = with_rules.check(staged.text, scope_types=set(held))
    if checked.document is None:
        raise InvalidDocument(checked.problems)
    staging.compiled(staged, document=checked.document, with_rules=with_rules)


def _end(policy: Policy, staged: StagedVersion, *, by: Actor, at: datetime, reason: str = "") -> None:
    canaries = list(staged.canaries.values_list("scope_key", flat=True))
    details = {"text_before": staged.text, "text_after": policy.text, "canaries": canaries}
    history.record_policy(event_types.STAGED_DISCARDED, policy=policy, by=by, at=at, reason=reason, details=details)
    staged.delete()
