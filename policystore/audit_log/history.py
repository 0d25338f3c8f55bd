"""Writes history events and passes them to integrations. Other actions call it inside their own transaction.

The payload about a policy, for `policy.created`, `.updated`, `.attached`, `.detached` and `.deleted`:

    {"policy": "ci", "policy_id": 7, "version": 2, "egress_policy": "block", "actor": "maria", "actor_kind": "user",
     "at": "2026-01-31T12:00:00Z", "history_event_id": 91, "reason": "",
     "text": "…", "name_before": "", "description": "…",                  created and updated
     "scopes_added": ["organization:octo-org"], "scopes_removed": [],      attached and detached
     "scopes_added_count": 1, "scopes_removed_count": 0}

Lists of scopes end after MAX_SCOPES_IN_PAYLOAD; the counts say how many there were. Other kinds of events have their
specifics under `details`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from policystore.accounts.models import Actor
from policystore.audit_log import event_types, hash_chain
from policystore.audit_log.models import HistoryEvent
from policystore.integrations import outbox
from policystore.inventory.models import Organization
from policystore.policy_language.scopes import Scope

SubjectType = HistoryEvent.SubjectType
MAX_SCOPES_IN_PAYLOAD = 500
MAX_REASON = 500


class Policy(Protocol):
    """The values of a policy that a history event records; the model is in a package above this one."""

    @property
    def pk(self) -> Any: ...
    @property
    def organization(self) -> Organization: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def egress_policy(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def reply(self) -> str: ...
    @property
    def description(self) -> str: ...


def record_content(
    kind: str,
    *,
    policy: Policy,
    by: Actor,
    at: datetime,
    before: Policy | None = None,
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> HistoryEvent:
    """Record that a policy was created (`before` is None), updated or deleted, or that its content changed."""
    gone = kind == event_types.DELETED
    return record_policy(
        kind,
        policy=policy,
        by=by,
        at=at,
        name_before=before.name if before and before.name != policy.name else "",
        text_before=before.text if before else "",
        text_after="" if gone else policy.text,
        reply_after="" if gone else policy.reply,
        description_before=before.description if before else "",
        description_after="" if gone else policy.description,
        reason=reason[:MAX_REASON],
        details=dict(details or {}),
    )


def record_scopes(
    *,
    policy: Policy,
    by: Actor,
    at: datetime,
    added: Iterable[Scope] = (),
    removed: Iterable[Scope] = (),
    reason: str = "",
) -> HistoryEvent:
    """Record the scopes that a policy gained and lost: attached if it gained any, detached if it only lost some."""
    added_keys = sorted(scope.key for scope in added)
    removed_keys = sorted(scope.key for scope in removed)
    return record_policy(
        event_types.ATTACHED if added_keys else event_types.DETACHED,
        policy=policy,
        by=by,
        at=at,
        scopes_added=added_keys,
        scopes_removed=removed_keys,
        reason=reason[:MAX_REASON],
    )


def record_policy(kind: str, *, policy: Policy, by: Actor, at: datetime, **values: Any) -> HistoryEvent:
    """Record any other event of a policy; `values` are more fields of HistoryEvent, such as `details`."""
    return record(
        kind,
        organization=policy.organization,
        subject=(SubjectType.POLICY, policy.pk, policy.name),
        version=policy.version,
        by=by,
        at=at,
        payload={"policy": policy.name, "policy_id": policy.pk, "egress_policy": policy.egress_policy},
        **values,
    )


def organization_subject(organization: Organization) -> tuple[str, int, str]:
    """The subject, for `record`, of an event about the organization as a whole."""
    return (SubjectType.ORGANIZATION, organization.pk, organization.login)


def record(
    kind: str,
    *,
    organization: Organization,
    subject: tuple[str, int, str],
    by: Actor,
    at: datetime,
    version: int = 1,
    payload: Mapping[str, Any] | None = None,
    **values: Any,
) -> HistoryEvent:
    """Write an event about `subject`: its type, id and name. Call it inside the transaction of the change.

    `payload` goes to integrations in addition to the event's own fields; `values` are further fields of HistoryEvent.
    """
    subject_type, subject_id, subject_name = subject
    if by.approved_by:
        values["details"] = {**values.get("details", {}), "approved_by": by.approved_by}
    event = HistoryEvent.objects.create(
        owner=organization.key,
        subject_type=subject_type,
        subject_id=subject_id,
        subject_name=subject_name,
        kind=kind,
        actor=by.name,
        actor_kind=by.kind,
        at=at,
        version=version,
        **values,
    )
    hash_chain.seal_recorded(organization.key)
    integration_event = event_types.of(kind).integration_event
    if integration_event:
        outbox.emit(organization=organization, kind=integration_event, payload=_payload(event, payload or {}), at=at)
    return event


def _payload(event: HistoryEvent, own: Mapping[str, Any]) -> dict[str, Any]:
    payload: dict[str, Any] = {
        **own,
        "version": event.version,
        "actor": event.actor,
        "actor_kind": event.actor_kind,
        "at": event.at,
        "history_event_id": event.pk,
        "reason": event.reason,
    }
    if event.text_after:
        payload |= {"name_before": event.name_before, "description": event.description_after, "text": event.text_after}
    if event.scopes_added or event.scopes_removed:
        payload |= {
            "scopes_added": event.scopes_added[:MAX_SCOPES_IN_PAYLOAD],
            "scopes_removed": event.scopes_removed[:MAX_SCOPES_IN_PAYLOAD],
            "scopes_added_count": len(event.scopes_added),
            "scopes_removed_count": len(event.scopes_removed),
        }
    return payload | ({"details": event.details} if event.details else {})
