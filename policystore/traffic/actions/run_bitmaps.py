"""Puts what runs called onto sheets, for previews of what a policy would do: little by little, in the worker.

A sheet holds the runs whose ids share their higher bits, and is made anew from RunEndpoint whenever that has more for
it. So it is exact however late an event comes, ingest does no work for it, and past traffic is covered in the same way.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F, Max, Sum
from django.utils import timezone

from policystore.policy_language.run_bitmaps import Endpoint, Place, Run, fill, pack
from policystore.runners.models import JobRun
from policystore.traffic.models import RunEndpoint, RunSheet, SheetProgress

SHIFT = 12
IDS_PER_STEP = 50_000
# No transaction of ingest lasts nearly that long, or has nearly as many rows after it meanwhile.
LOOK_AGAIN_AFTER = timedelta(minutes=10)
IDS_LOOKED_AT_AGAIN = 200_000
FINISHED_A_TURN = 5
SECONDS_PER_HOUR = 3600


def catch_up(*, seconds: float = 1.0, now: datetime | None = None) -> bool:
    """Bring the sheets up to date for about so many seconds; returns whether nothing is left to do.

    What is not done goes on at the next call. Two workers at once do some work twice, and no harm.
    """
    until = time.monotonic() + seconds
    now = now or timezone.now()
    progress, _ = SheetProgress.objects.get_or_create(pk=1)
    last = RunEndpoint.objects.aggregate(last=Max("pk"))["last"] or 0
    while progress.seen_id < last:
        step_end = min(progress.seen_id + IDS_PER_STEP, last)
        _renew(_touched(progress.seen_id, step_end), now)
        progress.seen_id = step_end
        progress.save(update_fields=["seen_id"])
        if time.monotonic() > until and step_end < last:
            return False
    _renew(_touched(max(progress.again_id, last - IDS_LOOKED_AT_AGAIN), last), now)
    _finish(now)
    _caught_up(progress, now)
    return True


def make_again(runs: Iterable[int]) -> None:
    """Make the sheets of these job runs anew with the next of their calls, or at the latest when they are final."""
    RunSheet.objects.filter(number__in={run >> SHIFT for run in runs}).update(endpoints=0)


def _caught_up(progress: SheetProgress, now: datetime) -> None:
    progress.caught_up_at = now
    if progress.marked_at is None or now - progress.marked_at >= LOOK_AGAIN_AFTER:
        progress.again_id, progress.mark_id, progress.marked_at = progress.mark_id, progress.seen_id, now
    progress.save(update_fields=["caught_up_at", "again_id", "mark_id", "marked_at"])


def _touched(after: int, up_to: int) -> list[int]:
    """The numbers of the sheets onto which these rows of RunEndpoint belong."""
    rows = RunEndpoint.objects.filter(pk__gt=after, pk__lte=up_to).order_by()
    numbers = rows.annotate(number=F("job_run_id").bitrightshift(SHIFT)).values_list("number", flat=True).distinct()
    return sorted(numbers)


def _renew(numbers: Iterable[int], now: datetime) -> None:
    for number in numbers:
        if not _is_current(number):
            _make(number, now)


def _is_current(number: int) -> bool:
    """Whether the sheets have all rows, and know what the last fetch told of the places of their runs."""
    rows = RunEndpoint.objects.filter(**_range("job_run_id", number)).count()
    fetched = JobRun.objects.filter(calls__gt=0, **_range("pk", number)).aggregate(last=Max("fetched_at"))
    made = RunSheet.objects.filter(number=number).aggregate(rows=Sum("endpoints"), last=Max("fetched_at"))
    return (rows, fetched["last"]) == (made["rows"] or 0, made["last"])


def _range(field: str, number: int) -> dict[str, int]:
    return {f"{field}__gte": number << SHIFT, f"{field}__lt": (number + 1) << SHIFT}


def _make(number: int, now: datetime) -> None:
    """Make the sheets of all organizations with this number."""
    calls: defaultdict[int, list[tuple[int, Endpoint]]] = defaultdict(list)
    rows = RunEndpoint.objects.filter(**_range("job_run_id", number)).order_by()
    for organization, run, host, port in rows.values_list("organization_id", "job_run_id", "host", "port"):
        calls[organization].append((run, (host, port)))
    # Read after the calls, so that no call is there without its run.
    runs = {run.pk: run for run in JobRun.objects.filter(**_range("pk", number))}
    RunSheet.objects.bulk_create(
        [_sheet(number, organization, calls[organization], runs, now) for organization in sorted(calls)],
        update_conflicts=True,
        unique_fields=["number", "organization"],
        update_fields=["newest_at", "endpoints", "fetched_at", "is_final", "content"],
    )


def _sheet(
    number: int, organization: int, calls: list[tuple[int, Endpoint]], runs: dict[int, JobRun], now: datetime
) -> RunSheet:
    used = [runs[key] for key in {key for key, _ in calls}]
    newest = max(run.first_seen_at for run in used)
    return RunSheet(
        organization_id=organization,
        number=number,
        newest_at=newest,
        endpoints=len(calls),
        fetched_at=max((run.fetched_at for run in used if run.fetched_at), default=None),
        is_final=newest < now - _open_for(),
        content=pack(fill({run.pk: _run(run) for run in used}, calls)),
    )


def _run(run: JobRun) -> Run:
    place = Place(run.repository.lower(), run.workflow, run.cluster)
    return Run(place, int(run.first_seen_at.timestamp()) // SECONDS_PER_HOUR)


def _finish(now: datetime) -> None:
    """Make sheets a last time when no telemetry is taken for their runs any more, whatever was missed before."""
    rows = RunSheet.objects.filter(is_final=False, newest_at__lt=now - _open_for()).order_by("newest_at")
    for number in sorted(set(rows.values_list("number", flat=True)[:FINISHED_A_TURN])):
        _make(number, now)


def _open_for() -> timedelta:
    return timedelta(hours=settings.JOB_RUN_OPEN_HOURS)
