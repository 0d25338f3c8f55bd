"""Checks whether the store can do its work now, and routes for load balancers and monitoring that report it.

`/readyz` and `doctor` run the checks; `/healthz` and `/metrics` do not.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from policystore.accounts import api_keys
from policystore.audit_log.models import IntegrityProblem
from policystore.db import online_migrations, statement_timeout, vendor
from policystore.integrations import queries as outbox
from policystore.operations.models import Heartbeat
from policystore.runners.fetch import handler
from policystore.traffic import retention
from policystore.web import metrics

logger = logging.getLogger(__name__)

SECONDS = 2.0
# The worker beats every five seconds, but not while it sends a message or deletes old rows.
SILENT_AFTER = timedelta(seconds=60)
WRITES_PROVEN_FOR = timedelta(seconds=15)
OVERDUE_AFTER = timedelta(minutes=10)
# Old events are removed every five minutes; after the worker was stopped for long, it takes a while to catch up.
RETENTION_LATE_AFTER = timedelta(hours=2)
LEAST_FREE_BYTES = 16 * 1024 * 1024
# A sort that needs half a megabyte on disk, which the end of the statement frees again.
_SORT_ON_DISK = (
    "SELECT COUNT(*) FROM (SELECT n FROM generate_series(1, 20000) AS n ORDER BY md5(n::text) OFFSET 0) AS sorted"
)
DECISIVE = ("database", "migrations", "fetches")


class Level(Enum):
    """The level of a finding: a `problem` must be fixed, a `warning` should be known."""

    GOOD = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    level: Level
    message: str

    @property
    def is_problem(self) -> bool:
        """True if the store does not do all of its work until this is fixed."""
        return self.level is Level.PROBLEM


# A check's name and what it found.
Checked = tuple[str, Finding]
Check = Callable[[], Finding]
# A check that does not apply to an installation returns None.
MaybeCheck = Callable[[], Finding | None]


def good(message: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Level.GOOD, message)


def warning(message: str) -> Finding:
    """The store does its work, but an administrator should know."""
    return Finding(Level.WARNING, message)


def problem(message: str) -> Finding:
    """The store does not do all of its work."""
    return Finding(Level.PROBLEM, message)


def database() -> Finding:
    """Check that the database answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return good("The database answers.")


def fetches() -> Finding:
    """Check that the tables that a policy fetch reads can be read in time; a lock on one of them stops every fetch."""
    handler.probe()
    return good("Policies can be read.")


def migrations() -> Finding:
    """Check that every migration of this release was applied."""
    pending = online_migrations.pending()
    if not pending:
        return good("Every migration was applied.")
    app, name = pending[0]
    more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
    return problem(f"The migration {app}.{name}{more} was not applied; run `manage.py migrate`.")


def worker() -> Finding:
    """Check that a worker had a recent heartbeat."""
    silence = Heartbeat.age(Heartbeat.WORKER)
    if silence is None:
        return problem("No worker has ever run; start `manage.py work`.")
    if silence > SILENT_AFTER:
        return problem(f"No worker for {silence.total_seconds():.0f} s; start `manage.py work`.")
    return good(f"The last heartbeat of a worker was {silence.total_seconds():.0f} s ago.")


def writes() -> Finding:
    """Check that the database takes writes, also those that need more room."""
    try:
        # In a savepoint: PostgreSQL answers nothing more in a transaction in which a statement failed.
        with transaction.atomic():
            if shortage := vendor.choose(postgresql=_postgresql_shortage, sqlite=_sqlite_shortage)():
                return shortage
            # A fresh heartbeat of the worker proves that something can be written.
            silence = Heartbeat.age(Heartbeat.WORKER)
            if silence is None or silence >= WRITES_PROVEN_FOR:
                Heartbeat.beat(Heartbeat.PROBE)
    except DatabaseError as error:
        logger.exception("The database takes no writes")
        return problem(f"The database takes no writes: {vendor.why_no_writes(error) or 'its log may say why'}.")
    return good("The database takes writes.")


def _sqlite_shortage() -> Finding | None:
    """Check the free space of the disk."""
    free = shutil.disk_usage(Path(connection.settings_dict["NAME"]).parent).free
    if free >= LEAST_FREE_BYTES:
        return None
    return problem(f"The database's disk has only {free // 1024 // 1024} MiB left; free some space.")


