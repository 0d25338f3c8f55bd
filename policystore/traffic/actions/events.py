"""Takes in what agents observed: events, and at the same time what stays of them per run and per job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from policystore.runners.actions import job_runs
from policystore.runners.models import JobRun
from policystore.traffic.actions import aggregates, stored_events
from policystore.traffic.clock import corrected
from policystore.traffic.models import JobEndpoint, NetworkEvent, Status
from policystore.traffic.observations import SINKHOLE, Observation
from policystore.traffic.verdicts import verdicts_for

PRUNE_STEP = 1000


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a delivery: events that are new, events that had come before, and the new ones' stored rows."""

    stored: int
    repeated: int
    events: tuple[NetworkEvent, ...] = ()


def take_in(*, run: JobRun, observations: Sequence[Observation], received_at: datetime | None = None) -> Taken:
    """Store what is new of a delivery and add it to the aggregates, in one transaction; a repeat counts once."""
    distinct = {seen.digest: seen for seen in observations}
    now = received_at or timezone.now()
    verdicts = verdicts_for(run)
    with transaction.atomic():
        # Deliveries of one job take turns, so that no event is counted twice and no endpoint is new twice.
        current = JobRun.objects.select_for_update().get(pk=run.pk)
        known = stored_events.known(current, distinct)
        fresh = [seen for digest, seen in distinct.items() if digest not in known]
        times = corrected([seen.client_at for seen in fresh], received_at=now, job_began_at=began_at(current, now))
        unseen = _unseen_endpoints(current, fresh)
        events = [
            _event(current, seen, at, verdicts.of(seen), (seen.host, seen.port) in unseen, now)
            for seen, at in zip(fresh, times, strict=True)
        ]
        stored_events.insert(events)
        _count(current, events)
    return Taken(stored=len(events), repeated=len(observations) - len(events), events=tuple(events))


def began_at(run: JobRun, received_at: datetime) -> datetime:
    """The earliest moment at which something may have happened in this job."""
    if run.run_id:
        return run.first_seen_at
    # Known by telemetry alone, which may be sent long after the job.
    return received_at - timedelta(hours=settings.JOB_RUN_OPEN_HOURS)


def prune(*, before: datetime, steps: int = 50) -> int:
    """Delete events that arrived before a moment, oldest first, at most `steps` times PRUNE_STEP; returns how many.

    Each step is a transaction of its own, so that ingest is never locked out.
    """
    deleted = 0
    for _ in range(steps):
        oldest = NetworkEvent.objects.filter(received_at__lt=before).order_by("received_at")
        ids = list(oldest.values_list("pk", flat=True)[:PRUNE_STEP])
        if not ids:
            break
        deleted += NetworkEvent.objects.filter(pk__in=ids).delete()[0]
    return deleted


def prune_old(*, days: int) -> int:
    """Delete events that are older than so many days."""
    return prune(before=timezone.now() - timedelta(days=days))


def _event(
    run: JobRun, seen: Observation, at: datetime, status: Status, is_new: bool, received_at: datetime
) -> NetworkEvent:
    return NetworkEvent(
        organization_id=run.organization_id,
        job_run=run,
        digest=seen.digest,
        kind=seen.kind,
        host=seen.host,
        port=seen.port,
        address=seen.address,
        process=seen.process,
        ancestry=list(seen.ancestry),
        step=seen.step,
        status=status,
        is_new=is_new and status != Status.BLOCKED and seen.kind == NetworkEvent.Kind.CONNECTION,
        reason=seen.reason,
        occurred_at=at,
        client_at=seen.client_at,
        received_at=received_at,
    )


def _unseen_endpoints(run: JobRun, fresh: Sequence[Observation]) -> set[tuple[str, int]]:
    """Endpoints that no earlier run of the same job called; a job's first run has none, since all would be new."""
    asked = {(seen.host, seen.port) for seen in fresh}
    job = aggregates.job_of(run)
    if not asked or not JobEndpoint.objects.filter(**job).exists():
        return set()
    known = set(JobEndpoint.objects.filter(**job, host__in={host for host, _ in asked}).values_list("host", "port"))
    unseen = asked - known
    first_run = not _had_earlier_run(run)
    return set() if first_run else unseen


def _had_earlier_run(run: JobRun) -> bool:
    same = JobRun.objects.filter(
        organization_id=run.organization_id,
        repository=run.repository,
        workflow=run.workflow,
        job=run.job,
        cluster=run.cluster,
        calls__gt=0,
    )
    return same.exclude(pk=run.pk).exists()


def _count(run: JobRun, events: Sequence[NetworkEvent]) -> None:
    """A DNS answer is no call; only one that was blocked tells of a call that did not come to be."""
    calls = [event for event in events if _is_call(event)]
    if not calls:
        return
    aggregates.add(run, calls)
    job_runs.count_calls(
        run=run,
        calls=len(calls),
        blocked=sum(event.status == Status.BLOCKED for event in calls),
        off_list=sum(event.status in (Status.OFF_LIST, Status.WOULD_BE_BLOCKED) for event in calls),
        new_endpoints=len({(event.host, event.port) for event in calls if event.is_new}),
    )


def _is_call(event: NetworkEvent) -> bool:
    if event.host == SINKHOLE:
        return False
    return event.kind == NetworkEvent.Kind.CONNECTION or event.status == Status.BLOCKED
