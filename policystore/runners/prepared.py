"""A statement that is run again and again with next to nothing around it: the policy fetch's.

Django's cursor costs more than all else that a fetch does in its process: on PostgreSQL some 80 µs, the same statement
straight through libpq 16 µs; on SQLite the placeholders are written anew into the whole text each time.
"""

from __future__ import annotations

import re
import select
import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from django.db import Error, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import Error as PostgresqlError
from psycopg import adapt, errors, pq

Row = tuple[Any, ...]
_ERRORS = (Error, PostgresqlError, sqlite3.Error)
# Runners wait three seconds; a database that has not answered after so long counts as away, and for a moment after it
# nobody waits for it again.
PATIENCE_SECONDS = 1.0
REST_SECONDS = 5.0


class Prepared:
    """One statement, with a `%s` for each parameter, that is prepared once on each connection."""

    def __init__(self, name: str, statement: str) -> None:
        numbers = count(1)
        self._statement = statement
        self._for_sqlite = statement.replace("%s", "?")
        self._for_postgresql = re.sub("%s", lambda _: f"${next(numbers)}", statement).encode()
        self._name = name.encode()
        self._resting_until = 0.0
        # What turns the values that PostgreSQL sends into Python's, for each connection that knows the statement.
        self._readers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._straight: dict[str, Callable[[Any, Sequence[str]], Row | None]] = {
            "postgresql": self._on_postgresql,
            "sqlite": self._on_sqlite,
        }

    def first_row(self, parameters: Sequence[str]) -> Row | None:
        """The first row, or None. Raises django.db.Error, OperationalError where the database does not answer in time.

        Asking the connection for its health each time would cost a fifth of the throughput; one that was dropped is
        met by trying once more on a new one. Within a transaction, Django does it.
        """
        database = connections["default"]
        if database.in_atomic_block or database.force_debug_cursor:
            return self._as_django(database, parameters)
        began = time.monotonic()
        if began < self._resting_until:
            raise OperationalError("The database did not answer in time a moment ago.")
        is_new = database.connection is None
        try:
            return self._try(database, parameters)
        except _ERRORS as error:
            database.close()
            self._give_up_if_late(began, error, is_new=is_new)
        try:
            return self._try(database, parameters)
        except _ERRORS as error:
            database.close()
            self._give_up_if_late(began, error, is_new=True)
            raise OperationalError(str(error)) from error

    def _try(self, database: BaseDatabaseWrapper, parameters: Sequence[str]) -> Row | None:
        if database.connection is None:
            database.connect()
        return self._straight[database.vendor](database.connection, parameters)

    def _give_up_if_late(self, began: float, error: Exception, *, is_new: bool) -> None:
        now = time.monotonic()
        if now - began >= PATIENCE_SECONDS:
            # An old connection may be dead by itself; the runner's next try makes a new one.
            if is_new:
                self._resting_until = now + REST_SECONDS
            raise OperationalError("The database does not answer in time.") from error

    def _as_django(self, database: BaseDatabaseWrapper, parameters: Sequence[str]) -> Row | None:
        with database.cursor() as cursor:
            cursor.execute(self._statement, parameters)
            row: Row | None = cursor.fetchone()
        return row

    def _on_sqlite(self, connection: Any, parameters: Sequence[str]) -> Row | None:
        row: Row | None = connection.execute(self._for_sqlite, parameters).fetchone()
        return row

    def _on_postgresql(self, connection: Any, parameters: Sequence[str]) -> Row | None:
        reader = self._readers.get(connection)
        if reader is None:
            connection.pgconn.send_prepare(self._name, self._for_postgresql)
            _checked(_awaited(connection.pgconn))
            reader = self._readers[connection] = adapt.Transformer(connection)
        values = [parameter.encode() for parameter in parameters]
        connection.pgconn.send_query_prepared(self._name, values)
        result = _checked(_awaited(connection.pgconn))
        if not result.ntuples:
            return None
        reader.set_pgresult(result)
        row: Row | None = reader.load_row(0, tuple)
        return row


def _awaited(pgconn: pq.abc.PGconn) -> pq.abc.PGresult:
    """The result of what was sent. Raises psycopg's OperationalError after PATIENCE_SECONDS."""
    until = time.monotonic() + PATIENCE_SECONDS
    while pgconn.flush():
        _wait(pgconn, select.POLLOUT | select.POLLIN, until)
        pgconn.consume_input()
    last: pq.abc.PGresult | None = None
    while True:
        while pgconn.is_busy():
            _wait(pgconn, select.POLLIN, until)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        last = result
    if last is None:
        raise errors.OperationalError("the server gave no result")
    return last


def _wait(pgconn: pq.abc.PGconn, events: int, until: float) -> None:
    waiting = select.poll()
    waiting.register(pgconn.socket, events)
    if not waiting.poll(max(until - time.monotonic(), 0) * 1000):
        raise errors.OperationalError("the server does not answer in time")


def _checked(result: pq.abc.PGresult) -> pq.abc.PGresult:
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise errors.error_from_result(result)
    return result
