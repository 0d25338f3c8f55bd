"""Recounts job runs whose calls arrived before the store knew their workflow, policy or job.

Events of a run that is not verified yet are stored but not counted. The worker counts all of them once the run is
verified, so that nothing is lost and nothing counts twice.

A job's fetch is recorded shortly after it was answered, and `monitor` may come late, so on a busy machine telemetry can
arrive first. A system with an API key may even report on a job that has no row yet. All calls of such a run, however
many, are counted for the job as it was first known, until the worker moves them as a whole in one transaction. So each
is counted once, and ingest has no extra work. The worker checks every ten seconds and waits at least that long before
it checks a run, so it takes about twenty seconds until the calls are counted for the right job.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.utils import timezone

from policystore.db import bulk_json
from policystore.runners import job_runs
from policystore.runners.models import JobRun
from policystore.traffic import aggregates
from policystore.traffic.aggregates import Counts, Endpoint, Job, Tally
from policystore.traffic.event_parser import is_call
from policystore.traffic.impact import bitmap_store
from policystore.traffic.models import NOT_ALLOWED, EarlyRun, NetworkEvent, RunEndpoint, Status
from policystore.traffic.verdicts import Verdicts, verdicts_for

FIRST_CHECK_AFTER = timedelta(seconds=10)
MAX_PAUSE = timedelta(hours=1)
CHECKED_PER_TURN = 200
# One statement for all endpoints with the same outcome, since a run may have thousands.
_JUDGE = """
UPDATE traffic_networkevent SET status = %s, is_new = %s WHERE job_run_id = %s AND status <> %s
AND (kind, host, port) IN (SELECT kind, host, port FROM {source} AS judged)
"""


@dataclass(frozen=True, slots=True)
class Settled:
    """A run that was recounted. `emptied` is the row without run id that its calls came from, which can be deleted.

    `is_first_count` is true if the run was unverified before, so that its events are checked for detections only now.
    """

    run: JobRun
    emptied: JobRun | None
    is_first_count: bool


def is_early(run: JobRun) -> bool:
    """True if something is still unknown that the run's calls are counted or judged by."""
    return run.fetched_at is None or not run.job or not run.run_id or not run.is_verified


def remember(run: JobRun, early: EarlyRun | None, now: datetime) -> EarlyRun | None:
    """The run's EarlyRun, created if the run is early and has none. The caller holds the run's row."""
    if early is None and is_early(run):
        known = {**_known_of(run, now, now + FIRST_CHECK_AFTER), "is_counted": run.is_verified}
        early, _ = EarlyRun.objects.get_or_create(job_run=run, defaults=known)
    return early


def due(*, now: datetime | None = None) -> list[int]:
    """The ids of early runs to check now, at most CHECKED_PER_TURN of either kind.

    Unverified runs are not checked repeatedly: an attacker could invent many to delay the others.
    """
    counted = EarlyRun.objects.filter(is_counted=True, look_at__lte=now or timezone.now()).order_by("look_at")
    verified = EarlyRun.objects.filter(is_counted=False).exclude(job_run__verified_by="").order_by("look_at")
    return [
        *verified.values_list("pk", flat=True)[:CHECKED_PER_TURN],
        *counted.values_list("pk", flat=True)[:CHECKED_PER_TURN],
    ]


def settle(early_id: int, *, now: datetime | None = None) -> Settled | None:
    """Count and judge the run's calls by what is known now; None if that is no more than before.

    Runs in the caller's transaction.
    """
    now = now or timezone.now()
    run = JobRun.objects.filter(pk=early_id).first()
    ids = {early_id, _same_job(run)} if run else set()
    held = {row.pk: row for row in JobRun.objects.select_for_update().filter(pk__in=ids).order_by("pk")}
    early = EarlyRun.objects.filter(pk=early_id).first()
    if early is None or early_id not in held:
        return None
    source = held.pop(early_id)
    target = next(iter(held.values()), source)
    if not early.is_counted and not source.is_verified:
        return None
    if early.is_counted and target is source and not _knows_more(source, early):
        _check_later(early, now)
        return None
    _recount(source, target, early, now)
    return Settled(run=target, emptied=None if target is source else source, is_first_count=not early.is_counted)


