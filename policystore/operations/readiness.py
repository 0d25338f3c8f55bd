"""Whether the store can do its work right now, one small check after the other; `/readyz` and `doctor` ask them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from policystore.db import write_failures
from policystore.integrations import queries as outbox
from policystore.operations import actions, bounded, queries, schema
from policystore.operations.findings import Check, Checked, Finding, good, problem, warning
from policystore.runners import fetch
from policystore.traffic.actions import retention

logger = logging.getLogger(__name__)

SECONDS = 2.0
# The worker beats every five seconds, but not while it sends a message or deletes what is old.
SILENT_AFTER = timedelta(seconds=60)
WRITES_PROVEN_FOR = timedelta(seconds=15)
OVERDUE_AFTER = timedelta(minutes=10)
# Removing goes on every five minutes, and after a long stop of the worker it takes its time.
RETENTION_LATE_AFTER = timedelta(hours=2)
LEAST_FREE_BYTES = 16 * 1024 * 1024
# Half a megabyte, which is gone again with the statement.
_SORTED_ON_DISK = (
    "SELECT COUNT(*) FROM (SELECT n FROM generate_series(1, 20000) AS n ORDER BY md5(n::text) OFFSET 0) AS sorted"
)


def database() -> Finding:
    """Whether it answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return good("The database answers.")


def fetches() -> Finding:
    """Whether the tables that a policy fetch reads can be read in time; a lock on one of them stops every fetch."""
    fetch.probe()
    return good("Policies can be read.")


def migrations() -> Finding:
    """Whether it has had every migration of this release."""
    pending = schema.pending()
    if not pending:
        return good("Every migration was applied.")
    app, name = pending[0]
    more = f" and {len(pending) - 1} more" if len(pending) > 1 else ""
    return problem(f"The migration {app}.{name}{more} was not applied; run `manage.py migrate`.")


def worker() -> Finding:
    """Whether one gave a sign of life lately."""
    silence = queries.worker_silence()
    if silence is None:
        return problem("No worker was ever seen; start `manage.py work`.")
    if silence > SILENT_AFTER:
        return problem(f"No worker for {silence.total_seconds():.0f} s; start `manage.py work`.")
    return good(f"A worker gave a sign of life {silence.total_seconds():.0f} s ago.")


def writes() -> Finding:
    """Whether the database takes writes, also those that need more room."""
    if short := _short_of_room():
        return short
    try:
        # In a savepoint: PostgreSQL answers nothing more in a transaction in which a statement failed.
        with transaction.atomic():
            _prove_writes()
    except DatabaseError as error:
        logger.exception("The database takes no writes")
        return problem(f"The database takes no writes: {write_failures.why_no_writes(error) or 'its log may say why'}.")
    return good("The database takes writes.")


def _short_of_room() -> Finding | None:
    if connection.vendor != "sqlite":
        return None
    free = shutil.disk_usage(Path(connection.settings_dict["NAME"]).parent).free
    if free >= LEAST_FREE_BYTES:
        return None
    return problem(f"The database's disk is full but for {free // 1024 // 1024} MiB; make room.")


def _prove_writes() -> None:
    """Raises DatabaseError where nothing can be written. A fresh sign of life of the worker proves that something can;
    but it fits into the place of the one before, where a PostgreSQL's disk has no room for anything else."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL work_mem = '64kB'")
            cursor.execute(_SORTED_ON_DISK)
    silence = queries.worker_silence()
    if silence is None or silence >= WRITES_PROVEN_FOR:
        actions.beat(name=actions.PROBE)


def outbox_age() -> Finding:
    """Whether what is to be told to integrations is sent in time."""
    backlog = outbox.backlog()
    if backlog.overdue > OVERDUE_AFTER:
        minutes = backlog.overdue.total_seconds() / 60
        return problem(f"A message to an integration has been due for {minutes:.0f} min; the worker lags behind.")
    behind = [lag for lag in outbox.lags() if lag.oldest > OVERDUE_AFTER]
    if behind:
        # Who has no account sees this page, so it names no receiver.
        return warning(f"{len(behind)} receivers are slow or fail: `manage.py doctor` names them.")
    return good(f"{backlog.waiting} messages to integrations wait, none for the worker.")


def retention_keeps_up() -> Finding:
    """Whether old network events are removed in time."""
    lag = retention.lag(days=settings.EVENT_RETENTION_DAYS)
    if lag > RETENTION_LATE_AFTER:
        # Not a problem: runners and pages do not depend on it, and a load balancer must not take the store away.
        return warning(
            f"Network events have been due to be removed for {lag.total_seconds() / 3600:.0f} h; look for “prune” in "
            "the worker's log."
        )
    return good("Old network events are removed in time.")


def integrity() -> Finding:
    """Whether what decides what runners get is as the history recorded it. Never a problem: a store that is taken out
    of service would turn off blocking everywhere."""
    problems = queries.integrity_problems()
    if problems:
        # Who has no account sees this page, so it names no policy.
        told = f"The database differs from the history in {len(problems):,} places"
        return warning(f"{told}; `manage.py verify_history` names them.")
    compared = queries.integrity_age()
    if compared is None:
        return good("The worker has not compared the database with the history yet.")
    return good(f"The database matched the history {compared.total_seconds():.0f} s ago.")


# In this order; where one finds a problem with the database itself, those after it would only repeat that.
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
DECISIVE = ("database", "migrations", "fetches")


def look() -> list[Checked]:
    """What each check finds, within SECONDS altogether."""
    try:
        return bounded.within(SECONDS, lambda: list(_found()))
    except bounded.TooSlow:
        return [Checked("database", problem(f"The database did not answer within {SECONDS:.0f} s."))]
    except DatabaseError:
        logger.exception("The database is away")
        return [Checked("database", problem("The database is away; the log says why."))]


def _found() -> Iterator[Checked]:
    for name, check in CHECKS.items():
        finding = check()
        yield Checked(name, finding)
        if finding.is_problem and name in DECISIVE:
            return
