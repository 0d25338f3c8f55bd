"""A check of what stands between the store and PostgreSQL: PgBouncer, in which mode, and whether its pool is enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection

from policystore.config import env
from policystore.db import connection_slots
from policystore.operations.findings import Finding, good, problem, warning
from policystore.runners import fetch_query, runner_routes

# A migration holds one connection for its lock and works on another; the worker, a page and a fetch go on beside it.
LEAST_POOL = 5
# Each thread of a web process, and the one that records fetches; in a fetch process also the other runner routes.
PER_WEB_PROCESS = connection_slots.WEB_THREADS + 1
PER_FETCH_PROCESS = fetch_query.CONNECTIONS + runner_routes.DATABASE_SLOTS + 1
# The worker, a migration with its lock, and a readiness probe.
OTHERS = 4
TRIES = 10
# PgBouncer's console is a database of this name; who may not look at it is refused otherwise than by PostgreSQL.
CONSOLE = "pgbouncer"
NOT_ALLOWED = "not allowed"
# What PgBouncer says when it refuses something, and what helps.
ADVICE = {
    "transaction blocks not allowed in statement pooling mode": "set pool_mode = transaction in PgBouncer",
    "unsupported startup parameter: options": "remove `options` from DATABASE_URL",
    "no more connections allowed": "raise max_client_conn in PgBouncer",
}


def advice_on(error: Exception) -> str:
    """What to do about an error of PgBouncer, to follow its message; empty for every other error."""
    return next((f"; {advice}." for text, advice in ADVICE.items() if text in str(error)), "")


def connection_pooler() -> Finding | None:
    """Whether a connection pooler works in a way that the store can use; None if there is no pooler."""
    if connection.vendor != "postgresql" or not _is_pooled():
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
    return _of_console(console)


def connections_suffice() -> Finding | None:
    """Whether PostgreSQL allows as many connections as the store's processes on one machine can use."""
    if connection.vendor != "postgresql" or _is_pooled():
        return None
    with connection.cursor() as cursor:
        cursor.execute(connection_slots.FREE)
        allowed: int = cursor.fetchone()[0]
    processes = env.integer("WEB_CONCURRENCY", default=2, least=1)
    needed = processes * (PER_WEB_PROCESS + PER_FETCH_PROCESS) + OTHERS
    if needed <= allowed:
        return good(f"PostgreSQL allows {allowed} connections, enough for the {needed} that the store uses at most.")
    return warning(
        f"PostgreSQL allows {allowed} connections, and the store uses up to {needed} with WEB_CONCURRENCY={processes}. "
        "Its processes share them, so requests may wait. Raise max_connections, lower WEB_CONCURRENCY or use PgBouncer."
    )


def _is_pooled() -> bool:
    """True if the process that the server names is not the one that answers: poolers hand out numbers of their own."""
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        answering: int = cursor.fetchone()[0]
    return bool(answering != connection.connection.info.backend_pid)


def _mode() -> str:
    """`session` if each connection has a server process of its own; otherwise `transaction`."""
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
    """What PgBouncer's console tells of this store's pool; empty if this user may not look, None without PgBouncer."""
    try:
        with _connect(dbname=CONSOLE) as console:
            version = _shown(console, "SHOW VERSION")
            config = {row["key"]: row["value"] for row in _shown(console, "SHOW CONFIG")}
            name = settings.DATABASES["default"]["NAME"]
            databases = [row for row in _shown(console, "SHOW DATABASES") if row["name"] == name]
            pools = [row for row in _shown(console, "SHOW POOLS") if row["database"] == name]
    except psycopg.OperationalError as error:
        return {} if NOT_ALLOWED in str(error) else None
    mode = next((row["pool_mode"] for row in [*pools, *databases] if row["pool_mode"]), config.get("pool_mode", ""))
    size = next((row["pool_size"] for row in databases), config.get("default_pool_size", "0"))
    waiting = sum(int(row["cl_waiting"]) for row in pools)
    name = next(iter(version[0].values())) if version else "PgBouncer"
    return {"name": name, "mode": mode, "size": str(size), "waiting": str(waiting)}


def _shown(console: psycopg.Connection[Any], statement: str) -> list[dict[str, str]]:
    cursor = console.execute(statement)
    columns = [column.name for column in cursor.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _of_console(console: Mapping[str, str]) -> Finding:
    told = f"{console['name']} in {console['mode']} mode with a pool of {console['size']} connections"
    if console["mode"] == "statement":
        return problem(f"{told}; the store needs transactions: set pool_mode = transaction.")
    if int(console["size"]) < LEAST_POOL:
        return warning(f"{told}; set default_pool_size to at least {LEAST_POOL}, better to the number of processes.")
    if int(console["waiting"]):
        return warning(f"{told}, for one of which {console['waiting']} clients wait now; raise default_pool_size.")
    return good(f"{told}.")