def _same_job(run: JobRun) -> int:
    """For a row without run id, the id of the later row that represents the same job; otherwise the row's own id."""
    if run.run_id:
        return run.pk
    same = JobRun.objects.filter(
        organization_id=run.organization_id, correlation_id=run.correlation_id, repository__iexact=run.repository
    )
    later = same.exclude(run_id="").filter(pk__gt=run.pk).order_by("pk").values_list("pk", flat=True)
    return later.first() or run.pk


def _known_of(run: JobRun, since: datetime, look_at: datetime) -> dict[str, object]:
    job = aggregates.job_of(run)
    del job["organization_id"]
    return {**job, "fetched_at": run.fetched_at, "since": since, "look_at": look_at}


def _knows_more(run: JobRun, early: EarlyRun) -> bool:
    return aggregates.job_of(run) != aggregates.job_of(run, early) or run.fetched_at != early.fetched_at


def _check_later(early: EarlyRun, now: datetime) -> None:
    """Check less and less often, until telemetry of the job is no longer accepted."""
    age = now - early.since
    if age > timedelta(hours=settings.JOB_RUN_OPEN_HOURS):
        early.delete()
        return
    early.look_at = now + min(max(age / 2, FIRST_CHECK_AFTER), MAX_PAUSE)
    early.save(update_fields=["look_at"])


def _recount(source: JobRun, target: JobRun, early: EarlyRun, now: datetime) -> None:
    carried: Mapping[Endpoint, Counts] = {}
    if early.is_counted:
        before = {
            (row.host, row.port): Tally(row.calls, row.blocked_calls, row.first_seen_at, row.last_seen_at)
            for row in RunEndpoint.objects.filter(job_run=source)
        }
        left = aggregates.take_back(source, aggregates.job_of(source, early), before)
        carried = _of_cluster(left, stays=early.cluster == target.cluster)
        RunEndpoint.objects.filter(job_run=source).delete()
    else:
        before = _tallies_of_events(source)
    if target is not source and _moves_to_uncounted(source, target, now):
        return
    after = before if target is source else _without_repeats(source, target, before)
    reached = {endpoint for endpoint, tally in after.items() if tally.calls > tally.blocked_calls}
    verdicts = verdicts_for(target)
    new = aggregates.new_endpoints(target, reached, aggregates.job_of(target)) & reached
    _judge(source, verdicts, new)
    moved = 0 if target is source else NetworkEvent.objects.filter(job_run=source).update(job_run=target)
    is_new_to_run = target is not source or not early.is_counted
    _describe_run(target, after, verdicts, len(new), moved=moved, is_new_to_run=is_new_to_run)
    job = _recounted_as(source, target, now)
    if after:
        aggregates.add(target, after, job, carried)
    bitmap_store.rebuild({source.pk, target.pk})
    if target is source and is_early(target):
        known = {**_known_of(target, early.since, now + FIRST_CHECK_AFTER), "is_counted": True}
        EarlyRun.objects.filter(pk=early.pk).update(**known)
    else:
        EarlyRun.objects.filter(pk=early.pk).delete()


def _of_cluster(left: Mapping[Endpoint, Counts], *, stays: bool) -> dict[Endpoint, Counts]:
    """The counts left over, without those of the cluster if the run turned out to be on another one."""
    return {endpoint: (0, cluster if stays else 0, repository) for endpoint, (_, cluster, repository) in left.items()}


