"""Queries of integrations, their messages and the delivery backlog."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Min, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.shortcuts import get_object_or_404
from django.utils import timezone

from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from policystore.inventory.models import Organization
from policystore.web.pagination import Page, newest_first

DELIVERIES_PER_PAGE = 50
# An organization with many slow receivers leaves room for the others.
MAX_CALLS_PER_ORGANIZATION = 4
INTEGRATIONS_TRIED = 50
State = OutboxMessage.State


def live(organization: Organization) -> QuerySet[Integration]:
    """The organization's integrations that were not deleted."""
    return Integration.objects.filter(organization=organization, deleted_at__isnull=True)


def integrations_of(organization: Organization) -> QuerySet[Integration]:
    """The organization's integrations, each with `waiting`, `waiting_since`, `given_up` and `last_delivery`."""
    mine = OutboxMessage.objects.filter(integration=OuterRef("pk"))
    delivered = mine.filter(state=State.DELIVERED).order_by("-pk")
    return live(organization).annotate(
        waiting=_number(mine.filter(state=State.PENDING)),
        given_up=_number(mine.filter(state=State.DEAD)),
        waiting_since=Subquery(mine.filter(state=State.PENDING).order_by("created_at").values("created_at")[:1]),
        last_delivery=Subquery(delivered.values("delivered_at")[:1]),
    )


def _number(messages: QuerySet[OutboxMessage]) -> Coalesce:
    # Separate subqueries, so that neither reads the many delivered messages.
    counted = messages.order_by().values("integration").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counted), 0)


def get_integration(organization: Organization, integration_id: int) -> Integration:
    """One integration of the organization. Raises Http404."""
    return get_object_or_404(live(organization).select_related("organization"), pk=integration_id)


def get_message(integration: Integration, message_id: int) -> OutboxMessage:
    """One message of the integration. Raises Http404."""
    message = get_object_or_404(OutboxMessage, integration=integration, pk=message_id)
    message.integration = integration
    return message


def deliveries_page(integration: Integration, *, state: str = "", before: str = "") -> Page[OutboxMessage]:
    """A page of the delivery log, newest first; each message has the last attempt's `last_status` and `last_error`."""
    last = DeliveryAttempt.objects.filter(message=OuterRef("pk")).order_by("-pk")
    rows = OutboxMessage.objects.filter(integration=integration)
    if state in State.values:
        rows = rows.filter(state=state)
    rows = rows.annotate(last_status=Subquery(last.values("status")[:1]), last_error=Subquery(last.values("error")[:1]))
    return newest_first(rows, size=DELIVERIES_PER_PAGE, before=before)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the outbox: how many messages, the oldest one's age, and for how long one has been due to be sent.

    Messages that wait for a receiver that fails or is slow, or for a pause after failures, are not due.
    """

    waiting: int
    oldest: timedelta
    overdue: timedelta


def backlog() -> Backlog:
    """The whole outbox, of all organizations; reads what waits along its partial index."""
    now = timezone.now()
    pending = OutboxMessage.objects.filter(state=State.PENDING)
    totals = pending.aggregate(waiting=Count("pk"), oldest=Min("created_at"))
    # A receiver that is being called is slow; one that is not, the worker has not reached yet.
    calls = in_flight(now).values("integration")
    due_since = _due(now).exclude(pk__in=calls).values_list("due_since", flat=True).first()
    return Backlog(totals["waiting"], _since(totals["oldest"], now), _since(due_since, now))


def next_integrations(now: datetime) -> list[Integration]:
    """The integrations that may be called now, with `due_since`, the one that has waited longest first.

    Without those that are being called, and without organizations that have MAX_CALLS_PER_ORGANIZATION such calls.
    """
    calls = dict(in_flight(now).values_list("integration_id", "integration__organization_id"))
    per_organization = Counter(calls.values())
    busy = [pk for pk, number in per_organization.items() if number >= MAX_CALLS_PER_ORGANIZATION]
    free = _due(now).exclude(pk__in=list(calls)).exclude(organization__in=busy)
    return list(free.select_related("organization")[:INTEGRATIONS_TRIED])


def in_flight(now: datetime) -> QuerySet[OutboxMessage]:
    """Messages that a worker is sending."""
    return OutboxMessage.objects.filter(state=State.PENDING, next_at__gt=now).exclude(lease="")


def _due(now: datetime) -> QuerySet[Any]:
    """Integrations that are neither switched off nor paused and have a message that is due, with `due_since`."""
    may_send = Q(paused_until__isnull=True) | Q(paused_until__lte=now)
    messages = OutboxMessage.objects.filter(integration=OuterRef("pk"), state=State.PENDING, next_at__lte=now)
    first = messages.order_by("next_at").values("next_at")[:1]
    rows = Integration.objects.filter(may_send, enabled=True).annotate(due_since=Subquery(first))
    return rows.filter(due_since__isnull=False).order_by("due_since", "pk")


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind one integration is: how many messages wait for it, and the age of the oldest."""

    integration: Integration
    waiting: int
    oldest: timedelta


def lags() -> list[Lag]:
    """Every integration for which messages wait, the one that is furthest behind first; of all organizations."""
    now = timezone.now()
    pending = OutboxMessage.objects.filter(state=State.PENDING).order_by().values("integration")
    totals = {row["integration"]: row for row in pending.annotate(waiting=Count("pk"), oldest=Min("created_at"))}
    rows = Integration.objects.filter(pk__in=list(totals), deleted_at__isnull=True).select_related("organization")
    found = [Lag(row, totals[row.pk]["waiting"], _since(totals[row.pk]["oldest"], now)) for row in rows]
    return sorted(found, key=lambda lag: lag.oldest, reverse=True)


def given_up() -> int:
    """Count the messages that were given up, of all organizations."""
    return OutboxMessage.objects.filter(state=State.DEAD, integration__in=Integration.objects.values("pk")).count()


def _since(start: datetime | None, now: datetime) -> timedelta:
    return max(now - start, timedelta()) if start else timedelta()
