"""Claims messages that are due, and notes what came of sending them.

A claim is a lease: it moves the moment at which its messages are due behind itself. A sender that is killed leaves
nothing to clean up, since its messages are due again when the lease is over, under the same `webhook-id`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from policystore.accounts.models import SYSTEM, AccountEvent
from policystore.integrations import backoff
from policystore.integrations.delivery_results import Outcome, Result
from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from policystore.integrations.queries import next_integrations

# Longer than any attempt can last.
LEASE = timedelta(seconds=90)
BATCH_CHARACTERS = 4_000_000
State = OutboxMessage.State


@dataclass(frozen=True, slots=True)
class Claim:
    """Messages of one integration that nobody else sends until the lease is over."""

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
    """Note what came of a claim. Does nothing where the lease was taken over or the integration deleted meanwhile."""
    now = timezone.now()
    with transaction.atomic():
        # Locked before its messages, in the order that deleting it locks them.
        Integration.objects.select_for_update(no_key=True).filter(pk=claimed.integration.pk).first()
        current = list(_locked_by(claimed))
        if not current:
            return
        DeliveryAttempt.objects.bulk_create(_attempt(message, outcome, started_at, duration) for message in current)
        OutboxMessage.objects.filter(pk__in=[message.pk for message in current]).update(
            attempt_count=F("attempt_count") + 1, lease=""
        )
        _FINISHES[outcome.result](claimed.integration, current, outcome, now)


def _locked(messages: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
    return messages.select_for_update(skip_locked=True, of=("self",))


def _locked_by(claimed: Claim) -> QuerySet[OutboxMessage]:
    mine = OutboxMessage.objects.filter(pk__in=[message.pk for message in claimed.messages], lease=claimed.lease)
    return mine.select_for_update().order_by("pk")


def _together(head: OutboxMessage) -> list[OutboxMessage]:
    """The head's batch as it was first made up; or, where it has none yet, what waits for the same integration."""
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
    """The receiver wants no more of it, ever: what was sent is given up, and the integration is switched off."""
    _rows(messages).update(state=State.DEAD)
    because = f"The receiver answered that it is gone for good ({outcome.error or outcome.status})."
    switched_off = Integration.objects.filter(pk=integration.pk, enabled=True).update(
        enabled=False, disabled_because=because[:300]
    )
    if switched_off:
        AccountEvent.objects.record(
            integration.organization, "integration disabled", by=SYSTEM, subject=integration.name, detail=because
        )


_FINISHES = {
    Result.DELIVERED: _delivered,
    Result.REFUSED: _refused,
    Result.FAILED: _failed,
    Result.GONE: _gone,
}


def _again_later(messages: list[OutboxMessage], outcome: Outcome, now: datetime, *, failures: int) -> datetime:
    """Set when to try next, at the latest when a message's days are over; those whose days are over are given up."""
    wait = max(backoff.delay(failures), backoff.asked_delay(outcome.retry_after, now=now))
    over = [message for message in messages if message.expires_at <= now]
    left = [message for message in messages if message.expires_at > now]
    _rows(over).update(state=State.DEAD)
    next_at = min([now + wait, *(message.expires_at for message in left)])
    _rows(left).update(next_at=next_at)
    return next_at if left else now + wait


def _rows(messages: list[OutboxMessage]) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.filter(pk__in=[message.pk for message in messages])
