"""Stores the events of a job and counts them, one batch at a time.

`prepare` does everything that takes time before anything is locked: it judges the events and builds the INSERT. `store`
then locks the job's row, and on SQLite the whole database, only to check that nothing has changed and to write. If
something has changed, the batch is prepared again under the lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from policystore.db import bulk_json, vendor
from policystore.runners import job_runs
from policystore.runners.models import JobRun
from policystore.traffic import aggregates, late_attribution
from policystore.traffic.aggregates import Endpoint, Job, Tally
from policystore.traffic.event_parser import ParsedEvent, correct_times, is_call
from policystore.traffic.models import NOT_ALLOWED, EarlyRun, NetworkEvent, Status
from policystore.traffic.verdicts import Verdicts, verdicts_for

# Everything known about a job and counted for it. It changes with every call that is counted.
_state_of = attrgetter(*(field.attname for field in JobRun._meta.concrete_fields))


class EventRow(NamedTuple):
    """A judged network event, without the columns that all events of a batch share. `ancestry` is JSON."""

    digest: str
    kind: str
    host: str
    port: int
    address: str
    process: str
    ancestry: str
    step: str
    status: str
    is_new: bool
    reason: str
    occurred_at: datetime
    client_at: datetime | None


# The PostgreSQL types of EventRow's fields.
_COLUMNS = {
    "digest": "text",
    "kind": "text",
    "host": "text",
    "port": "integer",
    "address": "text",
    "process": "text",
    "ancestry": "jsonb",
    "step": "text",
    "status": "text",
    "is_new": "boolean",
    "reason": "text",
    "occurred_at": "timestamptz",
    "client_at": "timestamptz",
}
_NAMES = ", ".join(_COLUMNS)
_INTO = f"INSERT INTO traffic_networkevent (organization_id, job_run_id, received_at, {_NAMES})"
# How far outside the job's time a stored copy of an event is searched for: an event may have arrived before the row
# that represents its job now (see `late_attribution`), and another process's clock may be ahead.
_EARLIER, _LATER = timedelta(days=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class InsertStatement:
    """An INSERT with its parameters in the database's own types, so that executing it is all that is left to do.

    `is_each` means that `parameters` holds one tuple per row.
    """

    statement: str
    parameters: Sequence[Any]
    is_each: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The new events of a batch as rows, judged by the `state` of their job, and what they add to the aggregates.

    `job` is the one that the calls count for; `new` are endpoints that no earlier run of the job called. `counts` is
    false for a batch of an unverified job, which is only stored.
    """

    run: JobRun
    events: Sequence[ParsedEvent]
    received_at: datetime
    state: tuple[Any, ...]
    job: Job
    counts: bool
    rows: Sequence[EventRow]
    insert: InsertStatement
    tallies: Mapping[Endpoint, Tally]
    statuses: Counter[str]
    new: Set[Endpoint]


@dataclass(frozen=True, slots=True)
class Stored:
    """The outcome of a batch: the number of new events, the number that were stored before, and the new ones' rows.

    `counts` is false for events of an unverified job, which are stored but not counted.
    """

    stored: int
    repeated: int
    events: Sequence[EventRow] = ()
    counts: bool = True


class _AlreadyStored(Exception):
    """Some of the events are already stored. Rolls back what was written for the others."""


def prepare(*, run: JobRun, events: Sequence[ParsedEvent], received_at: datetime | None = None) -> Batch:
    """Prepare a batch on the usual assumptions: none of it was sent before, and its job was known from the start."""
    now = received_at or timezone.now()
    return _prepare(run, aggregates.job_of(run), events, now, known=frozenset(), counts=run.is_verified)


