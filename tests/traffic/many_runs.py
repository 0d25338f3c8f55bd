"""Makes an organization with very many observed calls, for measuring: straight into the tables that ingest fills."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.traffic.models import RunEndpoint

HOSTS = 1000
CALLS_EACH = 2
BATCH = 5000


def observe(
    organization: Organization,
    *,
    calls: int = 1_000_000,
    endpoints_a_run: int = 5,
    workflows: int = 500,
    days: int = 28,
) -> int:
    """Job runs of the last days that made so many calls, two to each endpoint; returns how many runs that were.

    Every run picks its endpoints anew out of twice as many that its workflow knows, so that hardly two call the same.
    Call `bitmap_store.catch_up(seconds=3600)` afterwards, as the worker does.
    """
    chance, now = random.Random(1), timezone.now()
    hosts = [f"host-{number}.service-{number % 50}.example" for number in range(HOSTS)]
    known = [chance.sample(hosts, endpoints_a_run * 2) for _ in range(workflows)]
    count = calls // (endpoints_a_run * CALLS_EACH)
    runs = _made(_runs(organization, count, workflows, now, timedelta(days=days) / count))
    rows = (
        RunEndpoint(
            organization=organization,
            job_run_id=pk,
            host=host,
            port=443,
            calls=CALLS_EACH,
            blocked_calls=0,
            first_seen_at=at,
            last_seen_at=at,
        )
        for pk, workflow, at in runs
        for host in chance.sample(known[workflow], endpoints_a_run)
    )
    while batch := list(islice(rows, BATCH)):
        RunEndpoint.objects.bulk_create(batch)
    return count


def _runs(organization: Organization, count: int, workflows: int, now: datetime, step: timedelta) -> Iterator[JobRun]:
    chance = random.Random(2)
    for number in range(count):
        workflow = chance.randrange(workflows)
        yield JobRun(
            verified_by="key",
            organization=organization,
            repository=f"repository-{workflow // 4}",
            workflow=f"ci-{workflow % 4}.yml",
            job="build",
            run_id=str(number),
            correlation_id=f"many-{number}",
            first_seen_at=now - step * (count - number),
            calls=1,
        )


def _made(runs: Iterator[JobRun]) -> Iterator[tuple[int, int, datetime]]:
    """The runs' ids, the numbers of their workflows, and when they began."""
    while batch := list(islice(runs, BATCH)):
        for run in JobRun.objects.bulk_create(batch):
            number = int(run.repository.rpartition("-")[2]) * 4 + int(run.workflow[3:-4])
            yield run.pk, number, run.first_seen_at
