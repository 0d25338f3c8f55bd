"""Reads and judges what an agent sent in one go, before anything is locked for it.

All that takes time is done here: `events.keep` then holds the job's row, and on SQLite the whole store, only to see
that nothing has changed meanwhile and to write. Where something has, the delivery is read again under the lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.utils import timezone

from policystore.runners.models import JobRun
from policystore.traffic.actions import aggregates, new_endpoints, stored_events
from policystore.traffic.actions.aggregates import Endpoint, Job, Tally
from policystore.traffic.actions.stored_events import Row, Written
from policystore.traffic.clock import corrected
from policystore.traffic.event_parser import Observation, is_call
from policystore.traffic.models import NetworkEvent, Status
from policystore.traffic.verdicts import Verdicts, verdicts_for

# All that is known of a job and of what was counted for it; changes with every call that is counted.
state_of = attrgetter(*(field.attname for field in JobRun._meta.concrete_fields))


@dataclass(frozen=True, slots=True)
class Delivery:
    """The rows of what is new in it, as judged by the `state` of its job, and what they add to the sums.

    `job` is the one that its calls are counted under, `new` are endpoints that no earlier run of the job called.
    `counts` is false for the delivery of an unverified job, which is only stored.
    """

    run: JobRun
    observations: Sequence[Observation]
    received_at: datetime
    state: tuple[Any, ...]
    job: Job
    counts: bool
    rows: Sequence[Row]
    written: Written
    tallies: Mapping[Endpoint, Tally]
    statuses: Counter[str]
    new: Set[Endpoint]


def read(*, run: JobRun, observations: Sequence[Observation], received_at: datetime | None = None) -> Delivery:
    """A delivery as it is where nothing in it was sent before and its job was known from the start, as is usual."""
    now = received_at or timezone.now()
    return _read(run, aggregates.job_of(run), observations, now, known=frozenset(), counts=run.is_verified)


def read_again(delivery: Delivery, current: JobRun, job: Job, *, counts: bool) -> Delivery:
    """The delivery by what is stored now, without what was sent before. The caller holds the run's row."""
    known = stored_events.known(current, {seen.digest for seen in delivery.observations}, delivery.received_at)
    return _read(current, job, delivery.observations, delivery.received_at, known=known, counts=counts)


def began_at(run: JobRun, received_at: datetime) -> datetime:
    """The earliest moment at which something may have happened in this job."""
    if run.run_id:
        return run.first_seen_at
    # Known by telemetry alone, which may be sent long after the job.
    return received_at - timedelta(hours=settings.JOB_RUN_OPEN_HOURS)


def _read(
    run: JobRun,
    job: Job,
    observations: Sequence[Observation],
    received_at: datetime,
    *,
    known: Set[str],
    counts: bool,
) -> Delivery:
    distinct = {seen.digest: seen for seen in observations}
    fresh = [seen for digest, seen in distinct.items() if digest not in known]
    times = corrected(
        [seen.client_at for seen in fresh], received_at=received_at, job_began_at=began_at(run, received_at)
    )
    reached = {(seen.host, seen.port) for seen in fresh if seen.kind == NetworkEvent.Kind.CONNECTION}
    new_to_job = new_endpoints.endpoints(run, reached, job) if counts else set()
    rows = _rows(fresh, times, verdicts_for(run), new_to_job)
    tallies, statuses, new = _sums(rows)
    return Delivery(
        run=run,
        observations=observations,
        received_at=received_at,
        state=state_of(run),
        job=job,
        counts=counts,
        rows=rows,
        written=stored_events.written(run, rows, received_at),
        tallies=tallies,
        statuses=statuses,
        new=new,
    )


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


def _sums(rows: Sequence[Row]) -> tuple[dict[Endpoint, Tally], Counter[str], set[Endpoint]]:
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
    return tallies, statuses, new
