"""What a staged version would have blocked, and did block for its canaries.

The worker judges observed calls by staged versions as they arrive, so that ingest does no work for it. A run is judged
again as a whole whenever it makes another call, so nothing is counted twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Max, Q, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from policystore.db import transactions
from policystore.policies import exceptions
from policystore.policies.exceptions import PastExceptions
from policystore.policies.models import StagedVersion
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.runners.models import JobRun
from policystore.traffic.models import RunEndpoint, StagedProgress, StagedRun
from policystore.traffic.verdicts import Listed

# Longer than any transaction of ingest lasts.
SETTLED_AFTER = timedelta(seconds=15)
IDS_PER_STEP = 20_000
STEPS_PER_TURN = 10
RUNS_PER_STEP = 500
OFF_LIST_KEPT = 50
DELETED_PER_STEP = 2_000
DAYS = 30
RUNS_READ = 2_000
ENDPOINTS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Day:
    """Runs of one day (UTC).

    `runs` got the live version; the staged one would have blocked `would_block` of them. `canaries` got the staged
    version, which blocked `blocked` of them.
    """

    day: date
    runs: int = 0
    would_block: int = 0
    canaries: int = 0
    blocked: int = 0


@dataclass(frozen=True, slots=True)
class OffList:
    """An endpoint that the staged version does not certainly allow, and how many of the latest runs called it."""

    endpoint: str
    runs: int


def by_day(staged: StagedVersion, *, now: datetime | None = None) -> list[Day]:
    """The days since the version was staged, at most DAYS, oldest first and including today."""
    today = (now or timezone.now()).astimezone(UTC).date()
    first = max(staged.staged_at.astimezone(UTC).date(), today - timedelta(days=DAYS - 1))
    since = datetime.combine(first, time(), UTC)
    live = _grouped(
        StagedRun.objects.filter(event_id=staged.event_id, began_at__gte=since), "began_at", Q(off_list_count__gt=0)
    )
    canaries = _grouped(
        JobRun.objects.filter(staged_event_id=staged.event_id, first_seen_at__gte=since),
        "first_seen_at",
        Q(blocked_calls__gt=0),
    )
    days = [first + timedelta(days=number) for number in range((today - first).days + 1)]
    return [Day(day, *live.get(day, (0, 0)), *canaries.get(day, (0, 0))) for day in days]


def off_list(staged: StagedVersion) -> list[OffList]:
    """Off-list endpoints of the latest RUNS_READ runs that would have been blocked, most frequent first."""
    rows = StagedRun.objects.filter(event_id=staged.event_id, off_list_count__gt=0).order_by("-job_run")
    counted: Counter[str] = Counter()
    for endpoints in rows.values_list("off_list", flat=True)[:RUNS_READ]:
        counted.update(endpoints)
    return [OffList(endpoint, runs) for endpoint, runs in counted.most_common(ENDPOINTS_SHOWN)]


def catch_up(*, settled_after: timedelta = SETTLED_AFTER, now: datetime | None = None) -> int:
    """Judge the calls that have settled since the last turn, as many as fit; returns how many runs were judged.

    If two workers call this at the same time, one waits for the other.
    """
    now = now or timezone.now()
    StagedProgress.objects.get_or_create(pk=1)
    judged = 0
    for _ in range(STEPS_PER_TURN):
        with transaction.atomic():
            progress = StagedProgress.objects.select_for_update().get(pk=1)
            _mark(progress, settled_after, now)
            if progress.seen_id >= progress.mark_id or now - (progress.marked_at or now) < settled_after:
                break
            judged += _step(progress)
    return judged


def delete_old() -> bool:
    """Delete the results of versions that are no longer staged; returns True if some are left."""
    current = StagedVersion.objects.values("event_id")
    old = StagedRun.objects.exclude(event_id__in=current)

    def delete() -> int:
        ids = list(old.values_list("pk", flat=True)[:DELETED_PER_STEP])
        StagedRun.objects.filter(pk__in=ids).delete()
        return len(ids)

    return transactions.repeat_in_batches(delete, size=DELETED_PER_STEP)


def _grouped(rows: QuerySet[Any], time_field: str, stopped: Q) -> dict[date, tuple[int, int]]:
    """By day, the number of rows and how many of them meet the condition."""
    counted = (
        rows.annotate(day=TruncDate(time_field, tzinfo=UTC))
        .order_by()
        .values("day")
        .annotate(runs=Count("pk"), stopped=Count("pk", filter=stopped))
    )
    return {row["day"]: (row["runs"], row["stopped"]) for row in counted}


@dataclass(frozen=True, slots=True)
class _Judge:
    """Judges runs by one staged version.

    `listed` is None for an audit policy that lists nothing, and for a reply that was edited in the database.
    """

    event_id: int
    since: datetime
    listed: Listed | None
    exceptions: PastExceptions
    # By what exceptions allow in addition to the list, which seldom changes.
    _allowed: dict[tuple[str, ...], AllowList] = field(init=False, default_factory=dict)

    @classmethod
    def of(cls, staged: StagedVersion, exceptions: PastExceptions) -> _Judge:
        listed = Listed.parse(staged.reply)
        if listed is not None and listed.judges_nothing(staged.egress_policy):
            listed = None
        return cls(staged.event_id, staged.staged_at, listed, exceptions)

    def concerns(self, run: JobRun) -> bool:
        """True if the run got the live version while this one was staged. Canaries get this one and need no judging."""
        return run.first_seen_at >= self.since and run.staged_event_id is None

    def row(self, run: JobRun, called: list[tuple[str, int]]) -> StagedRun:
        allowed = self._allowed_for(run)
        off = [f"{host}:{port}" for host, port in called if allowed and allowed.verdict(host, port) != Verdict.ALLOWED]
        return StagedRun(
            event_id=self.event_id,
            job_run=run,
            began_at=run.first_seen_at,
            off_list=off[:OFF_LIST_KEPT],
            off_list_count=len(off),
        )

    def _allowed_for(self, run: JobRun) -> AllowList | None:
        """What the version would have allowed the run, with the exceptions of that time."""
        if self.listed is None:
            return None
        more = self.exceptions.at(run.fetched_at or run.first_seen_at)
        if more not in self._allowed:
            self._allowed[more] = self.listed.with_exceptions(more)
        return self._allowed[more]


def _mark(progress: StagedProgress, settled_after: timedelta, now: datetime) -> None:
    """If everything marked is judged, mark what is there now, for a later turn."""
    if progress.seen_id < progress.mark_id:
        return
    progress.mark_id = RunEndpoint.objects.aggregate(last=Max("pk"))["last"] or 0
    progress.marked_at = now
    progress.save(update_fields=["mark_id", "marked_at"])


def _step(progress: StagedProgress) -> int:
    judges = _judges()
    until = min(progress.seen_id + IDS_PER_STEP, progress.mark_id) if judges else progress.mark_id
    judged = _judge(judges, progress.seen_id, until) if judges else 0
    progress.seen_id = until
    progress.save(update_fields=["seen_id"])
    return judged


def _judges() -> dict[int, _Judge]:
    versions = list(StagedVersion.objects.all())
    if not versions:
        return {}
    known = exceptions.open_since(min(staged.staged_at for staged in versions), [staged.pk for staged in versions])
    return {staged.pk: _Judge.of(staged, known.get(staged.pk, exceptions.NO_PAST_EXCEPTIONS)) for staged in versions}


def _judge(judges: Mapping[int, _Judge], after: int, until: int) -> int:
    rows = RunEndpoint.objects.filter(pk__gt=after, pk__lte=until, job_run__policy_id__in=list(judges))
    ids = sorted(rows.order_by().values_list("job_run_id", flat=True).distinct())
    for start in range(0, len(ids), RUNS_PER_STEP):
        _judge_runs(judges, ids[start : start + RUNS_PER_STEP])
    return len(ids)


def _judge_runs(judges: Mapping[int, _Judge], ids: list[int]) -> None:
    runs = JobRun.objects.in_bulk(ids)
    called: dict[int, list[tuple[str, int]]] = {}
    endpoints = RunEndpoint.objects.filter(job_run__in=ids).order_by("host", "port")
    for run_id, host, port in endpoints.values_list("job_run_id", "host", "port"):
        called.setdefault(run_id, []).append((host, port))
    rows = []
    for run_id, run in sorted(runs.items()):
        # A fetch may have given the run another policy since the ids were read, or its calls may have moved to the row
        # of the job that they turned out to belong to.
        judge = judges.get(run.policy_id or 0)
        if run_id in called and judge is not None and judge.concerns(run):
            rows.append(judge.row(run, called[run_id]))
    StagedRun.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["event_id", "job_run"],
        update_fields=["off_list", "off_list_count"],
    )
