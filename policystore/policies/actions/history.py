"""Writes history events, and tells integrations of them; the other actions call it inside their own transaction.

What integrations are told of a policy, under `policy.created`, `.updated`, `.attached`, `.detached` and `.deleted`:

    {"policy": "ci", "policy_id": 7, "version": 2, "egress_policy": "block", "actor": "maria", "actor_kind": "user",
     "at": "2026-01-31T12:00:00Z", "history_event_id": 91, "reason": "",
     "text": "…", "name_before": "", "description": "…",                  created and updated
     "scopes_added": ["organization:octo-org"], "scopes_removed": [],      attached and detached
     "scopes_added_count": 1, "scopes_removed_count": 0}

Lists of scopes end after MAX_SCOPES_TOLD; the counts say how many there were.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from policystore.accounts.actors import Actor
from policystore.documents.scopes import Scope
from policystore.outbox import actions as outbox
from policystore.outbox import events
from policystore.policies.models import HistoryEvent, Policy

Kind = HistoryEvent.Kind
MAX_SCOPES_TOLD = 500
_TOLD_AS = {
    Kind.CREATED: events.POLICY_CREATED,
    Kind.UPDATED: events.POLICY_UPDATED,
    Kind.ATTACHED: events.POLICY_ATTACHED,
    Kind.DETACHED: events.POLICY_DETACHED,
    Kind.DELETED: events.POLICY_DELETED,
}


def record_content(kind: Kind, *, policy: Policy, by: Actor, at: datetime, before: Policy | None = None) -> None:
    """Tell that a policy was created (`before` is None), updated or deleted."""
    _record(
        kind,
        policy=policy,
        by=by,
        at=at,
        name_before=before.name if before and before.name != policy.name else "",
        text_before=before.text if before else "",
        text_after="" if kind == Kind.DELETED else policy.text,
        description_before=before.description if before else "",
        description_after="" if kind == Kind.DELETED else policy.description,
    )


def record_scopes(
    *,
    policy: Policy,
    by: Actor,
    at: datetime,
    added: Iterable[Scope] = (),
    removed: Iterable[Scope] = (),
    reason: str = "",
) -> None:
    """Tell which scopes a policy gained and lost: attached when it gained any, detached when it only lost some."""
    added_keys = sorted(scope.key for scope in added)
    removed_keys = sorted(scope.key for scope in removed)
    _record(
        Kind.ATTACHED if added_keys else Kind.DETACHED,
        policy=policy,
        by=by,
        at=at,
        scopes_added=added_keys,
        scopes_removed=removed_keys,
        reason=reason,
    )


def _record(kind: Kind, *, policy: Policy, by: Actor, at: datetime, **details: object) -> None:
    event = HistoryEvent.objects.create(
        owner=policy.organization.key,
        policy_id=policy.pk,
        policy_name=policy.name,
        kind=kind,
        actor=by.name,
        actor_kind=by.kind,
        at=at,
        version=policy.version,
        **details,
    )
    outbox.tell(organization=policy.organization, kind=_TOLD_AS[kind], payload=_payload(event, policy), at=at)


def _payload(event: HistoryEvent, policy: Policy) -> dict[str, object]:
    told: dict[str, object] = {
        "policy": event.policy_name,
        "policy_id": event.policy_id,
        "version": event.version,
        "egress_policy": policy.egress_policy,
        "actor": event.actor,
        "actor_kind": event.actor_kind,
        "at": event.at,
        "history_event_id": event.pk,
        "reason": event.reason,
    }
    if event.kind in (Kind.CREATED, Kind.UPDATED):
        return told | {
            "name_before": event.name_before,
            "description": event.description_after,
            "text": event.text_after,
        }
    if event.kind == Kind.DELETED:
        return told
    return told | {
        "scopes_added": event.scopes_added[:MAX_SCOPES_TOLD],
        "scopes_removed": event.scopes_removed[:MAX_SCOPES_TOLD],
        "scopes_added_count": len(event.scopes_added),
        "scopes_removed_count": len(event.scopes_removed),
    }
