"""Daily numbers for the charts of the Insights page, from tables with a row per run or job rather than per event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope

DAYS = 30


@dataclass(frozen=True, slots=True)
class Day:
    """One day (UTC): calls that went through, calls that were blocked, and job runs."""

    day: date
    allowed: int = 0
    blocked: int = 0
    runs: int = 0


class _DayOf(TruncDate):
    """The day of a time (UTC).

    On SQLite, Django would call a Python function for each row; the start of the stored text is the same.
    """

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, tuple[Any, ...]]:
        sql, parameters = compiler.compile(self.lhs)
        return f"substr({sql}, 1, 10)", tuple(parameters)


def calls_by_day(organization: Organization, *, days: int = DAYS) -> list[Day]:
    """The last days, oldest first and including today; a day without traffic has zeros."""
    rows = (
        _runs(organization, days)
        .annotate(day=_DayOf("first_seen_at"))
        .order_by()
        .values("day")
        .annotate(all_calls=Sum("calls"), blocked=Sum("blocked_calls"), runs=Count("pk"))
    )
    by_date = {
        row["day"]: Day(row["day"], row["all_calls"] - row["blocked"], row["blocked"], row["runs"]) for row in rows
    }
    return [by_date.get(day, Day(day)) for day in _dates(days)]


def new_endpoints_by_day(organization: Organization, *, days: int = DAYS) -> list[tuple[date, int]]:
    """How many endpoints the organization called for the first time on each of the last days, oldest first."""
    firsts = baseline.first_seen(organization, BaselineScope()).values_list("first", flat=True)
    counted = Counter(first.date() for first in firsts)
    return [(day, counted[day]) for day in _dates(days)]


def enforcement(organization: Organization, *, days: int = DAYS) -> dict[str, int]:
    """How many verified runs of the last days enforced a block policy, fell back to audit, or had no policy.

    A run that was served a block policy but made no call counts as neither: nothing proves what happened.
    """
    blocks = Q(egress_policy="block")
    counted: dict[str, int] = _runs(organization, days).aggregate(
        runs=Count("pk"),
        enforced=Count("pk", filter=blocks & Q(off_list_calls=0, calls__gt=0)),
        fell_back=Count("pk", filter=blocks & Q(off_list_calls__gt=0)),
        without_policy=Count("pk", filter=Q(policy_id__isnull=True)),
    )
    return counted


def _runs(organization: Organization, days: int) -> QuerySet[JobRun]:
    began = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    return JobRun.objects.filter(organization=organization, first_seen_at__gte=began).exclude(verified_by="")


def _dates(days: int) -> Sequence[date]:
    today = timezone.now().date()
    return [today - timedelta(days=days - 1 - number) for number in range(days)]
