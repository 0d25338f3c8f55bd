"""Routes for load balancers and monitoring: /healthz, /readyz and /metrics."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from policystore.accounts import api_keys
from policystore.db import statement_timeout
from policystore.integrations import queries as outbox
from policystore.operations import health
from policystore.operations.models import Heartbeat
from policystore.traffic import retention
from policystore.web import metrics

logger = logging.getLogger(__name__)

SECONDS = 2.0


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as this process answers; checks nothing else."""
    return JsonResponse({"status": "ok"})


@login_not_required
@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 while all of the store works, otherwise 503 with what is wrong."""
    checked = health.check_all()
    ready = not any(check.finding.is_problem for check in checked)
    checks = [
        {"name": check.name, "ok": not check.finding.is_problem, "message": check.finding.message} for check in checked
    ]
    return JsonResponse({"status": "ready" if ready else "not ready", "checks": checks}, status=200 if ready else 503)


@login_not_required
@never_cache
@require_safe
def prometheus(request: HttpRequest) -> HttpResponse:
    """The metrics, for clients with METRICS_TOKEN; if it is not set, for nobody."""
    if not settings.METRICS_TOKEN:
        return _refused(404, "Set METRICS_TOKEN to read metrics here.")
    scheme, token = api_keys.parse_authorization(request.headers.get("Authorization", ""))
    if scheme != "bearer" or not secrets.compare_digest(token.encode(), settings.METRICS_TOKEN.encode()):
        return _refused(401, "Send METRICS_TOKEN as `Authorization: Bearer TOKEN`.")
    registry = metrics.registry()
    registry.register(StoreState())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _refused(status: int, message: str) -> HttpResponse:
    response = HttpResponse(f"{message}\n", status=status, content_type="text/plain; charset=utf-8")
    if status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


class StoreState:
    """A collector of gauges of the whole store; only `policystore_database_up 0` if the database is away."""

    def collect(self) -> Iterator[Metric]:
        """Read every metric, within SECONDS."""
        values = _values()
        yield _gauge("policystore_database_up", "Whether the database answers.", 1 if values else 0)
        for (name, help_text), value in values.items():
            yield _gauge(name, help_text, value)
        yield from _lags()


def _values() -> dict[tuple[str, str], float]:
    try:
        return statement_timeout.run_with_timeout(SECONDS, _read)
    except (statement_timeout.TooSlow, DatabaseError):
        logger.warning("The database is away; its part of the metrics is left out", exc_info=True)
        return {}


def _lags() -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "policystore_integration_lag_seconds",
        "Age of the oldest message that waits for an integration.",
        labels=["organization", "integration"],
    )
    try:
        for row in statement_timeout.run_with_timeout(SECONDS, outbox.lags):
            lag.add_metric([row.integration.organization.key, row.integration.name], _number(row.oldest))
    except (statement_timeout.TooSlow, DatabaseError):
        return
    yield lag


def _read() -> dict[tuple[str, str], float]:
    backlog, problems = outbox.backlog(), health.integrity_problems()
    compared, silence = Heartbeat.age(Heartbeat.INTEGRITY), Heartbeat.age(Heartbeat.WORKER)
    unremoved = retention.lag(days=settings.EVENT_RETENTION_DAYS)
    values: dict[tuple[str, str], float | timedelta | None] = {
        ("policystore_outbox_waiting", "Messages that wait to be delivered."): backlog.waiting,
        ("policystore_outbox_given_up", "Messages that were given up."): outbox.given_up(),
        ("policystore_outbox_oldest_undelivered_seconds", "Age of the oldest message that waits."): backlog.oldest,
        ("policystore_outbox_overdue_seconds", "How long a message has been due to be sent."): backlog.overdue,
        ("policystore_retention_lag_seconds", "How long network events have been due to be removed."): unremoved,
        ("policystore_integrity_problems", "Differences between the database and the history."): len(problems),
        ("policystore_integrity_age_seconds", "Time since the database was last compared with the history."): compared,
        ("policystore_worker_silence_seconds", "Time since a worker's last heartbeat."): silence,
    }
    return {name: _number(value) for name, value in values.items() if value is not None}


def _number(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)
