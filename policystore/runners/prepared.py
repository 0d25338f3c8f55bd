"""A statement that is run again and again with next to nothing around it: the policy fetch's.

Django's cursor costs more than all else that a fetch does in its process: on PostgreSQL some 80 µs, the same statement
straight through libpq 16 µs; on SQLite the placeholders are written anew into the whole text each time.
"""

from __future__ import annotations

import re
import select
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from django.db import Error, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import Error as PostgresqlError
from psycopg import adapt, errors, pq

from policystore.runners.connecting import Connecting

Row = tuple[Any, ...]
Parameters = Mapping[str, str]
_PARAMETER = re.compile(r"%\((\w+)\)s")
_ERRORS = (Error, PostgresqlError, sqlite3.Error)
# Runners wait three seconds. A database that has not answered after so long counts as away; a new connection, for which
# two seconds are nothing unusual where one of two addresses is dead, is only waited for while there is time for it: no
# longer than to this end of what is left for the answer.
PATIENCE_SECONDS = 1.0
RETRY_WITHIN_SECONDS = 0.5
ANSWER_SECONDS = 2.5
ASKING_SECONDS = 0.25
# For so long after it nobody waits for it again.
REST_SECONDS = 5.0
# An old connection may be dead by itself, so a new one is made soon; but not for those who have waited behind the old
# one already, as long as there is something else to tell them.
SHORT_REST_SECONDS = 0.5


class Prepared:
    """One statement, with `%(name)s` for each parameter, that is prepared once on each connection.

    A parameter that stands in several places goes to the database once.
    """

    def __init__(self, name: str, statement: str) -> None:
        self._statement = statement
        self._parameters = list(dict.fromkeys(_PARAMETER.findall(statement)))
        self._for_sqlite = self._numbered("?")
        self._for_postgresql = self._numbered("$").encode()
        self._name = name.encode()
        self._resting_until = self._spared_until = 0.0
        self._current = _Current()
        self._connecting = Connecting()
        self._straight: dict[str, Callable[[Any, Parameters, float], Row | None]] = {
            "postgresql": self._on_postgresql,
            "sqlite": self._on_sqlite,
        }

    def _numbered(self, sign: str) -> str:
        return _PARAMETER.sub(lambda found: f"{sign}{self._parameters.index(found[1]) + 1}", self._statement)

    def first_row(self, parameters: Parameters, *, has_other: Callable[[], bool] = lambda: False) -> Row | None:
        """The first row, or None. Raises django.db.Error, OperationalError where the database does not answer in time.

        `has_other` says whether the caller could do without for the short time after an old connection was given up.

        Asking the connection for its health each time would cost a fifth of the throughput; one that was dropped is
        met by trying once more on a new one. Within a transaction, Django does it.
        """
        database = connections["default"]
        if database.in_atomic_block or database.force_debug_cursor:
            return self._as_django(database, parameters)
        began = time.monotonic()
        made = self._connecting.made()
        if made is not None:
            database, self._resting_until, self._spared_until = made, 0.0, 0.0
        if began < self._resting_until or (began < self._spared_until and has_other()):
            raise OperationalError("The database did not answer in time a moment ago.")
        until = began + ANSWER_SECONDS
        if database.connection is not None:
            try:
                return self._ask(database, parameters, until)
            except _ERRORS as error:
                database.close()
                self._give_up_old_if_late(began, error)
        try:
            database = self._connected(database, until)
            row = self._ask(database, parameters, until)
        except _ERRORS as error:
            database.close()
            self._rest_if_late(began)
            raise OperationalError(str(error)) from error
        self._spared_until = 0.0
        return row

    def _connected(self, database: BaseDatabaseWrapper, until: float) -> BaseDatabaseWrapper:
        if database.vendor == "postgresql":
            return self._connecting.within(max(until - ASKING_SECONDS - time.monotonic(), 0.0))
        database.connect()
        return database

    def _ask(self, database: BaseDatabaseWrapper, parameters: Parameters, until: float) -> Row | None:
        return self._straight[database.vendor](database.connection, parameters, until)

    def _give_up_old_if_late(self, began: float, error: Exception) -> None:
        now = time.monotonic()
        if now - began >= RETRY_WITHIN_SECONDS:
            self._spared_until = now + SHORT_REST_SECONDS
            raise OperationalError("The database does not answer in time.") from error

    def _rest_if_late(self, began: float) -> None:
        now = time.monotonic()
        if now - began >= PATIENCE_SECONDS:
            self._resting_until = now + REST_SECONDS

    def _as_django(self, database: BaseDatabaseWrapper, parameters: Parameters) -> Row | None:
        with database.cursor() as cursor:
            cursor.execute(self._statement, parameters)
            row: Row | None = cursor.fetchone()
        return row

    def _on_sqlite(self, connection: Any, parameters: Parameters, _: float) -> Row | None:
        values = [parameters[name] for name in self._parameters]
        row: Row | None = connection.execute(self._for_sqlite, values).fetchone()
        return row

    def _on_postgresql(self, connection: Any, parameters: Parameters, until: float) -> Row | None:
        current = self._current
        if current.connection is not connection:
            current.statement = _OnPostgresql(connection, self._name, self._for_postgresql, until)
            current.connection = connection
        return current.statement.first_row([parameters[name].encode() for name in self._parameters], until)


class _Current(threading.local):
    """The connection that was asked last, of which a thread has one at a time, and the statement as prepared on it.

    No dictionary of connections, even a weak one: the statement holds its connection, which would never be let go.
    """

    connection: Any = None
    statement: _OnPostgresql


class _OnPostgresql:
    """The statement on one connection, asked straight through libpq."""

    def __init__(self, connection: Any, name: bytes, statement: bytes, until: float) -> None:
        self._pgconn, self._name = connection.pgconn, name
        self._waiting = select.poll()
        self._waiting.register(self._pgconn.socket, select.POLLIN)
        # What turns the values that PostgreSQL sends into Python's.
        self._reader = adapt.Transformer(connection)
        self._pgconn.send_prepare(name, statement)
        self._result(until)

    def first_row(self, values: list[bytes], until: float) -> Row | None:
        """The first row for these parameters, or None. Raises psycopg's errors."""
        self._pgconn.send_query_prepared(self._name, values)
        result = self._result(until)
        if not result.ntuples:
            return None
        self._reader.set_pgresult(result)
        row: Row | None = self._reader.load_row(0, tuple)
        return row

    def _result(self, until: float) -> pq.abc.PGresult:
        """The result of what was sent. Raises psycopg's OperationalError then, and after PATIENCE_SECONDS."""
        pgconn, until = self._pgconn, min(until, time.monotonic() + PATIENCE_SECONDS)
        self._flush(until)
        last: pq.abc.PGresult | None = None
        while True:
            while pgconn.is_busy():
                self._wait(until)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            last = result
        if last is None:
            raise errors.OperationalError("the server gave no result")
        if last.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise errors.error_from_result(last)
        return last

    def _flush(self, until: float) -> None:
        while self._pgconn.flush():
            self._waiting.modify(self._pgconn.socket, select.POLLOUT | select.POLLIN)
            self._wait(until)
            self._waiting.modify(self._pgconn.socket, select.POLLIN)
            self._pgconn.consume_input()

    def _wait(self, until: float) -> None:
        if not self._waiting.poll(max(until - time.monotonic(), 0) * 1000):
            raise errors.OperationalError("the server does not answer in time")