def store(batch: Batch) -> Stored:
    """Store the new events of a batch, and count them if the job is verified. A repeated event counts once.

    Runs in the caller's transaction. Raises JobRun.DoesNotExist if the job's events have moved to another row.
    """
    if not batch.events:
        return Stored(stored=0, repeated=0)
    # Batches of one job run one after another, so that no event is counted twice and no endpoint is new twice.
    held = JobRun.objects.select_for_update(of=("self",)).select_related("early")
    current = held.get(pk=batch.run.pk)
    early, is_same = getattr(current, "early", None), _state_of(current) == batch.state
    if early is not None or not is_same:
        # PostgreSQL joins the row as it was before the wait for the run's row.
        early = EarlyRun.objects.filter(pk=current.pk).first()
    early = late_attribution.remember(current, early, batch.received_at)
    job, counts = aggregates.job_of(current, early), early is None or early.is_counted
    if is_same and (job, counts) == (batch.job, batch.counts):
        try:
            with transaction.atomic():
                return _write(batch)
        except _AlreadyStored:
            pass
    known = _stored_digests(current, {event.digest for event in batch.events}, batch.received_at)
    return _write(_prepare(current, job, batch.events, batch.received_at, known=known, counts=counts))


def began_at(run: JobRun, received_at: datetime) -> datetime:
    """The earliest time at which something may have happened in this job."""
    if run.run_id:
        return run.first_seen_at
    # Known from telemetry alone, which may be sent long after the job.
    return received_at - timedelta(hours=settings.JOB_RUN_OPEN_HOURS)


def _prepare(
    run: JobRun,
    job: Job,
    events: Sequence[ParsedEvent],
    received_at: datetime,
    *,
    known: Set[str],
    counts: bool,
) -> Batch:
    distinct = {event.digest: event for event in events}
    fresh = [event for digest, event in distinct.items() if digest not in known]
    times = correct_times(
        [event.client_at for event in fresh], received_at=received_at, job_began_at=began_at(run, received_at)
    )
    reached = {(event.host, event.port) for event in fresh if event.kind == NetworkEvent.Kind.CONNECTION}
    new_to_job = aggregates.new_endpoints(run, reached, job) if counts else set()
    rows = _judge(fresh, times, verdicts_for(run), new_to_job)
    calls = [row for row in rows if is_call(row.kind, row.host, row.status)]
    blocked = Status.BLOCKED.value
    return Batch(
        run=run,
        events=events,
        received_at=received_at,
        state=_state_of(run),
        job=job,
        counts=counts,
        rows=rows,
        insert=vendor.choose(postgresql=_insert_json, sqlite=_insert_each)(run, rows, received_at),
        tallies=aggregates.tally(((row.host, row.port), row.status == blocked, row.occurred_at) for row in calls),
        statuses=Counter(row.status for row in calls),
        new={(row.host, row.port) for row in calls if row.is_new},
    )


def _judge(
    events: Sequence[ParsedEvent], times: Sequence[datetime], verdicts: Verdicts, new: Set[Endpoint]
) -> list[EventRow]:
    # A job calls few endpoints, each many times.
    judged: dict[tuple[str, str, str, int], tuple[str, bool]] = {}
    rows = []
    for event, at in zip(events, times, strict=True):
        kind, host, port, address, client_at, process, ancestry, step, outcome, reason, digest = event
        call = (kind, outcome, host, port)
        if call not in judged:
            status = verdicts.of(event)
            is_new = (host, port) in new and status != Status.BLOCKED and kind == NetworkEvent.Kind.CONNECTION
            judged[call] = (status.value, is_new)
        rows.append(
            EventRow(digest, kind, host, port, address, process, ancestry, step, *judged[call], reason, at, client_at)
        )
    return rows


def _write(batch: Batch) -> Stored:
    rows, statuses = batch.rows, batch.statuses
    if _insert(batch.insert) < len(rows):
        raise _AlreadyStored
    if batch.tallies and batch.counts:
        aggregates.add(batch.run, batch.tallies, batch.job)
        job_runs.count_events(
            run=batch.run,
            events=len(rows),
            calls=statuses.total(),
            blocked=statuses[Status.BLOCKED],
            off_list=sum(statuses[status] for status in NOT_ALLOWED),
            new_endpoints=len(batch.new),
        )
    elif rows:
        job_runs.count_events(run=batch.run, events=len(rows))
    return Stored(stored=len(rows), repeated=len(batch.events) - len(rows), events=rows, counts=batch.counts)


