"""Stores messages in the transaction of their event, sends messages again, and deletes old ones."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.utils import timezone

from policystore.accounts.models import AccountEvent, Actor
from policystore.db import transactions
from policystore.integrations import backoff, event_catalog
from policystore.integrations.models import Integration, OutboxMessage
from policystore.inventory.models import Organization

State = OutboxMessage.State
PRUNE_STEP = 500


class CannotSend(ValueError):
    """The integration is switched off, so nothing would be sent."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event to send: `kind` is one of `event_catalog.EVENTS`, `payload` what JSON can hold (dates too)."""

    kind: str
    payload: Mapping[str, Any]
    at: datetime | None = None


def emit(*, organization: Organization, kind: str, payload: Mapping[str, Any], at: datetime | None = None) -> int:
    """Queue an event for each integration that is subscribed to it; call it inside the event's own transaction.

    Returns the number of receivers; costs one indexed query if there are none. Raises ValueError for an unknown kind.
    """
    return emit_all(organization=organization, events=[Event(kind, payload, at)])


def emit_all(*, organization: Organization, events: Collection[Event]) -> int:
    """Queue many events, at the cost of one. Raises ValueError for an unknown kind."""
    for event in events:
        if not event_catalog.is_known(event.kind):
            raise ValueError(f"{event.kind!r} is not a known event. See event_catalog.EVENTS.")
    if not events:
        return 0
    enabled = Integration.objects.filter(organization=organization, enabled=True).only("pk", "kind", "events")
    integrations, now = list(enabled.order_by("pk")), timezone.now()
    messages = [message for event in events for message in _messages(event, integrations, now=now)]
    if messages:
        OutboxMessage.objects.bulk_create(messages, batch_size=500)
    return len(messages)


def send_test(*, integration: Integration, by: Actor) -> OutboxMessage:
    """Leave a message that says who tests, due at once. Raises CannotSend."""
    if not integration.enabled:
        raise CannotSend("Enable the integration first; nothing is sent while it is disabled.")
    now = timezone.now()
    payload = {"message": "This is a test of Policy Store.", "integration": integration.name, "by": by.name}
    message = _message(integration, event_catalog.TEST, json.dumps(payload), created=now, now=now)
    message.next_at = now
    with transaction.atomic():
        message.save(force_insert=True)
        _try_at_once(integration)
        _record(integration, "integration tested", by, message.webhook_id)
    return message


def replay(*, message: OutboxMessage, by: Actor) -> None:
    """Send a message again from the start, under the same id, so that a receiver knows what it has seen."""
    now = timezone.now()
    with transaction.atomic():
        # Locked before its messages, in the order that deleting it locks them.
        Integration.objects.select_for_update(no_key=True).filter(pk=message.integration_id).first()
        current = OutboxMessage.objects.select_for_update().get(pk=message.pk)
        OutboxMessage.objects.filter(pk=current.pk).update(
            state=State.PENDING,
            next_at=now,
            expires_at=now + backoff.KEEP_TRYING,
            lease="",
            batch="",
            delivered_at=None,
        )
        _try_at_once(current.integration)
        detail = f"{current.event_label}, {current.webhook_id}"
        _record(current.integration, "delivery replayed", by, detail)


def prune(*, days: int) -> bool:
    """Delete messages older than so many days that were delivered or given up; returns True if some are left."""
    before = timezone.now() - timedelta(days=days)
    done = OutboxMessage.objects.filter(created_at__lt=before).exclude(state=State.PENDING).order_by("created_at")

    def delete() -> int:
        ids = list(done.values_list("pk", flat=True)[:PRUNE_STEP])
        OutboxMessage.objects.filter(pk__in=ids).delete()
        return len(ids)

    # An event that was being stored while its integration was deleted has long been stored by now.
    Integration.objects.filter(deleted_at__lt=timezone.now() - timedelta(days=1)).delete()
    return transactions.repeat_in_batches(delete, size=PRUNE_STEP)


def _messages(event: Event, integrations: list[Integration], *, now: datetime) -> list[OutboxMessage]:
    wanting = [integration for integration in integrations if event.kind in integration.events]
    text = json.dumps(event.payload, cls=DjangoJSONEncoder) if wanting else ""
    return [_message(one, event.kind, text, created=event.at or now, now=now) for one in wanting]


def _message(integration: Integration, kind: str, text: str, *, created: datetime, now: datetime) -> OutboxMessage:
    return OutboxMessage(
        integration=integration,
        webhook_id=f"msg_{uuid.uuid4().hex}",
        kind=kind,
        payload=text,
        created_at=created,
        expires_at=now + backoff.KEEP_TRYING,
        next_at=now + integration.described_kind.gather,
    )


def _record(integration: Integration, kind: str, by: Actor, detail: str) -> None:
    AccountEvent.objects.record(integration.organization, kind, by=by, subject=integration.name, detail=detail)


def _try_at_once(integration: Integration) -> None:
    """End a pause after failures: a person is waiting for this message."""
    Integration.objects.filter(pk=integration.pk).update(paused_until=None)
