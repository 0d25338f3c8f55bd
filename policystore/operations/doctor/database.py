"""Checks of the database and what is in it, and of a connection pooler in front of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Exists, OuterRef
from django.utils import timezone
from psycopg.rows import dict_row

from policystore.accounts.encryption import Undecipherable
from policystore.accounts.models import ApiKey, Membership
from policystore.accounts.roles import Role
from policystore.config import env
from policystore.db import connection_slots, online_migrations, statement_timeout, vendor
from policystore.integrations import queries as outbox
from policystore.integrations.models import Integration
from policystore.integrity.comparing import Comparison
from policystore.inventory.models import Organization
from policystore.operations import health
from policystore.operations.command_line import first_line
from policystore.operations.doctor import installation
from policystore.operations.health import Finding, good, problem, warning
from policystore.runners.fetch import app, connection_pool

SECONDS = 5.0
LEAST_POSTGRESQL = 14
# The first with RETURNING.
LEAST_SQLITE = (3, 35)
CLOCKS_DIFFER_SECONDS = 2.0
CLOCKS_ARE_WRONG_SECONDS = 60.0
SHOWN = 3
# A migration holds one connection for its lock and works on another; the worker, a page and a fetch go on beside it.
LEAST_POOL = 5
# The threads of a web process and the one that records fetches; in a fetch process also those of other runner routes.
PER_WEB_PROCESS = connection_slots.WEB_THREADS + 1
PER_FETCH_PROCESS = connection_pool.CONNECTIONS + app.DATABASE_SLOTS
# The worker, the process that records fetches, a migration with its lock, and a readiness probe.
OTHERS = 5
TRIES = 10
# PgBouncer's console is a database of this name. It refuses users without access in other words than PostgreSQL.
CONSOLE = "pgbouncer"
NOT_ALLOWED = "not allowed"
# PgBouncer's error messages, and what helps.
ADVICE = {
    "transaction blocks not allowed in statement pooling mode": "set pool_mode = transaction in PgBouncer",
    "unsupported startup parameter: options": "remove `options` from DATABASE_URL",
    "no more connections allowed": "raise max_client_conn in PgBouncer",
}
UNUSED_AFTER = timedelta(days=30)
SECONDS_TO_COMPARE = 10.0
NAMES_SHOWN = 5


def it_answers() -> Finding:
    """Check that the database answers within SECONDS, and that its version is supported."""
    try:
        version = vendor.choose(postgresql=_postgresql_version, sqlite=_sqlite_version)
        return statement_timeout.run_with_timeout(SECONDS, version)
    except statement_timeout.TooSlow:
        return problem(f"{installation.database_name()} did not answer within {SECONDS:.0f} s.")
    except DatabaseError as error:
        return problem(f"{installation.database_name()} cannot be used: {first_line(error)}{advice_on(error)}")


def _sqlite_version() -> Finding:
    version = str(_one("SELECT sqlite_version()"))
    if tuple(map(int, version.split("."))) < LEAST_SQLITE:
        return problem(f"SQLite {version} is too old; the store needs {'.'.join(map(str, LEAST_SQLITE))} or newer.")
    return good(f"SQLite {version}, {installation.database_name()}.")


def _postgresql_version() -> Finding:
    version = str(_one("SHOW server_version")).split()[0]
    # Compared by the number: the text may be 19beta1.
    if int(_one("SHOW server_version_num")) // 10_000 < LEAST_POSTGRESQL:
        return problem(f"PostgreSQL {version} is too old; the store needs {LEAST_POSTGRESQL} or newer.")
    return good(f"PostgreSQL {version}, {installation.database_name()}.")


def it_stores_utf8() -> Finding:
    """Check that PostgreSQL stores text as UTF-8; by default, a cluster that was created without a locale does not."""
    encoding = str(_one("SHOW server_encoding"))
    if encoding == "UTF8":
        return good("The database stores text as UTF-8.")
    return problem(
        f"The database's encoding is {encoding}, which cannot store every character. Create another database with "
        "`createdb --encoding UTF8 --template template0`, and move to it with backup and restore."
    )


def no_newer_release() -> Finding | None:
    """Warn if a newer release has migrated the database; this one still runs."""
    unknown = online_migrations.unknown()
    if not unknown:
        return None
    app, name = unknown[0]
    return warning(f"A newer release has changed the database ({app}.{name}); upgrade this installation too.")


def it_is_whole() -> Finding:
    """Run SQLite's own check of the whole file. PostgreSQL has `pg_amcheck` for that, on its own machine."""
    broken = [str(row[0]) for row in _rows("PRAGMA integrity_check") if row[0] != "ok"]
    orphans = _rows("PRAGMA foreign_key_check")
    broken += [f"{table}: row {row} refers to a missing row of {other}" for table, row, other, _ in orphans]
    if not broken:
        return good("SQLite found no damage in the database.")
    damage = "; ".join(broken[:SHOWN])
    return problem(f"The database is damaged: {damage}. Stop the store, keep the file, and restore the last backup.")


