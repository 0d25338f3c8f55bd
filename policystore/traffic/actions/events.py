"""Takes in what agents observed: events, and at the same time what stays of them per run and per job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from policystore.runners.actions import job_runs
from policystore.runners.models import JobRun
from policystore.traffic.actions import aggregates, early_runs, stored_events, unseen
from policystore.traffic.actions.aggregates import Endpoint, Job, Tally
from policystore.traffic.actions.stored_events import Row
from policystore.traffic.clock import corrected
from policystore.traffic.models import NetworkEvent, Status
from policystore.traffic.observations import Observation, is_call
from policystore.traffic.verdicts import Verdicts, verdicts_for

PRUNE_STEP = 1000


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a delivery: events that are new, events that had come before, and the new ones' rows."""

    stored: int
    repeated: int
    events: tuple[Row, ...] = ()


def take_in(*, run: JobRun, observations: Sequence[Observation], received_at: datetime | None = None) -> Taken:
    """Store what is new of a delivery and add it to the aggregates, in one transaction; a repeat counts once."""
    distinct = {seen.digest: seen for seen in observations}
    if not distinct:
        return Taken(stored=0, repeated=0)
    now = received_at or timezone.now()
    verdicts = verdicts_for(run)
    with transaction.atomic():
        # Deliveries of one job take turns, so that no event is counted twice and no endpoint is new twice.
        held = JobRun.objects.select_for_update(of=("self",)).select_related("early")
        current = held.get(pk=run.pk)
        if current.fetched_at != run.fetched_at:
            verdicts = verdicts_for(current)
        known = stored_events.known(current, distinct)
        fresh = [seen for digest, seen in distinct.items() if digest not in known]
        times = corrected([seen.client_at for seen in fresh], received_at=now, job_began_at=began_at(current, now))
        job = _counted_as(current, now)
        rows = _rows(fresh, times, verdicts, unseen.endpoints(current, {(s.host, s.port) for s in fresh}, job))
        stored_events.insert(current, rows, now)
        _count(current, rows, job)
    return Taken(stored=len(rows), repeated=len(observations) - len(rows), events=tuple(rows))


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


def _rows(fresh: Sequence[Observation], times: Sequence[datetime], verdicts: Verdicts, new: Set[Endpoint]) -> list[Row]:
    judged: dict[tuple[str, bool, str, int], tuple[str, bool]] = {}
    rows = []
    for seen, at in zip(fresh, times, strict=True):
        kind, host, port, address, client_at, process, ancestry, step, dropped, reason, digest = seen
        call = (kind, dropped, host, port)
        if call not in judged:
            # A job calls few endpoints, each again and again.
            status = verdicts.of(seen)
            is_new = (host, port) in new and status != Status.BLOCKED and kind == NetworkEvent.Kind.CONNECTION
            judged[call] = (status.value, is_new)
        rows.append(
            Row(digest, kind, host, port, address, process, ancestry, step, *judged[call], reason, at, client_at)
        )
    return rows


def _counted_as(run: JobRun, now: datetime) -> Job:
    early = getattr(run, "early", None)
    if early is None and early_runs.is_early(run):
        return early_runs.note(run, now)
    return early_runs.counted_as(run, early)


def _count(run: JobRun, rows: Sequence[Row], job: Job) -> None:
    tallies: dict[Endpoint, Tally] = {}
    statuses: Counter[str] = Counter()
    new = set()
    for row in rows:
        if not is_call(row.kind, row.host, row.status):
            continue
        endpoint, blocked, at = (row.host, row.port), row.status == Status.BLOCKED.value, row.occurred_at
        tally = tallies.get(endpoint)
        if tally is None:
            tally = tallies[endpoint] = Tally(0, 0, at, at)
        tally.add(blocked=blocked, at=at)
        statuses[row.status] += 1
        if row.is_new:
            new.add(endpoint)
    if not tallies:
        return
    aggregates.add(run, tallies, job)
    job_runs.count_calls(
        run=run,
        calls=statuses.total(),
        blocked=statuses[Status.BLOCKED],
        off_list=statuses[Status.OFF_LIST] + statuses[Status.WOULD_BE_BLOCKED],
        new_endpoints=len(new),
    )
