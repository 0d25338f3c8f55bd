"""What a scrape of `/metrics` reads from the database, as a collector of prometheus_client."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError
from prometheus_client.core import GaugeMetricFamily, Metric

from policystore.integrations import queries as outbox
from policystore.operations import bounded, queries
from policystore.traffic.actions import retention

logger = logging.getLogger(__name__)

SECONDS = 2.0


class StoreState:
    """Gauges of the whole store; where the database is away, `policystore_database_up` alone, as 0."""

    def collect(self) -> Iterator[Metric]:
        """Every metric, read within SECONDS."""
        values = _values()
        yield _gauge("policystore_database_up", "Whether the database answers.", 1 if values else 0)
        for (name, help_text), value in values.items():
            yield _gauge(name, help_text, value)
        yield from _lags()


def _values() -> dict[tuple[str, str], float]:
    try:
        return bounded.within(SECONDS, _read)
    except (bounded.TooSlow, DatabaseError):
        logger.warning("The database is away; its part of the metrics is left out", exc_info=True)
        return {}


def _lags() -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "policystore_integration_lag_seconds",
        "Age of the oldest message that waits for an integration.",
        labels=["organization", "integration"],
    )
    try:
        for found in bounded.within(SECONDS, outbox.lags):
            lag.add_metric([found.integration.organization.key, found.integration.name], _s(found.oldest))
    except (bounded.TooSlow, DatabaseError):
        return
    yield lag


def _read() -> dict[tuple[str, str], float]:
    backlog, silence = outbox.backlog(), queries.worker_silence()
    read = {
        ("policystore_outbox_waiting", "Messages that wait to be delivered."): float(backlog.waiting),
        ("policystore_outbox_given_up", "Messages that were given up."): float(outbox.given_up()),
        ("policystore_outbox_oldest_undelivered_seconds", "Age of the oldest message that waits."): _s(backlog.oldest),
        ("policystore_outbox_overdue_seconds", "How long a message has been due to be sent."): _s(backlog.overdue),
        ("policystore_retention_lag_seconds", "How long network events have been due to be removed."): _s(
            retention.lag(days=settings.EVENT_RETENTION_DAYS)
        ),
    }
    read["policystore_integrity_problems", "Differences between the database and the history."] = float(
        len(queries.integrity_problems())
    )
    compared = queries.integrity_age()
    if compared is not None:
        read["policystore_integrity_age_seconds", "Time since the database was last compared with the history."] = _s(
            compared
        )
    if silence is not None:
        read["policystore_worker_silence_seconds", "Time since a worker's last sign of life."] = _s(silence)
    return read


def _s(duration: timedelta) -> float:
    return duration.total_seconds()


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)
