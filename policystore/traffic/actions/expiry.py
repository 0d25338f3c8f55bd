"""Deletes job runs when they expire, with their events, endpoints and detections.

Verified job runs are kept for JOB_RUN_RETENTION_DAYS. Unverified ones, which anyone can make up, are kept for a day,
and only the newest of each organization. Baselines are sums over all job runs that ever were, and stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from policystore.db import batches
from policystore.inventory.models import Organization
from policystore.runners.models import JobRun, LastFetch, VerifiedRun
from policystore.traffic.models import NetworkEvent, RunSheet

UNVERIFIED_FOR = timedelta(hours=24)
MOST_UNVERIFIED = 10_000
RUNS_PER_STEP = 200
EVENTS_PER_STEP = 5_000


def delete_expired_runs(*, seconds: float = batches.TURN_SECONDS, now: datetime | None = None) -> bool:
    """Delete expired job runs for at most so many seconds; returns True if some may be left."""
    now = now or timezone.now()
    cutoff = now - timedelta(days=settings.JOB_RUN_RETENTION_DAYS)
    RunSheet.objects.filter(newest_at__lt=cutoff).delete()
    LastFetch.objects.filter(at__lt=cutoff).delete()
    VerifiedRun.objects.filter(at__lt=now - timedelta(hours=settings.JOB_RUN_OPEN_HOURS)).delete()
    return batches.repeat(lambda: _delete(_oldest_before(cutoff)), size=RUNS_PER_STEP, seconds=seconds)


def delete_unverified_runs(*, seconds: float = batches.TURN_SECONDS, now: datetime | None = None) -> bool:
    """Delete unverified job runs that are a day old or not among the newest of their organization.

    Stops after so many seconds; returns True if some may be left.
    """
    cutoff = (now or timezone.now()) - UNVERIFIED_FOR
    rows = JobRun.objects.filter(verified_by="")
    for organization in Organization.objects.all():
        step = partial(_delete_unverified, rows.filter(organization=organization), cutoff)
        if batches.repeat(step, size=RUNS_PER_STEP, seconds=seconds):
            return True
    return False


def _delete_unverified(rows: QuerySet[JobRun], cutoff: datetime) -> int:
    newest = rows.order_by("-pk").values_list("pk", flat=True)
    surplus = list(newest[MOST_UNVERIFIED : MOST_UNVERIFIED + 1])
    expired = rows.filter(Q(first_seen_at__lt=cutoff) | Q(pk__lte=surplus[0] if surplus else 0))
    ids = list(expired.order_by("pk").values_list("pk", flat=True)[:RUNS_PER_STEP])
    _delete(ids, verified_by="")
    return len(ids)


def _oldest_before(cutoff: datetime) -> list[int]:
    """The expired ones among the oldest job runs; ids are in the order of time except for what is added late."""
    oldest = JobRun.objects.order_by("pk").values_list("pk", "first_seen_at")[:RUNS_PER_STEP]
    return [run_id for run_id, at in oldest if at < cutoff]


def _delete(ids: Sequence[int], **still: object) -> int:
    """Delete these job runs if `still` holds for them; returns how many.

    Their many events are deleted before, in transactions of their own, so that other writers do not wait long.
    """
    while events := list(NetworkEvent.objects.filter(job_run__in=ids).values_list("pk", flat=True)[:EVENTS_PER_STEP]):
        NetworkEvent.objects.filter(pk__in=events).delete()
    with transaction.atomic():
        held = JobRun.objects.select_for_update().filter(pk__in=ids, **still).order_by("pk")
        return JobRun.objects.filter(pk__in=[run.pk for run in held]).delete()[1].get(JobRun._meta.label, 0)
