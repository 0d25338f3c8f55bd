"""Compiles and stores staged versions: what the actions on them, and on what they include, have in common."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db.models import QuerySet

from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.compiler import Rules
from policystore.policies.errors import CannotRecompile
from policystore.policies.models import Policy, StagedVersion
from policystore.policy_language.document import PolicyDocument, check

COMPILED = ("reply", "egress_policy", "endpoint_count")


def compiled(staged: StagedVersion, *, document: PolicyDocument, with_rules: Rules) -> None:
    """Set what is compiled of a staged version, as a policy of that text would have it. Raises CannotRecompile where
    that would list too many endpoints."""
    policy = staged.policy
    likeness = Policy(organization=policy.organization, name=policy.name, description=policy.description)
    compiler.fill(likeness, document=document, with_rules=with_rules)
    compiler.refuse_too_many(f"staged version of {policy.name}", likeness.endpoint_count)
    staged.reply, staged.egress_policy = likeness.reply, likeness.egress_policy
    staged.endpoint_count = likeness.endpoint_count


def recompile(staged: StagedVersion, *, as_stored: bool = False) -> bool:
    """Compile a stored one after what it is compiled with has changed, unsaved; whether its reply became another.

    Raises CannotRecompile, except where `as_stored` leaves one that cannot be compiled as it is, without what is never
    allowed.
    """
    return bool(recompile_all(staged.policy.organization, [staged], as_stored=as_stored))


def recompile_all(
    organization: Organization, staged: Iterable[StagedVersion], *, as_stored: bool = False
) -> list[StagedVersion]:
    """Compile several of the organization, as `recompile` does; gives those whose reply became another, for `save`."""
    documents = [(one, check(one.text).document) for one in staged]
    if not documents:
        return []
    with_rules = compiler.for_documents(organization, [document for _, document in documents])
    return [one for one, document in documents if _recompile(one, document, with_rules, as_stored=as_stored)]


def _recompile(staged: StagedVersion, document: PolicyDocument | None, with_rules: Rules, *, as_stored: bool) -> bool:
    before, policy = staged.reply, staged.policy
    try:
        document = compiler.readable(f"staged version of {policy.name}", document, with_rules)
        compiled(staged, document=document, with_rules=with_rules)
    except CannotRecompile:
        if not as_stored:
            raise
        compiler.leave_as_stored(staged, with_rules.never_allow, name=policy.name)
    return staged.reply != before


def follow_rules(organization: Organization, *, by: Actor, at: datetime, reason: str) -> None:
    """Recompile the organization's staged versions after what they are compiled with has changed, in the transaction
    of that; each whose reply became another gets a history event. One that cannot be compiled only loses what is never
    allowed."""
    for staged in recompile_all(organization, _staged_in(organization), as_stored=True):
        save(staged, text_before=staged.text, by=by, at=at, reason=reason)


def _staged_in(organization: Organization) -> QuerySet[StagedVersion]:
    rows = StagedVersion.objects.filter(policy__organization=organization).select_related("policy__organization")
    return rows.prefetch_related("canaries").order_by("pk")


def blocks_canaries(staged: StagedVersion) -> bool:
    """True if it blocks and has canary scopes."""
    return staged.egress_policy == Policy.Mode.BLOCK and staged.canaries.exists()


def follow_name(policy: Policy) -> None:
    """Let the reply of a staged version have its policy's new name, also where its text cannot be read. Call it in the
    transaction of the rename."""
    staged = StagedVersion.objects.select_related("policy__organization").filter(pk=policy.pk).first()
    if staged is not None and recompile(staged, as_stored=True):
        staged.save(update_fields=COMPILED)


def save(staged: StagedVersion, *, text_before: str, by: Actor, at: datetime, reason: str = "") -> HistoryEvent:
    """Store a staged version that was saved or recompiled, with its history event; counts restart from here."""
    event = history.record_policy(
        event_types.STAGED,
        policy=staged.policy,
        by=by,
        at=at,
        reason=reason,
        # Not in the columns for texts, which describe the live version.
        details={
            "text_before": text_before,
            "text_after": staged.text,
            "reply": staged.reply,
            "based_on": staged.based_on_version,
            "canaries": [canary.scope_key for canary in staged.canaries.all()],
        },
    )
    staged.event_id, staged.staged_at, staged.staged_by = event.pk, at, by.name
    staged.save()
    return event
