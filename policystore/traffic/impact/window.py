"""The observed traffic of the last days, from the run bitmaps that the worker builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db.models import Max
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.traffic.impact.replay import Traffic
from policystore.traffic.impact.run_bitmaps import WorkflowKey, decode
from policystore.traffic.models import BitmapProgress, RunBitmap, RunEndpoint

SECONDS_PER_HOUR = 3600
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


def hour_at(hour: int) -> datetime:
    """The time when an hour begins, counted in hours since 1970."""
    return datetime.fromtimestamp(hour * SECONDS_PER_HOUR, UTC)