def _moves_to_uncounted(source: JobRun, target: JobRun, now: datetime) -> bool:
    """If the target's own events are not counted yet, move the events there, to be counted together later.

    The sender of the events of `source` had an API key, which verifies `target` too: it is the same job. Returns True
    if the events were moved.
    """
    job_runs.verify(run=target, verified_by=source.verified_by)
    waiting = EarlyRun.objects.filter(pk=target.pk, is_counted=False)
    if not waiting.exists():
        return False
    _without_repeats(source, target, {})
    moved = NetworkEvent.objects.filter(job_run=source).update(job_run=target)
    job_runs.count_events(run=target, events=moved)
    EarlyRun.objects.filter(pk=source.pk).delete()
    waiting.update(look_at=now)
    bitmap_store.rebuild({source.pk})
    return True


def _tallies_of_events(run: JobRun) -> dict[Endpoint, Tally]:
    """The sums of a run's stored events, none of which is counted yet."""
    rows = NetworkEvent.objects.filter(job_run=run).order_by()
    events = rows.values_list("kind", "host", "port", "status", "occurred_at").iterator()
    return aggregates.tally(
        ((host, port), status == Status.BLOCKED, at)
        for kind, host, port, status, at in events
        if is_call(kind, host, status)
    )


def _recounted_as(source: JobRun, target: JobRun, now: datetime) -> Job:
    if target is source:
        return aggregates.job_of(target)
    # More may still become known about a run that has sent no calls itself so far.
    early = EarlyRun.objects.filter(pk=target.pk).first()
    return aggregates.job_of(target, remember(target, early, now))


def _without_repeats(source: JobRun, target: JobRun, tallies: Mapping[Endpoint, Tally]) -> dict[Endpoint, Tally]:
    """The calls without those that were sent again once the job was known, whose events are deleted."""
    left = {endpoint: Tally(*tally.values) for endpoint, tally in tallies.items()}
    stored = NetworkEvent.objects.filter(job_run=target).values("digest")
    repeated = NetworkEvent.objects.filter(job_run=source, digest__in=stored)
    for event in repeated.only("host", "port", "kind", "status"):
        tally = left.get((event.host, event.port))
        if tally is not None and is_call(event.kind, event.host, event.status):
            tally.calls -= 1
            tally.blocked_calls -= event.status == Status.BLOCKED
    repeated.delete()
    return {endpoint: tally for endpoint, tally in left.items() if tally.calls > 0}


def _judge(run: JobRun, verdicts: Verdicts, new: Set[Endpoint]) -> None:
    rows = NetworkEvent.objects.filter(job_run=run).exclude(status=Status.BLOCKED)
    judged = defaultdict(list)
    for kind, host, port in rows.order_by().values_list("kind", "host", "port").distinct():
        is_new = (host, port) in new and kind == NetworkEvent.Kind.CONNECTION
        judged[verdicts.judge(kind, host, port), is_new].append((kind, host, port))
    statement = _JUDGE.format(source=bulk_json.source(kind="text", host="text", port="integer"))
    with connection.cursor() as cursor:
        for (status, is_new), calls in judged.items():
            cursor.execute(statement, [status, is_new, run.pk, Status.BLOCKED, bulk_json.parameter(calls)])


def _describe_run(
    run: JobRun,
    tallies: Mapping[Endpoint, Tally],
    verdicts: Verdicts,
    new: int,
    *,
    moved: int,
    is_new_to_run: bool,
) -> None:
    off_list = sum(
        tally.calls - tally.blocked_calls
        for (host, port), tally in tallies.items()
        if verdicts.judge(NetworkEvent.Kind.CONNECTION, host, port) in NOT_ALLOWED
    )
    if not is_new_to_run:
        job_runs.update_verdicts(run=run, off_list=off_list, new_endpoints=new)
        return
    job_runs.count_events(
        run=run,
        events=moved,
        calls=sum(tally.calls for tally in tallies.values()),
        blocked=sum(tally.blocked_calls for tally in tallies.values()),
        off_list=off_list,
        new_endpoints=new,
    )
