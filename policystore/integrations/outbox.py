"""Stores messages in the transaction of their event, claims those that are due, and records the results of sending.

A claim is a lease: its messages are not due again until it has expired. A sender that is killed leaves nothing to clean
up, since its messages are then due again, with the same `webhook-id`.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Actor
from policystore.db import transactions
from policystore.integrations import event_catalog
from policystore.integrations.actions import record_event
from policystore.integrations.http_client import Outcome, Result
from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from policystore.integrations.queries import next_integrations
from policystore.inventory.models import Organization

State = OutboxMessage.State
PRUNE_STEP = 500
# Longer than any attempt can last.
LEASE = timedelta(seconds=90)
BATCH_CHARACTERS = 4_000_000
# After this long a message is given up. The last attempt is made at that time.
KEEP_TRYING = timedelta(days=3)
FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=8)
GROWTH = 3
JITTER = 0.2


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
    """Queue a test message that names the person, due immediately. Raises CannotSend."""
    if not integration.enabled:
        raise CannotSend("Enable the integration first; nothing is sent while it is disabled.")
    now = timezone.now()
    payload = {"message": "This is a test of Policy Store.", "integration": integration.name, "by": by.name}
    message = _message(integration, event_catalog.TEST, json.dumps(payload), created=now, now=now)
    message.next_at = now
    with transaction.atomic():
        message.save(force_insert=True)
        _try_at_once(integration)
        record_event(integration, "integration tested", by, message.webhook_id)
    return message


def replay(*, message: OutboxMessage, by: Actor) -> None:
    """Send a message again with the same id, so that a receiver can recognize it, and with all its retries."""
    now = timezone.now()
    with transaction.atomic():
        # Locked before its messages, in the order that deleting it locks them.
        Integration.objects.select_for_update(no_key=True).filter(pk=message.integration_id).first()
        current = OutboxMessage.objects.select_for_update().get(pk=message.pk)
        OutboxMessage.objects.filter(pk=current.pk).update(
            state=State.PENDING, next_at=now, expires_at=now + KEEP_TRYING, lease="", batch="", delivered_at=None
        )
        _try_at_once(current.integration)
        detail = f"{current.event_label}, {current.webhook_id}"
        record_event(current.integration, "delivery replayed", by, detail)


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
        expires_at=now + KEEP_TRYING,
        next_at=now + integration.described_kind.gather,
    )


def _try_at_once(integration: Integration) -> None:
    """End a pause after failures: a person is waiting for this message."""
    Integration.objects.filter(pk=integration.pk).update(paused_until=None)


@dataclass(frozen=True, slots=True)
class Claim:
    """Messages of one integration that no other worker sends until the lease expires."""

    lease: str
    integration: Integration
    messages: Sequence[OutboxMessage]


def claim(*, now: datetime | None = None) -> Claim | None:
    """Take the longest due message of the integration that has waited longest; None if none is due.

    An integration that is being called is passed over, so that a slow receiver holds up its own messages only, and so
    is an organization with several such calls. Workers that claim at the same time get different messages: PostgreSQL
    skips locked rows, SQLite lets one write at a time.
    """
    now = now or timezone.now()
    # Read before the transaction: on SQLite it takes the only write lock.
    for integration in next_integrations(now):
        claimed = _claim_of(integration, now)
        if claimed is not None:
            return claimed
    return None


def _claim_of(integration: Integration, now: datetime) -> Claim | None:
    with transaction.atomic():
        _give_up_overdue(integration, now)
        due = OutboxMessage.objects.filter(integration=integration, state=State.PENDING, next_at__lte=now)
        head = _locked(due.order_by("next_at", "pk")).first()
        if head is None:
            return None
        head.integration = integration
        messages = _together(head)
        lease, batch = uuid.uuid4().hex, head.batch or f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:16]}"
        for message in messages:
            message.batch, message.lease = batch, lease
        taken = OutboxMessage.objects.filter(pk__in=[message.pk for message in messages])
        taken.update(next_at=now + LEASE, lease=lease, batch=batch)
    return Claim(lease, head.integration, messages)


def finish(*, claimed: Claim, outcome: Outcome, started_at: datetime, duration: timedelta) -> None:
    """Record the result of a claim. Does nothing if the lease was taken over or the integration deleted meanwhile."""
    now = timezone.now()
    with transaction.atomic():
        # Locked before its messages, in the order that deleting it locks them.
        Integration.objects.select_for_update(no_key=True).filter(pk=claimed.integration.pk).first()
        mine = _rows(claimed.messages).filter(lease=claimed.lease)
        current = list(mine.select_for_update().order_by("pk"))
        if not current:
            return
        DeliveryAttempt.objects.bulk_create(_attempt(message, outcome, started_at, duration) for message in current)
        _rows(current).update(attempt_count=F("attempt_count") + 1, lease="")
        _FINISHES[outcome.result](claimed.integration, current, outcome, now)


def _locked(messages: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
    return messages.select_for_update(skip_locked=True, of=("self",))


def _together(head: OutboxMessage) -> list[OutboxMessage]:
    """The head's batch as it was first sent; if it has none yet, other messages that wait for the same integration."""
    size = head.integration.described_kind.batch_size
    if size == 1:
        return [head]
    alike = OutboxMessage.objects.filter(integration=head.integration_id, state=State.PENDING, batch=head.batch)
    if head.batch:
        return list(_locked(alike).order_by("pk"))
    others = _locked(alike.exclude(pk=head.pk)).order_by("pk")[: size - 1]
    room, messages = BATCH_CHARACTERS - len(head.payload), [head]
    for message in others:
        room -= len(message.payload)
        if room < 0:
            break
        messages.append(message)
    return messages


