"""The observed traffic of the last days, from the sheets that the worker keeps, and up to when it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db.models import Max
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policy_language.replay import Traffic
from policystore.policy_language.run_bitmaps import Place, unpack
from policystore.traffic.models import RunEndpoint, RunSheet, SheetProgress

SECONDS_PER_HOUR = 3600
DAYS_OFFERED = (7, 14, 30, 60, 90)


@dataclass(frozen=True, slots=True)
class Window:
    """The runs of the last `days`, and how many each place had.

    Calls that arrived until `counted_until` are in; it is None while past ones are prepared, and `prepared` says how
    far that is, in percent.
    """

    traffic: Traffic
    runs: Mapping[Place, int]
    days: int
    counted_until: datetime | None
    prepared: int

    @property
    def choices(self) -> list[int]:
        """The numbers of days that a page offers."""
        return sorted({*DAYS_OFFERED, settings.IMPACT_DAYS})


def chosen_days(text: str) -> int:
    """The number of days that a person chose; the setting where it is none that is offered."""
    offered = {str(days): days for days in DAYS_OFFERED}
    default: int = settings.IMPACT_DAYS
    return offered.get(text, default)


def window(organization: Organization, days: int) -> Window:
    """Read what the organization's runs of the last days called."""
    since = timezone.now() - timedelta(days=days)
    rows = RunSheet.objects.filter(organization=organization, newest_at__gte=since).order_by("-newest_at")
    sheets = [unpack(bytes(content)) for content in rows.values_list("content", flat=True)]
    progress = SheetProgress.objects.filter(pk=1).first()
    traffic = Traffic(sheets, since=int(since.timestamp()) // SECONDS_PER_HOUR)
    return Window(
        traffic=traffic,
        runs=traffic.runs_by_place(),
        days=days,
        counted_until=progress.caught_up_at if progress else None,
        prepared=_prepared(progress),
    )


def _prepared(progress: SheetProgress | None) -> int:
    if progress and progress.caught_up_at:
        return 100
    last = RunEndpoint.objects.aggregate(last=Max("pk"))["last"] or 0
    seen = progress.seen_id if progress else 0
    return min(99, seen * 100 // last) if last else 0


def hour_at(hour: int) -> datetime:
    """The moment at which an hour, counted from 1970, begins."""
    return datetime.fromtimestamp(hour * SECONDS_PER_HOUR, UTC)
