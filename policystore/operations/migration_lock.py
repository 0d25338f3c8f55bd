"""Lets one `migrate` work on a database at a time, so that two releases that are started together do not collide."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

PAUSE_SECONDS = 1.0
# Of no meaning but that nothing else takes it; PostgreSQL has such locks for each database.
_KEY = 7310033862517


@contextmanager
def migrating(tell: Callable[[str], None]) -> Iterator[None]:
    """Within this block no other process migrates this database; waits for one that does, as long as it takes.

    The lock ends with its holder, in whatever way that ends. `tell` gets a sentence before a wait.
    """
    with _LOCKS[connection.vendor]() as taken:
        if not taken():
            tell("Another migrate is at work on this database; this one goes on when that has ended.")
            while not taken():
                time.sleep(PAUSE_SECONDS)
        yield


@contextmanager
def _advisory_lock() -> Iterator[Callable[[], bool]]:
    """Hold the lock in a transaction on a connection of its own: PgBouncer would hand a session's lock to others.

    Between its statements that transaction has no snapshot, so an index that is built concurrently does not wait for
    it. For the same reason nobody waits for the lock within one statement.
    """
    holder = connections.create_connection(connection.alias)
    holder.inc_thread_sharing()
    try:
        holder.set_autocommit(False)
        yield lambda: _is_taken(holder)
    finally:
        holder.close()


def _is_taken(holder: BaseDatabaseWrapper) -> bool:
    with holder.cursor() as cursor:
        # A parameter would be bound to a portal, which keeps its snapshot until the transaction's next statement.
        cursor.execute(f"SELECT pg_try_advisory_xact_lock({_KEY})")
        return bool(cursor.fetchone()[0])


@contextmanager
def _lock_of_folder() -> Iterator[Callable[[], bool]]:
    # Not of the database's file: SQLite's own locks would be lost with the first handle of it that is closed.
    handle = os.open(Path(connection.settings_dict["NAME"]).parent, os.O_RDONLY)

    def taken() -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        yield taken
    finally:
        os.close(handle)


_LOCKS = {"postgresql": _advisory_lock, "sqlite": _lock_of_folder}
