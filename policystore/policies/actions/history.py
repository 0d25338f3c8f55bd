"""Writes history events; the other actions call it inside their own transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from policystore.accounts.actors import Actor
from policystore.documents.scopes import Scope
from policystore.policies.models import HistoryEvent, Policy

Kind = HistoryEvent.Kind


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
    HistoryEvent.objects.create(
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