def _postgresql_shortage() -> Finding | None:
    """Use some room on the server's disk. Raises DatabaseError if there is none.

    A heartbeat alone proves nothing: it reuses the room of the one before.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '64kB'")
        cursor.execute(_SORT_ON_DISK)
    return None


def outbox_age() -> Finding:
    """Check that the worker sends messages to integrations in time, and that their receivers accept them."""
    sent = worker_sends()
    receivers = len(late_receivers())
    if sent.is_problem or not receivers:
        return sent
    # People without an account see this page, so it names no receiver.
    one = receivers == 1
    return warning(
        f"{receivers} {'receiver is' if one else 'receivers are'} slow or {'fails' if one else 'fail'}: "
        f"`manage.py doctor` names {'it' if one else 'them'}."
    )


def worker_sends() -> Finding:
    """Check that the worker sends messages to integrations in time."""
    backlog = outbox.backlog()
    if backlog.overdue > OVERDUE_AFTER:
        minutes = backlog.overdue.total_seconds() / 60
        return problem(f"A message to an integration has been due for {minutes:.0f} min; the worker lags behind.")
    return good(f"{backlog.waiting} messages to integrations wait, none for the worker.")


def late_receivers() -> list[outbox.Lag]:
    """Return the integrations whose oldest message has waited too long, the latest one first."""
    return [lag for lag in outbox.lags() if lag.oldest > OVERDUE_AFTER]


def retention_keeps_up() -> Finding:
    """Check that old network events are removed in time."""
    lag = retention.lag(days=settings.EVENT_RETENTION_DAYS)
    if lag > RETENTION_LATE_AFTER:
        # Not a problem: runners and pages do not depend on it, and a load balancer must not take the store away.
        return warning(
            f"Network events have been due to be removed for {lag.total_seconds() / 3600:.0f} h; look for “prune” in "
            "the worker's log."
        )
    return good("Old network events are removed in time.")


def integrity() -> Finding:
    """Check that everything that decides which policies runners get is as the history recorded it.

    Never a problem: a store that is taken out of service would turn off blocking everywhere.
    """
    problems = integrity_problems()
    if problems:
        # People without an account see this page, so it names no policy.
        places, names = ("1 place", "it") if len(problems) == 1 else (f"{len(problems):,} places", "them")
        return warning(f"The database differs from the history in {places}; `manage.py verify_history` names {names}.")
    compared = Heartbeat.age(Heartbeat.INTEGRITY)
    if compared is None:
        return good("The worker has not compared the database with the history yet.")
    return good(f"The database matched the history {compared.total_seconds():.0f} s ago.")


def integrity_problems() -> list[str]:
    """Return what the worker found that the history does not account for, a sentence each; of all organizations."""
    rows = IntegrityProblem.objects.order_by("pk").values_list("problems", flat=True)
    return [sentence for sentences in rows.iterator() for sentence in sentences]


# In this order. If one finds a problem with the database itself, the checks after it would only repeat that.
CHECKS: dict[str, Check] = {
    "database": database,
    "migrations": migrations,
    "fetches": fetches,
    "writes": writes,
    "worker": worker,
    "outbox": outbox_age,
    "retention": retention_keeps_up,
    "tampering": integrity,
}


def check_all() -> list[Checked]:
    """Return what each check finds, within SECONDS altogether."""
    try:
        return statement_timeout.run_with_timeout(SECONDS, lambda: list(_findings()))
    except statement_timeout.TooSlow:
        return [("database", problem(f"The database did not answer within {SECONDS:.0f} s."))]
    except DatabaseError:
        logger.exception("The database is unavailable")
        return [("database", problem("The database is unavailable; the log says why."))]


def _findings() -> Iterator[Checked]:
    for name, check in CHECKS.items():
        finding = check()
        yield name, finding
        if finding.is_problem and name in DECISIVE:
            return


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
    checked = check_all()
    ready = not any(finding.is_problem for _, finding in checked)
    checks = [{"name": name, "ok": not finding.is_problem, "message": finding.message} for name, finding in checked]
    return JsonResponse({"status": "ready" if ready else "not ready", "checks": checks}, status=200 if ready else 503)


@login_not_required
@never_cache
@require_safe
def prometheus(request: HttpRequest) -> HttpResponse:
    """The metrics, for clients with METRICS_TOKEN; 404 if it is not set."""
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
    """A collector of gauges of the whole store; only `policystore_database_up 0` if the database is unavailable."""

    def collect(self) -> Iterator[Metric]:
        """Read every metric, within SECONDS."""
        values = _values()
        yield GaugeMetricFamily("policystore_database_up", "Whether the database answers.", 1 if values else 0)
        for (name, help_text), value in values.items():
            yield GaugeMetricFamily(name, help_text, value)
        yield from _lags()


def _values() -> dict[tuple[str, str], float]:
    try:
        return statement_timeout.run_with_timeout(SECONDS, _read)
    except (statement_timeout.TooSlow, DatabaseError):
        logger.warning("The database is unavailable; its part of the metrics is left out", exc_info=True)
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
    backlog, problems = outbox.backlog(), integrity_problems()
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
