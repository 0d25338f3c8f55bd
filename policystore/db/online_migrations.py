"""Migrates a store that is in use: one `migrate` at a time, and none that holds up a policy fetch.

A fetch waits behind a statement that waits for a lock, so a migration's statements give up quickly and are retried.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from django.db import OperationalError, ProgrammingError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from policystore.db import vendor

logger = logging.getLogger(__name__)

Migration = tuple[str, str]
Execute = Callable[[str, Any, bool, dict[str, Any]], Any]

# Clients give up after three seconds. A statement of a migration, and all that waits behind it, may wait this long.
LOCK_SECONDS = 1.0
RETRY_SECONDS = 5.0
POLL_SECONDS = 1.0
_LOCK_NOT_AVAILABLE = "55P03"
# An arbitrary number that nothing else locks; PostgreSQL has such locks for each database.
_ADVISORY_LOCK = 7310033862517
_OLDEST_TRANSACTION = """
SELECT pid, application_name, round(extract(epoch FROM now() - xact_start))::int
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - interval '1 second'
ORDER BY xact_start LIMIT 1
"""


@cache
def known() -> frozenset[Migration]:
    """Return the migrations of this release as (app, name); reads them from disk once."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


def applied() -> frozenset[Migration]:
    """Return the migrations that were applied to the database. Raises DatabaseError."""
    return frozenset(MigrationRecorder(connection).applied_migrations())


def pending() -> list[Migration]:
    """Return what `manage.py migrate` would still apply. Raises DatabaseError."""
    return sorted(known() - applied())


def unknown() -> list[Migration]:
    """Return what a newer release has applied; this release still works with it. Raises DatabaseError."""
    apps = {app for app, _ in known()}
    return sorted(migration for migration in applied() - known() if migration[0] in apps)


@contextmanager
def migrating(report: Callable[[str], None]) -> Iterator[None]:
    """Keep other processes from migrating this database within the block; wait for one that does, without a limit.

    The lock ends when its holder ends, however it ends. `report` gets a sentence before a wait.
    """
    with vendor.choose(postgresql=_advisory_lock, sqlite=_folder_lock)() as acquire:
        if not acquire():
            report("Another migrate is at work on this database; this one goes on when that has ended.")
            while not acquire():
                time.sleep(POLL_SECONDS)
        yield


@contextmanager
def _advisory_lock() -> Iterator[Callable[[], bool]]:
    """Hold the lock in a transaction on a separate connection: PgBouncer would hand a session's lock to others.

    Between its statements that transaction has no snapshot, so an index that is built concurrently does not wait for
    it. For the same reason nothing waits for the lock within one statement.
    """
    holder = connections.create_connection(connection.alias)
    holder.inc_thread_sharing()
    try:
        holder.set_autocommit(False)
        yield lambda: _try_advisory_lock(holder)
    finally:
        holder.close()


def _try_advisory_lock(holder: BaseDatabaseWrapper) -> bool:
    with holder.cursor() as cursor:
        # A parameter would be bound to a portal, which keeps its snapshot until the transaction's next statement.
        cursor.execute(f"SELECT pg_try_advisory_xact_lock({_ADVISORY_LOCK})")
        return bool(cursor.fetchone()[0])


@contextmanager
def _folder_lock() -> Iterator[Callable[[], bool]]:
    # Not on the database file: SQLite would lose its own locks when the first handle of that file is closed.
    handle = os.open(Path(connection.settings_dict["NAME"]).parent, os.O_RDONLY)

    def acquire() -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        yield acquire
    finally:
        os.close(handle)


@contextmanager
def lock_timeout(seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Make statements of this connection fail if they wait longer for a lock. Does nothing on SQLite.

    The limit is set in each transaction, because PgBouncer hands the session to others. Indexes that are built or
    dropped concurrently run outside of transactions and have no limit: nothing waits behind them.
    """
    if not vendor.is_postgresql():
        yield
        return
    set_limit = f"SET LOCAL lock_timeout = '{int(seconds * 1000)}ms'"

    def execute(run: Execute, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if " CONCURRENTLY " in str(sql):
            return run(sql, params, many, context)
        with nullcontext() if connection.in_atomic_block else transaction.atomic():
            context["cursor"].cursor.execute(set_limit)
            return run(sql, params, many, context)

    with connection.execute_wrapper(execute):
        yield


def retry_on_lock(work: Callable[[], object], *, seconds: float, report: Callable[[str], None]) -> bool:
    """Do `work`, which can be repeated, until no lock is in its way; returns False if `seconds` are over before that.

    Raises every error of `work` that is not about a lock. `report` gets a sentence before each pause.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with lock_timeout():
                work()
            return True
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
        if time.monotonic() + RETRY_SECONDS > deadline:
            return False
        oldest = oldest_transaction()
        holder = f", probably of {oldest}" if oldest else ""
        report(f"A lock is in the way{holder}. Nothing waits for this migration; next try in {RETRY_SECONDS:.0f} s.")
        time.sleep(RETRY_SECONDS)


def oldest_transaction() -> str | None:
    """Describe the longest open transaction that is older than a second; None if there is none, or on SQLite."""
    if not vendor.is_postgresql():
        return None
    with connection.cursor() as cursor:
        cursor.execute(_OLDEST_TRANSACTION)
        row = cursor.fetchone()
    if row is None:
        return None
    process, application, age = row
    by = f", of {application}" if application else ""
    return f"a transaction open for {age} s (process {process}{by})"


_INSTALLED = "SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = 'pg_trgm'"


def create_trigram_indexes(schema_editor: BaseDatabaseSchemaEditor, indexes: dict[str, tuple[str, str]]) -> None:
    """Create each index, given as name: (table, SQL expression), in a migration, if the database allows it.

    They need the extension pg_trgm, which every managed PostgreSQL and Debian's packages have, and which the owner of a
    database may create. Without it a migration creates no such index, and the same queries read the whole table.
    """
    database = schema_editor.connection
    if database.vendor != "postgresql":
        return
    with database.cursor() as cursor:
        row = cursor.execute(_INSTALLED).fetchone()
        if row is None:
            return
        try:
            # In a savepoint: without it, an error would end the migration's transaction.
            with transaction.atomic(using=database.alias):
                if not row[0]:
                    cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
                for name, (table, expression) in indexes.items():
                    cursor.execute(f"CREATE INDEX {name} ON {table} USING gin (({expression}) gin_trgm_ops)")
        except ProgrammingError as error:
            logger.warning("Searches work without a trigram index, but are slower: %s", error)
