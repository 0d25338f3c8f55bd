"""Adds network events as fast as one process can, then removes many old ones as the worker does; runs in a store."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from itertools import count

from django.conf import settings
from django.db import connection
from django.utils import timezone

from policystore.detections import actions
from policystore.operations.worker import PAUSE_SECONDS
from policystore.runners.models import JobRun
from policystore.traffic import retention
from policystore.traffic.event_parser import parse
from policystore.traffic.models import NetworkEvent
from tests import factories

BATCH = 500
RUNS = 20
DAYS = 30
# Copies the events that were added, with digests of their own.
COPY = """
INSERT INTO traffic_networkevent (organization_id, job_run_id, digest, kind, host, port, address, process, ancestry,
    step, status, is_new, reason, occurred_at, client_at, received_at)
WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {end})
SELECT organization_id, job_run_id, substr(digest, 1, 20) || n, kind, host, port, address, process, ancestry, step,
    status, is_new, reason, occurred_at, client_at, %s
FROM numbers, (SELECT * FROM traffic_networkevent ORDER BY id LIMIT {batch}) AS sample
"""


def measure(events: int, seconds: float) -> dict[str, float]:
    """Rows added and removed a second, the latter with the pauses that the worker makes."""
    organization = factories.organization("octo-org")
    runs = JobRun.objects.bulk_create(
        JobRun(
            organization=organization,
            repository="hello-world",
            workflow="ci.yml",
            job=f"job-{number}",
            run_id="1",
            correlation_id=f"run-{number}",
            first_seen_at=timezone.now(),
            fetched_at=timezone.now(),
        )
        for number in range(RUNS)
    )
    added = _add(runs, seconds)
    _add_old(events)
    return {"added": added, "removed": _remove()}


def _add(runs: list[JobRun], seconds: float) -> float:
    began, deliveries = time.perf_counter(), 0
    for number in count():
        actions.observe(run=runs[number % RUNS], events=[_call(number, n) for n in range(BATCH)])
        deliveries += 1
        if time.perf_counter() - began >= seconds:
            break
    return deliveries * BATCH / (time.perf_counter() - began)


def _call(delivery: int, number: int):
    host = f"service-{number % 40:02}.example.com."
    return parse(
        "networkconnection",
        {"domainName": host, "port": "443", "status": "Allowed", "delivery": f"{delivery}-{number}"},
    )


def _add_old(events: int) -> None:
    """Events of the DAYS days before the retention, up to an hour past it."""
    retention.create_partitions(
        retention_days=settings.EVENT_RETENTION_DAYS, days_back=settings.EVENT_RETENTION_DAYS + DAYS + 2
    )
    copies = max(1, events // BATCH // DAYS)
    # A whole partition has to be old, so the newest of these are a day older than the retention.
    newest = timezone.now() - timedelta(days=settings.EVENT_RETENTION_DAYS + 1, hours=1)
    with connection.cursor() as cursor:
        for day in range(DAYS):
            statement = COPY.format(first=day * copies, end=(day + 1) * copies, batch=BATCH)
            cursor.execute(statement, [_adapted(newest - timedelta(days=DAYS - 1 - day))])
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE traffic_networkevent")


def _adapted(at: datetime):
    return connection.ops.adapt_datetimefield_value(at)


def _remove() -> float:
    before, began = NetworkEvent.objects.count(), time.perf_counter()
    while retention.prune_events(days=settings.EVENT_RETENTION_DAYS):
        time.sleep(PAUSE_SECONDS)
    took = time.perf_counter() - began
    left = NetworkEvent.objects.count()
    assert retention.lag(days=settings.EVENT_RETENTION_DAYS) == timedelta(0)
    return (before - left) / took