def _give_up_overdue(integration: Integration, now: datetime) -> None:
    """Give up what has waited for three days behind a failing receiver, instead of retrying it one by one later."""
    if not integration.failures:
        return
    overdue = OutboxMessage.objects.filter(
        integration=integration, state=State.PENDING, expires_at__lt=now, next_at__lte=now, attempt_count=0
    )
    ids = list(_locked(overdue).values_list("pk", flat=True)[:500])
    if ids:
        OutboxMessage.objects.filter(pk__in=ids).update(state=State.DEAD)


def _attempt(message: OutboxMessage, outcome: Outcome, started_at: datetime, duration: timedelta) -> DeliveryAttempt:
    return DeliveryAttempt(
        message=message,
        number=message.attempt_count + 1,
        started_at=started_at,
        duration_ms=int(duration.total_seconds() * 1000),
        succeeded=outcome.result == Result.DELIVERED,
        status=outcome.status,
        response=outcome.response,
        error=outcome.error[:500],
    )


def _delivered(integration: Integration, messages: list[OutboxMessage], outcome: Outcome, now: datetime) -> None:
    _rows(messages).update(state=State.DELIVERED, delivered_at=now)
    Integration.objects.filter(pk=integration.pk, failures__gt=0).update(failures=0, paused_until=None)


def _refused(integration: Integration, messages: list[OutboxMessage], outcome: Outcome, now: datetime) -> None:
    _again_later(messages, outcome, now, failures=messages[0].attempt_count + 1)


def _failed(integration: Integration, messages: list[OutboxMessage], outcome: Outcome, now: datetime) -> None:
    """The receiver itself is down: its other messages wait too, so that it costs other receivers no time."""
    Integration.objects.filter(pk=integration.pk).update(failures=F("failures") + 1)
    failures = Integration.objects.values_list("failures", flat=True).get(pk=integration.pk)
    next_at = _again_later(messages, outcome, now, failures=failures)
    Integration.objects.filter(pk=integration.pk).update(paused_until=next_at)


def _gone(integration: Integration, messages: list[OutboxMessage], outcome: Outcome, now: datetime) -> None:
    """The receiver is gone for good: give up these messages and disable the integration."""
    _rows(messages).update(state=State.DEAD)
    because = f"The receiver answered that it is gone for good ({outcome.error or outcome.status})."
    switched_off = Integration.objects.filter(pk=integration.pk, enabled=True).update(
        enabled=False, disabled_because=because[:300]
    )
    if switched_off:
        record_event(integration, "integration disabled", SYSTEM, because)


_FINISHES = {Result.DELIVERED: _delivered, Result.REFUSED: _refused, Result.FAILED: _failed, Result.GONE: _gone}


def _again_later(messages: list[OutboxMessage], outcome: Outcome, now: datetime, *, failures: int) -> datetime:
    """Set when to try next, at the latest when a message expires; expired ones are given up."""
    wait = max(backoff(failures), asked_delay(outcome.retry_after, now=now))
    over = [message for message in messages if message.expires_at <= now]
    left = [message for message in messages if message.expires_at > now]
    _rows(over).update(state=State.DEAD)
    next_at = min([now + wait, *(message.expires_at for message in left)])
    _rows(left).update(next_at=next_at)
    return next_at if left else now + wait


def _rows(messages: Sequence[OutboxMessage]) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.filter(pk__in=[message.pk for message in messages])


def backoff(failures: int) -> timedelta:
    """Return the pause after so many failures in a row: 10 s, 30 s, 90 s … 8 h, with a random fifth more or less."""
    exact: timedelta = min(FIRST_PAUSE * GROWTH ** min(failures - 1, 20), LONGEST_PAUSE)
    # The jitter keeps all stores from calling a receiver at the same time when it comes back. It need not be secret.
    chance: float = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return exact * chance


def asked_delay(retry_after: str | None, *, now: datetime) -> timedelta:
    """Return the pause that a Retry-After header asks for, in seconds or as a date; 0 if it cannot be parsed."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return timedelta(seconds=min(int(text[:12]), int(KEEP_TRYING.total_seconds())))
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return timedelta(0)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(at - now, timedelta(0)), KEEP_TRYING)
