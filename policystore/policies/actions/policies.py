"""Creates, updates and deletes policies."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from policystore.accounts.actors import Actor
from policystore.documents.document import PolicyDocument, check, compile_reply
from policystore.inventory.models import Organization
from policystore.policies import event_types
from policystore.policies.actions import attachments, four_eyes, history
from policystore.policies.errors import (
    EditConflict,
    InvalidDescription,
    InvalidDocument,
    InvalidName,
    NameTaken,
    PolicyGone,
)
from policystore.policies.models import Policy
from policystore.policies.versions import Version

UPDATE, DELETE = "policy.update", "policy.delete"
MAX_NAME = 100
MAX_DESCRIPTION = 500
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")


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
    name, description = checked_name(name), checked_description(description)
    document = _checked_document(text, scope_types=())
    now = at or timezone.now()
    policy = Policy(organization=organization, version=1, created_at=now, created_by=by.name)
    _fill(policy, name=name, description=description, document=document, by=by, at=now)
    with transaction.atomic():
        _save(policy, name, force_insert=True)
        history.record_content(event_types.CREATED, policy=policy, by=by, at=now, reason=reason)
    return policy


def update(
    *,
    policy: Policy,
    name: str,
    description: str,
    text: str,
    expected_version: int,
    by: Actor,
    at: datetime | None = None,
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> Policy:
    """Save a new version; saving what is there already changes nothing and leaves no event.

    `reason` and `details` go into the history event.

    Raises EditConflict when `expected_version` is no longer the current one, PolicyGone when the policy was deleted,
    and InvalidName, InvalidDescription, NameTaken or InvalidDocument; NeedsApproval where a second person is wanted.
    """
    name, description = checked_name(name), checked_description(description)
    now = at or timezone.now()
    with transaction.atomic():
        current = locked(policy)
        if current.version != expected_version:
            raise EditConflict(current)
        if (current.name, current.description, current.text) == (name, description, text):
            return current
        before = copy.copy(current)
        asked = {"name": name, "description": description, "text": text, "expected_version": expected_version}
        told = {"reason": reason, "details": dict(details or {})}
        scope_types = set(current.attachments.values_list("scope_type", flat=True).distinct())
        document = _checked_document(text, scope_types=scope_types)
        four_eyes.guard(
            by=by,
            concerned=Policy.Mode.BLOCK in (current.egress_policy, document.egress_policy),
            change=_waiting(UPDATE, current, asked | told, text_before=current.text, text_after=text),
        )
        current.version += 1
        _fill(current, name=name, description=description, document=document, by=by, at=now)
        _save(current, name)
        history.record_content(
            event_types.UPDATED, policy=current, before=before, by=by, at=now, reason=reason, details=details
        )
    return current


def restore(*, version: Version, policy: Policy, expected_version: int, by: Actor, with_name: bool = False) -> Policy:
    """Save the text of an earlier version as a new one; `with_name` also its name and description.

    Raises what `update` raises, which checks the text by today's rules.
    """
    return update(
        policy=policy,
        name=version.name if with_name else policy.name,
        description=version.description if with_name else policy.description,
        text=version.text,
        expected_version=expected_version,
        by=by,
        reason=f"Restores version {version.number}.",
        details={"restores": version.number},
    )


def delete(*, policy: Policy, by: Actor, at: datetime | None = None) -> None:
    """Detach the policy from everything, then delete it; its history stays. Raises PolicyGone and NeedsApproval."""
    now = at or timezone.now()
    with transaction.atomic():
        current = locked(policy)
        held = [attachment.scope for attachment in current.attachments.all()]
        four_eyes.guard(
            by=by,
            concerned=attachments.concern(policy_ids={current.pk}, scopes=held),
            change=_waiting(
                DELETE, current, {}, text_before=current.text, scopes_removed=[scope.key for scope in held]
            ),
        )
        attachments.detach_all(policy=current, by=by, at=now, reason="The policy was deleted.")
        history.record_content(event_types.DELETED, policy=current, before=current, by=by, at=now)
        Policy.objects.filter(pk=current.pk).delete()


def locked(policy: Policy) -> Policy:
    """The policy's row as it is now, locked until the transaction ends. Raises PolicyGone."""
    rows = Policy.objects.select_for_update(of=("self",)).select_related("organization")
    current = rows.filter(pk=policy.pk, organization_id=policy.organization_id).first()
    if current is None:
        raise PolicyGone(f"The policy {policy.name} was deleted in the meantime.")
    return current


def _waiting(verb: str, policy: Policy, payload: Mapping[str, Any], **shown: Any) -> four_eyes.Change:
    subject = (history.SubjectType.POLICY, policy.pk, policy.name)
    return four_eyes.Change(verb, policy.organization, subject, {"policy_id": policy.pk, **payload}, shown)


def _fill(policy: Policy, *, name: str, description: str, document: PolicyDocument, by: Actor, at: datetime) -> None:
    policy.name, policy.name_key = name, name.lower()
    policy.description = description
    policy.text = document.text
    policy.reply = compile_reply(document, owner=policy.organization.key, name=name)
    policy.egress_policy = document.egress_policy
    policy.endpoint_count = len(document.allowed_endpoints)
    policy.search_text = "\n".join([policy.name_key, description.lower(), *document.allowed_endpoints])
    policy.changed_at, policy.changed_by = at, by.name


def _save(policy: Policy, name: str, *, force_insert: bool = False) -> None:
    try:
        with transaction.atomic():
            policy.save(force_insert=force_insert)
    except IntegrityError as error:
        taken = Policy.objects.filter(organization=policy.organization, name_key=name.lower()).exclude(pk=policy.pk)
        if taken.exists():
            raise NameTaken(f"The organization has a policy named {name} already; choose another name.") from error
        raise


def _checked_document(text: str, *, scope_types: set[str] | tuple[()]) -> PolicyDocument:
    checked = check(text, scope_types=scope_types)
    if checked.document is None:
        raise InvalidDocument(checked.problems)
    return checked.document


def checked_name(name: str) -> str:
    """The name without spaces around it. Raises InvalidName."""
    name = name.strip()
    if not name:
        raise InvalidName("Give the policy a name.")
    if len(name) > MAX_NAME:
        raise InvalidName(f"The name has {len(name)} characters; at most {MAX_NAME} fit.")
    if not NAME.fullmatch(name):
        raise InvalidName(
            "The name starts with a letter or digit; after it also spaces, dots, hyphens and underscores may stand."
        )
    # The name is a segment of the management API's addresses, where these are taken or ambiguous.
    if name.lower() in ("workflow-policy", "workflow-check"):
        raise InvalidName(f"The name {name} is reserved; choose another name.")
    return name


def checked_description(description: str) -> str:
    """The description without white space around it. Raises InvalidDescription."""
    description = description.strip()
    if len(description) > MAX_DESCRIPTION:
        raise InvalidDescription(f"The description has {len(description)} characters; at most {MAX_DESCRIPTION} fit.")
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\r\n\t" for character in description):
        raise InvalidDescription("The description has control characters in it; remove them.")
    return description
