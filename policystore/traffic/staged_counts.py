"""What a staged version would have blocked, and did block for its canaries: numbers by day."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from policystore.policies.models import StagedVersion
from policystore.runners.models import JobRun
from policystore.traffic.models import StagedRun

DAYS = 30
RUNS_READ = 2_000
ENDPOINTS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Day:
    """Runs of one day (UTC): those that got the live version, and how many of them the staged one would have blocked;
    canaries, and how many of them were blocked."""

    day: date
    runs: int = 0
    would_block: int = 0
    canaries: int = 0
    blocked: int = 0


@dataclass(frozen=True, slots=True)
class OffList:
    """An endpoint that the staged version does not allow for certain, and how many of the latest runs called it."""

    endpoint: str
    runs: int


def by_day(staged: StagedVersion, *, now: datetime | None = None) -> list[Day]:
    """The days since it was staged, at most DAYS, oldest first and today included."""
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


def _grouped(rows: QuerySet[Any], moment: str, stopped: Q) -> dict[date, tuple[int, int]]:
    counted = (
        rows.annotate(day=TruncDate(moment, tzinfo=UTC))
        .order_by()
        .values("day")
        .annotate(runs=Count("pk"), stopped=Count("pk", filter=stopped))
    )
    return {row["day"]: (row["runs"], row["stopped"]) for row in counted}


def off_list(staged: StagedVersion) -> list[OffList]:
    """What the latest RUNS_READ runs that would have been stopped called off its list, most frequent first."""
    rows = StagedRun.objects.filter(event_id=staged.event_id, off_list_count__gt=0).order_by("-job_run")
    counted: Counter[str] = Counter()
    for endpoints in rows.values_list("off_list", flat=True)[:RUNS_READ]:
        counted.update(endpoints)
    return [OffList(endpoint, runs) for endpoint, runs in counted.most_common(ENDPOINTS_SHOWN)]
