"""Shares a PostgreSQL server's connections among more processes than it allows connections.

A process that is refused a connection tries again until its time is over. So that this succeeds, a process keeps an
idle connection only while at most half of the allowed ones are in use; otherwise it closes it right after use. The
processes need not know of each other.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

# How long this process waits for a free connection. Runners give up after 3 s; nobody waits for the worker.
WAIT_SECONDS, WORKER_WAIT_SECONDS = 2.0, 10.0
wait_seconds = WAIT_SECONDS
# Each thread of a web process has a connection of its own.
WEB_THREADS = 4
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.1
# libpq gives no SQLSTATE for a connection that was refused. The last one is PgBouncer's.
_REFUSALS = (
    "too many clients already",
    "remaining connection slots are reserved",
    "too many connections for",
    "no more connections allowed",
)
# How many connections are allowed, how many are used, and the id of the server process of this one. A role and a
# database may have limits of their own; -1 means none. What is reserved for superusers is no use here.
SLOTS = """
SELECT least(
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
    (SELECT CASE WHEN rolconnlimit >= 0 THEN rolconnlimit END FROM pg_roles WHERE rolname = current_user),
    (SELECT CASE WHEN datconnlimit >= 0 THEN datconnlimit END FROM pg_database WHERE datname = current_database())
), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), pg_backend_pid()
"""


class Slots(NamedTuple):
    """The row of SLOTS, read on the connection itself."""

    allowed: int
    used: int
    backend_pid: int

    @property
    def may_be_kept(self) -> bool:
        """True if the connection may stay open while it is idle."""
        return self.used * 2 <= self.allowed

    def is_direct(self, connection: psycopg.Connection[Any]) -> bool:
        """True if no pooler is in between, which makes up the process id that it announces."""
        return self.backend_pid == connection.info.backend_pid


def is_refused(error: BaseException) -> bool:
    """True if the server, or PgBouncer, refused a connection because it has no free one."""
    message = str(error)
    return any(refusal in message for refusal in _REFUSALS)


def release(database: BaseDatabaseWrapper) -> bool:
    """Close Django's connection of this thread if it must not be kept while it is idle; returns True if it did."""
    if database.connection is None or database.in_atomic_block or getattr(database, "may_be_kept", True):
        return False
    database.close()
    return True


def pauses() -> Iterator[float]:
    """Seconds to wait before each further attempt: longer and longer, and never the same for two processes."""
    longest = SHORTEST_PAUSE
    while True:
        yield random.uniform(SHORTEST_PAUSE / 2, longest)  # noqa: S311 no secret
        longest = min(longest * 2, LONGEST_PAUSE)


def connect(attempt: Callable[[], Any], *, seconds: float | None = None) -> Any:
    """Return what `attempt` returns, trying again while it is refused because there is no free connection.

    Raises the last error when `seconds` (default: `wait_seconds`) are over, and every other error right away.
    """
    until = time.monotonic() + (wait_seconds if seconds is None else seconds)
    for pause in pauses():
        try:
            return attempt()
        except Exception as error:
            if not is_refused(error) or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
    raise AssertionError("pauses never end")
