"""Run bitmaps in the database: the worker builds them step by step, and impact previews load those of some days.

A bitmap holds the runs whose ids share their higher bits, and is rebuilt from RunEndpoint whenever that has new rows
for it. So it is exact however late an event arrives, ingest does no work for it, and past traffic is covered in the
same way.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F, Max, Sum
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.traffic.impact.replay import Traffic
from policystore.traffic.impact.run_bitmaps import SECONDS_PER_HOUR, Endpoint, Run, WorkflowKey, build, decode, encode
from policystore.traffic.models import BitmapProgress, RunBitmap, RunEndpoint

SHIFT = 12
IDS_PER_STEP = 50_000
# No transaction of ingest lasts nearly as long, nor do nearly as many rows become visible before it does.
RECHECK_AFTER = timedelta(minutes=10)
IDS_RECHECKED = 200_000
FINISHED_PER_TURN = 5
DAYS_OFFERED = (7, 14, 30, 60, 90)


@dataclass(frozen=True, slots=True)
class Window:
    """The runs of the last `days`, and how many each workflow key had.

    Calls that arrived until `counted_until` are included. It is None while past calls are prepared; `prepared` is the
    progress of that in percent.
    """

    traffic: Traffic
    runs: Mapping[WorkflowKey, int]
    days: int
    counted_until: datetime | None
    prepared: int

    @property
    def choices(self) -> list[int]:
        """The numbers of days to choose from."""
        return sorted({*DAYS_OFFERED, settings.IMPACT_DAYS})


def catch_up(*, seconds: float = 1.0, now: datetime | None = None) -> bool:
    """Bring the bitmaps up to date for about so many seconds; returns True if nothing is left to do.

    The next call continues where this one stops. Two workers at the same time do some work twice, without harm.
    """
    until = time.monotonic() + seconds
    now = now or timezone.now()
    progress, _ = BitmapProgress.objects.get_or_create(pk=1)
    last = RunEndpoint.objects.aggregate(last=Max("pk"))["last"] or 0
    while progress.seen_id < last:
        step_end = min(progress.seen_id + IDS_PER_STEP, last)
        _update(_touched(progress.seen_id, step_end), now)
        progress.seen_id = step_end
        progress.save(update_fields=["seen_id"])
        if time.monotonic() > until and step_end < last:
            return False
    _update(_touched(max(progress.recheck_id, last - IDS_RECHECKED), last), now)
    _finish(now)
    _caught_up(progress, now)
    return True


def rebuild(run_ids: Iterable[int]) -> None:
    """Have the bitmaps of these job runs rebuilt with their next call, or at the latest when they become final."""
    RunBitmap.objects.filter(number__in={run_id >> SHIFT for run_id in run_ids}).update(endpoints=0)


def _caught_up(progress: BitmapProgress, now: datetime) -> None:
    progress.caught_up_at = now
    if progress.marked_at is None or now - progress.marked_at >= RECHECK_AFTER:
        progress.recheck_id, progress.mark_id, progress.marked_at = progress.mark_id, progress.seen_id, now
    progress.save(update_fields=["caught_up_at", "recheck_id", "mark_id", "marked_at"])


def _touched(after: int, up_to: int) -> list[int]:
    """The numbers of the bitmaps that these rows of RunEndpoint belong to."""
    rows = RunEndpoint.objects.filter(pk__gt=after, pk__lte=up_to).order_by()
    numbers = rows.annotate(number=F("job_run_id").bitrightshift(SHIFT)).values_list("number", flat=True).distinct()
    return sorted(numbers)


def _update(numbers: Iterable[int], now: datetime) -> None:
    for number in numbers:
        if not _is_current(number):
            _build(number, now)


def _is_current(number: int) -> bool:
    """True if the bitmaps contain all rows, and the workflow keys that their runs had after the last fetch."""
    rows = RunEndpoint.objects.filter(**_range("job_run_id", number)).count()
    fetched = JobRun.objects.filter(calls__gt=0, **_range("pk", number)).aggregate(last=Max("fetched_at"))
    built = RunBitmap.objects.filter(number=number).aggregate(rows=Sum("endpoints"), last=Max("fetched_at"))
    return (rows, fetched["last"]) == (built["rows"] or 0, built["last"])


def _range(field: str, number: int) -> dict[str, int]:
    return {f"{field}__gte": number << SHIFT, f"{field}__lt": (number + 1) << SHIFT}


def _build(number: int, now: datetime) -> None:
    """Build the bitmaps with this number, one per organization."""
    calls: defaultdict[int, list[tuple[int, Endpoint]]] = defaultdict(list)
    rows = RunEndpoint.objects.filter(**_range("job_run_id", number)).order_by()
    for organization, run, host, port in rows.values_list("organization_id", "job_run_id", "host", "port"):
        calls[organization].append((run, (host, port)))
    # Read after the calls, so that a call without its run belongs to one that was deleted meanwhile, with its calls.
    runs = {run.pk: run for run in JobRun.objects.filter(**_range("pk", number))}
    left = {
        organization: [(run, endpoint) for run, endpoint in calls[organization] if run in runs]
        for organization in sorted(calls)
    }
    RunBitmap.objects.bulk_create(
        [_bitmap(number, organization, of_runs, runs, now) for organization, of_runs in left.items() if of_runs],
        update_conflicts=True,
        unique_fields=["number", "organization"],
        update_fields=["newest_at", "endpoints", "fetched_at", "is_final", "content"],
    )


def _bitmap(
    number: int, organization: int, calls: list[tuple[int, Endpoint]], runs: dict[int, JobRun], now: datetime
) -> RunBitmap:
    used = [runs[key] for key in {key for key, _ in calls}]
    newest = max(run.first_seen_at for run in used)
    return RunBitmap(
        organization_id=organization,
        number=number,
        newest_at=newest,
        endpoints=len(calls),
        fetched_at=max((run.fetched_at for run in used if run.fetched_at), default=None),
        is_final=newest < now - _open_for(),
        content=encode(build({run.pk: _run(run) for run in used}, calls)),
    )


def _run(run: JobRun) -> Run:
    key = WorkflowKey(run.repository.lower(), run.workflow, run.cluster)
    return Run(key, int(run.first_seen_at.timestamp()) // SECONDS_PER_HOUR)


def _finish(now: datetime) -> None:
    """Build bitmaps a last time once telemetry of their runs is no longer accepted, in case something was missed."""
    rows = RunBitmap.objects.filter(is_final=False, newest_at__lt=now - _open_for()).order_by("newest_at")
    for number in sorted(set(rows.values_list("number", flat=True)[:FINISHED_PER_TURN])):
        _build(number, now)


def _open_for() -> timedelta:
    return timedelta(hours=settings.JOB_RUN_OPEN_HOURS)


def chosen_days(text: str) -> int:
    """The chosen number of days; the setting IMPACT_DAYS if it is not one of those offered."""
    offered = {str(days): days for days in DAYS_OFFERED}
    default: int = settings.IMPACT_DAYS
    return offered.get(text, default)


def load_window(organization: Organization, days: int) -> Window:
    """Load what the organization's runs of the last days called."""
    since = timezone.now() - timedelta(days=days)
    rows = RunBitmap.objects.filter(organization=organization, newest_at__gte=since).order_by("-newest_at")
    bitmaps = [decode(bytes(content)) for content in rows.values_list("content", flat=True)]
    progress = BitmapProgress.objects.filter(pk=1).first()
    traffic = Traffic(bitmaps, since=int(since.timestamp()) // SECONDS_PER_HOUR)
    return Window(
        traffic=traffic,
        runs=traffic.runs_by_key(),
        days=days,
        counted_until=progress.caught_up_at if progress else None,
        prepared=_prepared(progress),
    )


def _prepared(progress: BitmapProgress | None) -> int:
    if progress and progress.caught_up_at:
        return 100
    last = RunEndpoint.objects.aggregate(last=Max("pk"))["last"] or 0
    seen = progress.seen_id if progress else 0
    return min(99, seen * 100 // last) if last else 0