def _insert(insert: InsertStatement) -> int:
    """Insert the events that are not stored yet; returns how many."""
    if not insert.parameters:
        return 0
    with connection.cursor() as cursor:
        execute = cursor.executemany if insert.is_each else cursor.execute
        execute(insert.statement, insert.parameters)
        stored: int = cursor.rowcount
        return stored


def _stored_digests(run: JobRun, digests: Iterable[str], received_at: datetime) -> set[str]:
    """The digests among these that are stored for the job run. The caller holds the run's row."""
    is_stored, parameters = _is_stored(run, received_at)
    statement = f"SELECT digest FROM {bulk_json.source(digest='text')} AS sent WHERE {is_stored}"  # noqa: S608 constants
    with connection.cursor() as cursor:
        cursor.execute(statement, [bulk_json.parameter([(digest,) for digest in digests]), *parameters])
        return {digest for (digest,) in cursor.fetchall()}


def _is_stored(run: JobRun, received_at: datetime) -> tuple[str, list[Any]]:
    """The SQL condition that `sent.digest` is stored for the job run, and its parameters.

    On PostgreSQL no index spans the partitions, so only those of the job run's time are searched. OFFSET 0 keeps this
    an index look-up per row; as a join, one new event could read all events of the job run.
    """
    when, parameters = "", list[Any]([run.pk])
    if vendor.is_postgresql():
        when = "AND stored.received_at BETWEEN %s AND %s"
        parameters += [min(run.first_seen_at, received_at) - _EARLIER, received_at + _LATER]
    condition = f"""EXISTS (
        SELECT 1 FROM traffic_networkevent stored
        WHERE stored.job_run_id = %s AND stored.digest = sent.digest {when} LIMIT 1 OFFSET 0
    )"""  # noqa: S608 constants
    return condition, parameters


def _insert_json(run: JobRun, rows: Sequence[EventRow], received_at: datetime) -> InsertStatement:
    """One statement for all rows: PostgreSQL parses JSON as fast as the lines of a COPY.

    The statement itself skips events that are already stored, since a unique index of a partitioned table has to
    include the time of arrival. The caller holds the job run's row, so no other batch can store the same event
    meanwhile.
    """
    if not rows:
        return InsertStatement("", [], is_each=False)
    is_stored, parameters = _is_stored(run, received_at)
    source = bulk_json.source(**_COLUMNS)
    statement = f"{_INTO} SELECT %s, %s, %s, {_NAMES} FROM {source} AS sent WHERE NOT {is_stored}"  # noqa: S608 constants
    parameters = [*_shared_values(run, received_at), bulk_json.parameter(rows), *parameters]
    return InsertStatement(statement, parameters, is_each=False)


def _insert_each(run: JobRun, rows: Sequence[EventRow], received_at: datetime) -> InsertStatement:
    """A statement per row: SQLite would take half as long again to parse JSON."""
    shared = _shared_values(run, received_at)
    marks = ", ".join(["%s"] * (len(shared) + len(_COLUMNS)))
    encode = bulk_json.time_encoder()
    values = [
        (*shared, *row[:-2], encode(row.occurred_at), None if row.client_at is None else encode(row.client_at))
        for row in rows
    ]
    statement = f"{_INTO} VALUES ({marks}) ON CONFLICT (job_run_id, digest) DO NOTHING"
    return InsertStatement(statement, values, is_each=True)


def _shared_values(run: JobRun, received_at: datetime) -> list[Any]:
    """The values of the first columns, which are the same for all rows of a batch."""
    return [run.organization_id, run.pk, connection.ops.adapt_datetimefield_value(received_at)]
