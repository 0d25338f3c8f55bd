"""Numbers of the Insights page, from tables with a row per run or job rather than per event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Q, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncHour
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.runners.queries import RUN_TAGS
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.models import RunEndpoint

ROWS_SHOWN = 10
# The latest runs with blocked calls whose endpoints are counted.
BLOCKED_RUNS_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Period:
    """The last `length` hours or days (UTC), the current one included."""

    label: str
    length: int
    is_hourly: bool = False

    def starts(self) -> list[datetime]:
        """When each hour or day begins, oldest first."""
        now = timezone.now().replace(minute=0, second=0, microsecond=0)
        last, step = (now, timedelta(hours=1)) if self.is_hourly else (now.replace(hour=0), timedelta(days=1))
        return [last - step * (self.length - 1 - number) for number in range(self.length)]

    def start_of(self, at: datetime) -> datetime:
        """When the hour or day of this time begins."""
        hour = at.replace(minute=0, second=0, microsecond=0)
        return hour if self.is_hourly else hour.replace(hour=0)


PERIODS = {
    "24h": Period("24 hours", 24, is_hourly=True),
    "7d": Period("7 days", 7),
    "": Period("30 days", 30),
}


@dataclass(frozen=True, slots=True)
class Slot:
    """One hour or day: calls that went through, calls that were blocked, and job runs."""

    start: datetime
    allowed: int = 0
    blocked: int = 0
    runs: int = 0


class _OnSqlite:
    """On SQLite, Django would call a Python function for each row; the start of the stored text is the same."""

    length: int
    lhs: Any

    def as_sqlite(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, tuple[Any, ...]]:
        sql, parameters = compiler.compile(self.lhs)
        rest = "0000-00-00 00:00:00"[self.length :]
        return f"substr({sql}, 1, {self.length}) || '{rest}'", tuple(parameters)


class _Day(_OnSqlite, TruncDay):
    length = len("2000-01-01")


class _Hour(_OnSqlite, TruncHour):
    length = len("2000-01-01 00")


def calls(organization: Organization, period: Period) -> list[Slot]:
    """The hours or days of the period, oldest first; one without traffic has zeros."""
    rows = (
        _runs(organization, period)
        .annotate(start=(_Hour if period.is_hourly else _Day)("first_seen_at"))
        .order_by()
        .values("start")
        .annotate(all_calls=Sum("calls"), blocked=Sum("blocked_calls"), runs=Count("pk"))
    )
    by_start = {
        row["start"]: Slot(row["start"], row["all_calls"] - row["blocked"], row["blocked"], row["runs"]) for row in rows
    }
    return [by_start.get(start, Slot(start)) for start in period.starts()]


def new_endpoints(organization: Organization, period: Period) -> list[tuple[datetime, int]]:
    """How many endpoints the organization called for the first time in each hour or day, oldest first."""
    firsts = baseline.first_seen(organization, BaselineScope()).values_list("first", flat=True)
    counted = Counter(period.start_of(first) for first in firsts)
    return [(start, counted[start]) for start in period.starts()]


def enforcement(organization: Organization, period: Period) -> dict[str, int]:
    """How many verified runs of the period enforced a block policy, were downgraded, or had no policy.

    A run that was served a block policy but made no call counts as neither: nothing proves what happened.
    """
    counted: dict[str, int] = _runs(organization, period).aggregate(
        runs=Count("pk"),
        enforced=Count("pk", filter=RUN_TAGS["enforcing"][1]),
        downgraded=Count("pk", filter=RUN_TAGS["downgraded"][1]),
        blocked=Count("pk", filter=RUN_TAGS["blocked"][1]),
        without_policy=Count("pk", filter=Q(policy_id__isnull=True)),
    )
    return counted


def top_blocked(organization: Organization, period: Period) -> list[Mapping[str, object]]:
    """The endpoints with the most blocked calls: `host`, `port`, `blocked`, `runs`, and `run` (the latest one).

    Counts the period's last BLOCKED_RUNS_COUNTED runs with blocked calls.
    """
    runs = _runs(organization, period).filter(RUN_TAGS["blocked"][1]).order_by("-pk").values("pk")
    rows = RunEndpoint.objects.filter(
        organization=organization, job_run__in=runs[:BLOCKED_RUNS_COUNTED], blocked_calls__gt=0
    )
    counted = rows.order_by().values("host", "port")
    counted = counted.annotate(blocked=Sum("blocked_calls"), runs=Count("pk"), run=Max("job_run"))
    return list(counted.order_by("-blocked", "host", "port")[:ROWS_SHOWN])


def needing_attention(organization: Organization, period: Period) -> list[Mapping[str, object]]:
    """The workflows whose runs were downgraded or had blocked calls, with how many runs and calls; the worst first."""
    rows = _runs(organization, period).filter(RUN_TAGS["downgraded"][1] | RUN_TAGS["blocked"][1])
    counted = rows.order_by().values("repository", "workflow")
    counted = counted.annotate(
        downgraded=Count("pk", filter=RUN_TAGS["downgraded"][1]),
        blocked_runs=Count("pk", filter=RUN_TAGS["blocked"][1]),
        blocked=Sum("blocked_calls"),
    )
    return list(counted.order_by("-downgraded", "-blocked", "repository", "workflow")[:ROWS_SHOWN])


def _runs(organization: Organization, period: Period) -> QuerySet[JobRun]:
    began = period.starts()[0]
    return JobRun.objects.filter(organization=organization, first_seen_at__gte=began).exclude(verified_by="")
