"""Takes in what agents observed: events, and at the same time what stays of them per run and per job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from policystore.runners.actions import job_runs
from policystore.runners.models import JobRun
from policystore.traffic.actions import aggregates, deliveries, late_attribution, stored_events
from policystore.traffic.actions.deliveries import Delivery
from policystore.traffic.actions.stored_events import Row
from policystore.traffic.models import NOT_ALLOWED, EarlyRun, Status


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a delivery: events that are new, events that had come before, and the new ones' rows.

    `counts` is false for events of an unverified job, which are stored and counted nowhere.
    """

    stored: int
    repeated: int
    events: Sequence[Row] = ()
    counts: bool = True


class _SentBefore(Exception):
    """Some of the events are stored already; undoes what was written of the others."""


def keep(delivery: Delivery) -> Taken:
    """Store what is new of a delivery, and count it if its job is verified; a repeat counts once.

    Raises JobRun.DoesNotExist where its events have moved to another row.

    The caller has begun the transaction.
    """
    if not delivery.observations:
        return Taken(stored=0, repeated=0)
    # Deliveries of one job take turns, so that no event is counted twice and no endpoint is new twice.
    held = JobRun.objects.select_for_update(of=("self",)).select_related("early")
    current = held.get(pk=delivery.run.pk)
    early, is_same = getattr(current, "early", None), deliveries.state_of(current) == delivery.state
    if early is not None or not is_same:
        # PostgreSQL joins what was there before it waited for the run's row.
        early = EarlyRun.objects.filter(pk=current.pk).first()
    early = late_attribution.remembered(current, early, delivery.received_at)
    job, counts = late_attribution.counted_as(current, early), early is None or early.is_counted
    if is_same and (job, counts) == (delivery.job, delivery.counts):
        try:
            with transaction.atomic():
                return _write(delivery)
        except _SentBefore:
            pass
    return _write(deliveries.read_again(delivery, current, job, counts=counts))


def _write(delivery: Delivery) -> Taken:
    rows, statuses = delivery.rows, delivery.statuses
    if stored_events.insert(delivery.written) < len(rows):
        raise _SentBefore
    if delivery.tallies and delivery.counts:
        aggregates.add(delivery.run, delivery.tallies, delivery.job)
        job_runs.count_events(
            run=delivery.run,
            events=len(rows),
            calls=statuses.total(),
            blocked=statuses[Status.BLOCKED],
            off_list=sum(statuses[status] for status in NOT_ALLOWED),
            new_endpoints=len(delivery.new),
        )
    elif rows:
        job_runs.count_events(run=delivery.run, events=len(rows))
    return Taken(
        stored=len(rows),
        repeated=len(delivery.observations) - len(rows),
        events=rows,
        counts=delivery.counts,
    )
