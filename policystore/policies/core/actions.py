"""Creates, updates and deletes policies."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.approvals.commands import PolicyCommand, Prepared
from policystore.policies.compiler import Rules
from policystore.policies.core import attachments, name_validation
from policystore.policies.core.versions import Version
from policystore.policies.errors import EditConflict, PolicyGone
from policystore.policies.models import Policy
from policystore.policy_language.document import PolicyDocument


def create(
    *,
    organization: Organization,
    name: str,
    text: str,
    by: Actor,
    description: str = "",
    at: datetime | None = None,
    reason: str = "",
) -> Policy:
    """Create a policy that is not attached yet.

    Raises InvalidName, InvalidDescription, NameTaken or InvalidDocument.
    """
    now = at or timezone.now()
    policy = Policy(organization=organization, version=1, created_at=now, created_by=by.name)
    policy.name, policy.description = name_validation.policy_name(name), name_validation.description(description)
    policy.text = text
    with transaction.atomic():
        compiler.keep_rules(organization.pk)
        document, with_rules = compiler.checked(policy, text)
        _save(policy, document, with_rules, by=by, at=now, force_insert=True)
        history.record_content(event_types.CREATED, policy=policy, by=by, at=now, reason=reason)
    return policy


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePolicy(PolicyCommand[Policy]):
    """Save a new version. Saving the current text again changes nothing and leaves no event, unless it compiles to
    another reply than the stored one.

    `reason` and `details` go into the history event. `apply` raises EditConflict if the policy was edited
    after `expected_version`, PolicyGone if it was deleted, and InvalidName, InvalidDescription, NameTaken or
    InvalidDocument.
    """

    verb: ClassVar = "policy.update"
    label: ClassVar = "Update policy"

    name: str
    description: str
    text: str
    expected_version: int
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[Policy]:
        """Compile the text. It needs approval if the policy blocks, before or after."""
        name, description = name_validation.policy_name(self.name), name_validation.description(self.description)
        current = locked(self.policy)
        if current.version != self.expected_version and was_edited(current, since=self.expected_version):
            raise EditConflict(current)
        before = copy.copy(current)
        change = self.change(current, name=name, description=description, details=dict(self.details))
        same = (current.name, current.description, current.text) == (name, description, self.text)
        if same and not _is_stale(current):
            return Prepared(change, False, lambda: current)
        document, with_rules = compiler.checked(current, self.text)
        blocks = Policy.Mode.BLOCK in (current.egress_policy, document.egress_policy)
        current.name, current.description, current.text = name, description, self.text
        current.version += 1

        def write() -> Policy:
            _save(current, document, with_rules, by=by, at=at)
            history.record_content(
                event_types.UPDATED,
                policy=current,
                before=before,
                by=by,
                at=at,
                reason=self.reason,
                details=self.details,
            )
            if current.name != before.name:
                compiler.follow_name(current)
            return current

        return Prepared(change, blocks, write)


def restore(*, version: Version, policy: Policy, expected_version: int, by: Actor, with_name: bool = False) -> Policy:
    """Save the text of an earlier version as a new one; `with_name` also its name and description.

    Raises what UpdatePolicy raises, which checks the text by today's rules.
    """
    return UpdatePolicy(
        policy=policy,
        name=version.name if with_name else policy.name,
        description=version.description if with_name else policy.description,
        text=version.text,
        expected_version=expected_version,
        reason=f"Restores version {version.number}.",
        details={"restores": version.number},
    ).apply(by=by)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePolicy(PolicyCommand[None]):
    """Detach the policy from everything, then delete it; its history stays. `apply` raises PolicyGone."""

    verb: ClassVar = "policy.delete"
    label: ClassVar = "Delete policy"
    permission: ClassVar = "policies.delete_policy"

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[None]:
        """Lock the policy. It needs approval if the policy blocks, or if detaching it does."""
        current = locked(self.policy)
        attached = [attachment.scope for attachment in current.attachments.all()]

        def write() -> None:
            attachments.remove_all(policy=current, by=by, at=at, reason="The policy was deleted.")
            history.record_content(event_types.DELETED, policy=current, before=current, by=by, at=at)
            Policy.objects.filter(pk=current.pk).delete()

        concerned = attachments.needs_approval(policy=current, scopes=attached)
        return Prepared(self.change(current), concerned, write)


def locked(policy: Policy) -> Policy:
    """The policy's row as it is now, locked until the transaction ends. Raises PolicyGone."""
    compiler.keep_rules(policy.organization_id)
    rows = Policy.objects.select_for_update(of=("self",)).select_related("organization")
    current = rows.filter(pk=policy.pk, organization_id=policy.organization_id).first()
    if current is None:
        raise PolicyGone(f"The policy {policy.name} was deleted in the meantime.")
    return current


def was_edited(current: Policy, *, since: int) -> bool:
    """True if a person edited the policy after this version; recompiling a set that it includes makes versions, too."""
    events = HistoryEvent.objects.filter(
        owner=current.organization.key,
        subject_type=HistoryEvent.SubjectType.POLICY,
        subject_id=current.pk,
        version__gt=since,
    )
    same = Q(text_before=F("text_after"), description_before=F("description_after"), name_before="")
    return since > current.version or events.exclude(same).exists()


def _is_stale(policy: Policy) -> bool:
    """True if the stored reply is not what the stored text compiles to, for example after a direct database edit."""
    with_rules = compiler.for_text(policy.organization, policy.text)
    document = with_rules.check(policy.text).document
    if document is None:
        return False
    fresh = copy.copy(policy)
    compiler.fill(fresh, document=document, with_rules=with_rules)
    return fresh.reply != policy.reply


def _save(
    policy: Policy,
    document: PolicyDocument,
    with_rules: Rules,
    *,
    by: Actor,
    at: datetime,
    force_insert: bool = False,
) -> None:
    policy.changed_at, policy.changed_by = at, by.name
    compiler.fill(policy, document=document, with_rules=with_rules)
    name_validation.save_named(policy, force_insert=force_insert)
    compiler.keep_uses(policy, document.endpoint_sets)