def clocks_agree() -> Finding:
    """Check that this machine and PostgreSQL's have the same time."""
    apart = abs((datetime.now(UTC) - _one("SELECT clock_timestamp()")).total_seconds())
    if apart < CLOCKS_DIFFER_SECONDS:
        return good("The clocks of this machine and of the database agree.")
    message = f"The clocks of this machine and of the database are {apart:.0f} s apart; synchronize both by NTP."
    return problem(message) if apart > CLOCKS_ARE_WRONG_SECONDS else warning(message)


def _one(statement: str) -> Any:
    return _rows(statement)[0][0]


def _rows(statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def advice_on(error: Exception) -> str:
    """Return advice on an error of PgBouncer, to follow its message; empty for every other error."""
    return next((f"; {advice}." for text, advice in ADVICE.items() if text in str(error)), "")


def connection_pooler() -> Finding | None:
    """Check that a connection pooler works in a way that the store can use; None if there is no pooler."""
    if not _is_pooled():
        return None
    console = _console()
    if console is None:
        return warning(
            f"There is a connection pooler in {_mode()} mode that is not PgBouncer. The store needs whole transactions "
            "and no session state, but it was tested with PgBouncer only."
        )
    if not console:
        return good(
            f"PgBouncer in {_mode()} mode. To have the size of its pool checked, add the store's database user to "
            "stats_users."
        )
    return _check_pool(console)


def connections_suffice() -> Finding | None:
    """Check that PostgreSQL allows as many connections as the store's processes on one machine can use."""
    if _is_pooled():
        return None
    allowed: int = _one(connection_slots.SLOTS)
    processes = env.integer("WEB_CONCURRENCY", default=2, least=1)
    needed = processes * (PER_WEB_PROCESS + PER_FETCH_PROCESS) + OTHERS
    if needed <= allowed:
        return good(f"PostgreSQL allows {allowed} connections, enough for the {needed} that the store uses at most.")
    return warning(
        f"PostgreSQL allows {allowed} connections, and the store uses up to {needed} with WEB_CONCURRENCY={processes}. "
        "Its processes share them, so requests may wait. Raise max_connections, lower WEB_CONCURRENCY or use PgBouncer."
    )


def _is_pooled() -> bool:
    connection.ensure_connection()
    return not getattr(connection, "is_direct", True)


def _mode() -> str:
    """Return `session` if each connection has its own server process; otherwise `transaction`."""
    with _connect() as first, _connect() as second:
        own = _process(first)
        for _ in range(TRIES):
            if _process(second) == own or _process(first) != own:
                return "transaction"
    return "session"


def _process(database: psycopg.Connection[Any]) -> int:
    row = database.execute("SELECT pg_backend_pid()").fetchone()
    return int(row[0]) if row else 0


def _connect(**parameters: Any) -> psycopg.Connection[Any]:
    given = connection.get_connection_params() | {"cursor_factory": psycopg.ClientCursor, "autocommit": True}
    given.pop("context", None)
    return psycopg.connect(**given | parameters)


def _console() -> Mapping[str, str] | None:
    """Read the store's pool from PgBouncer's console; empty if this user has no access, None without PgBouncer."""
    try:
        with _connect(dbname=CONSOLE, row_factory=dict_row) as console:
            version = console.execute("SHOW VERSION").fetchall()
            config = {row["key"]: row["value"] for row in console.execute("SHOW CONFIG")}
            name = settings.DATABASES["default"]["NAME"]
            databases = [row for row in console.execute("SHOW DATABASES") if row["name"] == name]
            pools = [row for row in console.execute("SHOW POOLS") if row["database"] == name]
    except psycopg.OperationalError as error:
        return {} if NOT_ALLOWED in str(error) else None
    mode = next((row["pool_mode"] for row in [*pools, *databases] if row["pool_mode"]), config.get("pool_mode", ""))
    size = next((row["pool_size"] for row in databases), config.get("default_pool_size", "0"))
    waiting = sum(int(row["cl_waiting"]) for row in pools)
    name = next(iter(version[0].values())) if version else "PgBouncer"
    return {"name": name, "mode": mode, "size": str(size), "waiting": str(waiting)}


def _check_pool(console: Mapping[str, str]) -> Finding:
    pool = f"{console['name']} in {console['mode']} mode with a pool of {console['size']} connections"
    if int(console["size"]) < LEAST_POOL:
        return warning(f"{pool}; set default_pool_size to at least {LEAST_POOL}, better to the number of processes.")
    if int(console["waiting"]):
        return warning(f"{pool}, for one of which {console['waiting']} clients wait now; raise default_pool_size.")
    return good(f"{pool}.")


def nothing_was_given_up() -> Finding:
    """Check that no messages to integrations were given up."""
    given_up = outbox.given_up()
    if not given_up:
        return good("No message to an integration was given up.")
    messages = "1 message to integrations was" if given_up == 1 else f"{given_up:,} messages to integrations were"
    return warning(f"{messages} given up; Settings → Integrations shows why.")


def receivers_keep_up() -> Finding:
    """Check that receivers accept messages as fast as they come."""
    late = health.late_receivers()
    if not late:
        return good("Every receiver accepts its messages in time.")
    lags = [
        f"{lag.integration.name} of {lag.integration.organization.login} ({lag.waiting:,} messages wait, the oldest "
        f"for {lag.oldest.total_seconds() / 60:,.0f} min)"
        for lag in late
    ]
    return warning(f"These receivers are slow or fail: {_some(lags)}. Settings → Integrations shows their answers.")


def secrets_can_be_read() -> Finding:
    """Check that the integrations' secrets can be decrypted."""
    unreadable = []
    for integration in Integration.objects.filter(deleted_at__isnull=True).select_related("organization").iterator():
        try:
            _ = integration.secrets
        except Undecipherable:
            unreadable.append(f"{integration.name} of {integration.organization.login}")
    if not unreadable:
        return good("The secrets of all integrations can be read.")
    unreadable_secrets = f"The secrets of {_some(unreadable)} cannot be read"
    return problem(f"{unreadable_secrets}; restore the former value of ENCRYPTION_KEYS, or enter the secrets again.")


def keys_are_used() -> Finding:
    """Check that there are no old API keys that were never used."""
    old = ApiKey.objects.filter(
        revoked_at__isnull=True, last_used_at__isnull=True, created_at__lt=timezone.now() - UNUSED_AFTER
    )
    keys = [f"{key.hint} of {key.organization.login}" for key in old.select_related("organization").order_by("pk")]
    if not keys:
        return good("Every API key is new or has been used.")
    unused = "1 API key was" if len(keys) == 1 else f"{len(keys)} API keys were"
    return warning(f"{unused} never used; revoke those that nobody needs: {_some(keys)}.")


def every_organization_has_an_owner() -> Finding:
    """Check that each organization has an owner, who can create keys for it."""
    owners = Membership.objects.filter(organization=OuterRef("pk"), role=Role.OWNER, user__is_active=True)
    without = Organization.objects.filter(~Exists(owners)).order_by("key").values_list("login", flat=True)
    if not without:
        return good("Every organization has an owner.")
    return warning(
        f"Nobody can create keys in organizations without an owner: {_some(without)}. An administrator of the "
        "organization on GitHub becomes an owner by signing in."
    )


def database_matches_history() -> Finding:
    """Check that everything that decides which policies runners get is as the history recorded it."""
    ends, sentences = time.monotonic() + SECONDS_TO_COMPARE, list[str]()
    for part in Comparison().slices():
        sentences += [problem.sentence for problem in part.problems]
        if time.monotonic() > ends:
            rest = f" Not everything was compared within {SECONDS_TO_COMPARE:.0f} s; run `manage.py verify_history`."
            break
    else:
        rest = ""
    if not sentences:
        return good(f"Policies, attachments, exceptions and keys match the history.{rest}")
    more = f" And {len(sentences) - NAMES_SHOWN:,} more." if len(sentences) > NAMES_SHOWN else ""
    return problem(f"The database was changed outside Policy Store. {' '.join(sentences[:NAMES_SHOWN])}{more}{rest}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return f"{', '.join(listed[:NAMES_SHOWN])}{more}"
