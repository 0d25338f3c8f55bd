"""Lets a migration wait for its locks only so long that no fetch, which waits behind it, comes too late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from django.db import OperationalError, connection, transaction

# Clients give up after three seconds: so long may a statement of a migration, and all that waits behind it, wait.
LOCK_SECONDS = 1.0
PAUSE_SECONDS = 5.0
_NO_LOCK = "55P03"
Execute = Callable[[str, Any, bool, dict[str, Any]], Any]
_OLDEST = """
SELECT pid, application_name, round(extract(epoch FROM now() - xact_start))::int
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - interval '1 second'
ORDER BY xact_start LIMIT 1
"""


@contextmanager
def lock_timeout(seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Within this block, statements of this connection fail that wait longer for a lock; on PostgreSQL alone.

    The limit is set in each transaction, since PgBouncer hands the session to others. Indexes that are built or dropped
    concurrently run outside of transactions and have no limit: nobody waits behind them.
    """
    if connection.vendor != "postgresql":
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


def until_done(work: Callable[[], object], *, seconds: float, tell: Callable[[str], None]) -> bool:
    """Do `work`, which can be repeated, until no lock is in its way or the time is over; False if it was not done.

    Every error that is not about a lock is the caller's. `tell` gets a sentence before each pause.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            with lock_timeout():
                work()
            return True
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != _NO_LOCK:
                raise
        if time.monotonic() + PAUSE_SECONDS > deadline:
            return False
        tell(f"A lock is in the way{_of_whom()}. Nothing waits for this migration; next try in {PAUSE_SECONDS:.0f} s.")
        time.sleep(PAUSE_SECONDS)


def oldest_transaction() -> str | None:
    """The transaction that has been open longest, in words, if any is older than a second; on PostgreSQL alone."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute(_OLDEST)
        row = cursor.fetchone()
    if row is None:
        return None
    process, application, age = row
    by = f", of {application}" if application else ""
    return f"a transaction open for {age} s (process {process}{by})"


def _of_whom() -> str:
    oldest = oldest_transaction()
    return f", probably of {oldest}" if oldest else ""
