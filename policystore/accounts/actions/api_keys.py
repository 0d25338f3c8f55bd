"""Makes, replaces and revokes API keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from policystore.accounts import keys
from policystore.accounts.actions import events
from policystore.accounts.actors import Actor
from policystore.accounts.models import ApiKey, KeyKind, KeySlot
from policystore.inventory.models import Organization


def regenerate(*, organization: Organization, kind: KeyKind, slot: KeySlot, by: Actor) -> str:
    """Put a new key into a slot and return it; the one that was there stops working at once, its pair goes on."""
    fresh = keys.new_key(kind)
    with transaction.atomic():
        # Two people who regenerate at once take turns, so that the slot never holds two keys.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        live = ApiKey.objects.filter(organization=organization, kind=kind, slot=slot, revoked_at__isnull=True)
        replaced = list(live.values_list("pk", flat=True))
        live.update(revoked_at=timezone.now(), revoked_by=by.name)
        key = ApiKey.objects.create(
            organization=organization,
            kind=kind,
            slot=slot,
            hint=fresh.hint,
            digest=fresh.digest,
            created_by=by.name,
            created_by_user=by.user_id,
        )
        subject = f"{KeyKind(kind).label}: {KeySlot(slot).label}"
        events.record(
            organization,
            "key regenerated" if replaced else "key created",
            by=by,
            subject=subject,
            detail=fresh.hint,
            details={"api_key": _recorded(key), "revoked": replaced},
        )
    return fresh.clear


class KeyNameTaken(ValueError):
    """A live management key has this name already, so the history could not tell the two apart."""


def create_management(*, organization: Organization, name: str, by: Actor) -> str:
    """Make a management key that names the person or system it is for, and return it. Raises KeyNameTaken."""
    fresh = keys.new_key(KeyKind.MANAGEMENT)
    with transaction.atomic():
        # Two owners who choose one name at once take turns.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        live = ApiKey.objects.filter(organization=organization, kind=KeyKind.MANAGEMENT, revoked_at__isnull=True)
        if live.filter(name__iexact=name).exists():
            raise KeyNameTaken(f"A key named {name} exists already; choose another name or revoke that one.")
        key = ApiKey.objects.create(
            organization=organization,
            kind=KeyKind.MANAGEMENT,
            name=name,
            hint=fresh.hint,
            digest=fresh.digest,
            created_by=by.name,
            created_by_user=by.user_id,
        )
        events.record(
            organization,
            "key created",
            by=by,
            subject=f"Management: {name}",
            detail=fresh.hint,
            details={"api_key": _recorded(key)},
        )
    return fresh.clear


def revoke(*, key: ApiKey, by: Actor) -> None:
    """Stop a key from working; revoking it twice changes nothing."""
    with transaction.atomic():
        live = ApiKey.objects.filter(pk=key.pk, revoked_at__isnull=True)
        if live.update(revoked_at=timezone.now(), revoked_by=by.name):
            subject = f"{key.get_kind_display()}: {key.name or key.get_slot_display()}"
            events.record(
                key.organization, "key revoked", by=by, subject=subject, detail=key.hint, details={"revoked": [key.pk]}
            )


def _recorded(key: ApiKey) -> dict[str, object]:
    """What the integrity check compares of a live key. The digest is keyed, so it gives nothing away."""
    return {"id": key.pk, "kind": key.kind, "slot": key.slot, "name": key.name, "digest": key.digest}


def mark_used(*, used: Mapping[int, datetime]) -> None:
    """Note when keys were last used (by key id); never moves a time backwards."""
    for key_id, at in sorted(used.items()):
        earlier = Q(last_used_at__isnull=True) | Q(last_used_at__lt=at)
        ApiKey.objects.filter(earlier, pk=key_id).update(last_used_at=at)


# `mark_used`, to the second, for a statement of PostgreSQL's that has the uses in a relation `fetches` of `key_id` and
# `at`. Of a row that is written all the time, each fetch has many versions to pass. It locks keys in the same order.
USED_IN_RELATION = """
UPDATE accounts_apikey AS k SET last_used_at = u.at
FROM (
    SELECT a.id, f.at FROM (SELECT key_id, MAX(at) AS at FROM fetches GROUP BY key_id) AS f
    JOIN accounts_apikey AS a ON a.id = f.key_id
    WHERE (a.last_used_at IS NULL OR a.last_used_at < f.at - interval '1 second') AND {condition}
    ORDER BY a.id FOR NO KEY UPDATE OF a
) AS u
WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
"""
