"""Runs the SQL of a policy fetch within a time limit that holds whatever the database or the network does.

On PostgreSQL each process keeps a few connections of its own, without session state. Statements are prepared on
connections to PostgreSQL itself, where planning a fetch takes seven times as long as running it, and never through
PgBouncer, which may give the next statement to another server connection. A background thread opens connections, so a
fetch never waits for a name server or for a dead address. Another thread cancels statements that take too long, from
outside, because a server that hangs does not end them itself. Django's cursor would cost more than everything else
that a fetch does.

This is not `psycopg_pool`, which would replace only the opening of connections: its clients wait for the whole timeout
while the database refuses connections, and it neither cancels overdue statements nor gives connections back to other
processes when the server runs out of them.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import Any

import psycopg
from django.db import DatabaseError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from policystore.db import connection_slots
from policystore.db.connection_slots import Slots

logger = logging.getLogger(__name__)

Row = tuple[Any, ...]
Parameters = Mapping[str, str]

# Runners wait three seconds. The limits below add up to less, with some time left for a busy machine.
CONNECTIONS = 2
STATEMENT_SECONDS = 1.0
CONNECTION_SECONDS = 1.0
# If the server works but has no free connection, its statements are as fast as ever, so there is more time to wait.
REFUSED_SECONDS = 1.5
# After an error a fetch waits this long for a new connection, then it is answered without the database.
RETRY_SECONDS = 0.5
TOTAL_SECONDS = 1.8
WATCH_SECONDS = 0.1
CANCEL_SECONDS = 0.3
# While the database is unavailable, it is probed this often.
PROBE_SECONDS = 0.25
# If other processes need connections, this one passes a connection from fetch to fetch no longer than this.
SHARED_SECONDS = 0.25
_PARAMETER = re.compile(r"%\((\w+)\)s")


class Statement:
    """A SELECT with `%(name)s` for each parameter; a parameter that is used several times is sent once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.parameters = list(dict.fromkeys(_PARAMETER.findall(text)))
        self.for_sqlite = self._numbered("?")
        self.for_postgresql = self._numbered("$").encode()

    def _numbered(self, sign: str) -> str:
        return _PARAMETER.sub(lambda match: f"{sign}{self.parameters.index(match[1]) + 1}", self.text)


SLOTS = Statement(connection_slots.SLOTS)


class Database:
    """The database as fetches use it.

    `probe` with these parameters reads every table that fetches read; if it works, so do fetches.
    """

    def __init__(self, probe: Statement, parameters: Parameters) -> None:
        self._probe = probe, [parameters[name] for name in probe.parameters]
        self._reset()
        # Neither threads nor connections survive a fork.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._pool = _Pool(*self._probe)

    @property
    def is_available(self) -> bool:
        """False from the first statement that gets no answer in time until a probe succeeds."""
        return not self._pool.is_unavailable

    @property
    def would_wait(self) -> bool:
        """True if a statement would have to wait for a connection now; never on SQLite, nor before the first one."""
        return self._pool.would_wait

    def first_row(self, statement: Statement, parameters: Parameters) -> Row | None:
        """Return the first row, or None. Raises django.db.DatabaseError after TOTAL_SECONDS at most.

        Inside a transaction Django runs the statement, on the transaction's connection and without these limits.
        """
        database = connections["default"]
        if database.in_atomic_block or database.force_debug_cursor:
            return _on_django(database, statement, parameters)
        values = [parameters[name] for name in statement.parameters]
        if database.vendor == "sqlite":
            return _on_sqlite(database, statement, values)
        return self._pool.first_row(statement, values)

    def close(self) -> None:
        """Close all connections; new ones are opened when they are needed."""
        self._pool.close()
        self._reset()


def _on_django(database: BaseDatabaseWrapper, statement: Statement, parameters: Parameters) -> Row | None:
    with database.cursor() as cursor:
        cursor.execute(statement.text, parameters)
        row: Row | None = cursor.fetchone()
    return row


def _on_sqlite(database: BaseDatabaseWrapper, statement: Statement, values: list[str]) -> Row | None:
    """Run it on this thread's connection; in WAL mode, reads never wait."""
    for is_last in (False, True):
        try:
            database.ensure_connection()
            row: Row | None = database.connection.execute(statement.for_sqlite, values).fetchone()
        except sqlite3.Error as error:
            database.close()
            if is_last:
                raise OperationalError(str(error)) from error
        else:
            return row
    raise AssertionError("the last attempt returns or raises")


class _PooledConnection:
    """One connection to PostgreSQL. `until` is when its running statement is overdue; inf between statements."""

    def __init__(self) -> None:
        parameters = connections["default"].get_connection_params()
        parameters |= {"cursor_factory": psycopg.RawCursor, "prepare_threshold": None, "autocommit": True}
        self._connection = psycopg.connect(**parameters)
        self._cursor = self._connection.cursor()
        self.until = inf
        self.is_overdue = False
        self.opened_at = time.monotonic()
        self._may_be_kept = True

    def inspect(self, seconds: float) -> None:
        """Read whether a pooler is in between, and how many connections the server has left. Raises psycopg.Error."""
        slots = Slots(*self.first_row(SLOTS, [], seconds) or (0, 0, 0))
        self._may_be_kept = slots.may_be_kept
        if slots.is_direct(self._connection):
            self._connection.prepare_threshold = 0

    def may_be_kept(self, is_needed: bool) -> bool:
        """False if other processes need the connection; a fetch of this process may still have it for a short time."""
        return self._may_be_kept or (is_needed and time.monotonic() - self.opened_at < SHARED_SECONDS)

    def first_row(self, statement: Statement, values: list[str], seconds: float) -> Row | None:
        """Return the first row, or None. Raises psycopg.Error, also after `seconds`."""
        self.until = time.monotonic() + seconds
        try:
            return self._cursor.execute(statement.for_postgresql, values).fetchone()
        except psycopg.errors.FeatureNotSupported:
            # A migration has changed a type in the result of a prepared statement.
            self.is_overdue = True
            raise
        finally:
            self.until = inf

    @property
    def is_usable(self) -> bool:
        """False after an error of the connection. A late cancellation might also hit the next statement."""
        return not self.is_overdue and not self._connection.closed

    def cancel(self) -> None:
        """Cancel the running statement; if the server does not react, shut down the connection's socket."""
        is_second_try, self.is_overdue = self.is_overdue, True
        with suppress(psycopg.Error):
            if not is_second_try:
                self._connection.cancel_safe(timeout=CANCEL_SECONDS)
                return
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._connection.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        with suppress(psycopg.Error):
            self._connection.close()


class _Pool:
    """Up to CONNECTIONS connections of one process, opened in the background as they are needed.

    `is_unavailable` works as a circuit breaker: no fetch waits for the database until the probe has succeeded on a new
    connection.
    """

    def __init__(self, probe: Statement, values: list[str]) -> None:
        self._probe = probe, values
        lock = threading.Lock()
        self._ready, self._needed = threading.Condition(lock), threading.Condition(lock)
        self._idle: list[_PooledConnection] = []
        self._open_connections: set[_PooledConnection] = set()
        self._waiting = self._failures = 0
        self._is_running = self._is_closed = self._is_refused = False
        self.is_unavailable = False

    def first_row(self, statement: Statement, values: list[str]) -> Row | None:
        """Run the statement, and once more on a new connection if the first breaks. Raises django.db.DatabaseError."""
        ends = time.monotonic() + TOTAL_SECONDS
        connection = self._take(REFUSED_SECONDS if self._is_refused else CONNECTION_SECONDS)
        try:
            return connection.first_row(statement, values, min(STATEMENT_SECONDS, ends - time.monotonic()))
        except psycopg.Error as error:
            if connection.is_usable:
                raise DatabaseError(str(error)) from error
        finally:
            self._give_back(connection)
        connection = self._take(min(RETRY_SECONDS, ends - time.monotonic()), even_if_unavailable=True)
        try:
            return connection.first_row(statement, values, ends - time.monotonic())
        except psycopg.Error as error:
            raise OperationalError(str(error)) from error
        finally:
            self._give_back(connection)

    @property
    def would_wait(self) -> bool:
        """True if no connection is idle, although the database is available."""
        return self._is_running and not (self._idle or self.is_unavailable)

    def close(self) -> None:
        """Close all connections and end the background threads."""
        with self._ready:
            self._is_closed = True
            self._needed.notify_all()
            self._drop(*self._open_connections)

    def _take(self, seconds: float, *, even_if_unavailable: bool = False) -> _PooledConnection:
        """Return an idle connection for exclusive use. Raises OperationalError if there is none in time."""
        with self._ready:
            if not self.is_unavailable and self._idle:
                return self._idle.pop()
            if self.is_unavailable and not even_if_unavailable:
                raise OperationalError("The database is unavailable.")
            self._wait(seconds)
            if not self.is_unavailable and self._idle:
                return self._idle.pop()
        raise OperationalError("No connection to the database in time.")

    def _wait(self, seconds: float) -> None:
        """Wait for an idle connection, or until the connector has failed to open one."""
        self._start()
        failures = self._failures
        self._waiting += 1
        self._needed.notify()
        try:
            self._ready.wait_for(
                lambda: (self._idle and not self.is_unavailable) or self._failures != failures, seconds
            )
        finally:
            self._waiting -= 1
        # If connections exist, they are only busy; if the server has none left, those of other processes are busy.
        if not self._open_connections and not self._is_refused:
            self.is_unavailable = True
            self._needed.notify()

    def _give_back(self, connection: _PooledConnection) -> None:
        """Keep a connection for the next statement. A broken one is dropped together with all idle ones."""
        with self._ready:
            if not connection.is_usable:
                self._drop(connection)
                self._needed.notify()
                return
            if not connection.may_be_kept(self._waiting > 0):
                self._open_connections.discard(connection)
                connection.close()
                self._needed.notify()
                return
            self._idle.append(connection)
            if self._waiting:
                self._ready.notify()

    def _drop(self, *broken: _PooledConnection) -> None:
        """Close these connections and all idle ones."""
        dropped = {*broken, *self._idle}
        for connection in dropped:
            connection.close()
        self._open_connections -= dropped
        self._idle.clear()

    def _start(self) -> None:
        if self._is_running:
            return
        try:
            for name, work in (("fetch-connector", self._connect), ("fetch-watch", self._watch)):
                threading.Thread(target=work, name=name, daemon=True).start()
        except RuntimeError as error:
            raise OperationalError("No thread can be started to connect to the database.") from error
        self._is_running = True

    def _connect(self) -> None:
        """Open connections while a fetch waits for one, and probe the database while it is unavailable."""
        pauses = connection_slots.pauses()
        while True:
            with self._needed:
                self._needed.wait_for(self._is_needed)
                if self._is_closed:
                    return
            if self._open():
                pauses = connection_slots.pauses()
            else:
                time.sleep(next(pauses) if self._is_refused else PROBE_SECONDS)

    def _is_needed(self) -> bool:
        # A fetch that is about to take an idle connection counts as waiting until it runs again.
        is_wanted = self._waiting > len(self._idle) and len(self._open_connections) < CONNECTIONS
        return self._is_closed or self.is_unavailable or is_wanted

    def _open(self) -> bool:
        """Open one connection and run the probe on it; return True if both worked."""
        connection = None
        try:
            connection = _PooledConnection()
            with self._ready:
                self._open_connections.add(connection)
            connection.first_row(*self._probe, STATEMENT_SECONDS)
            connection.inspect(STATEMENT_SECONDS)
        except Exception as error:
            if connection is None and connection_slots.is_refused(error):
                # The server works, and other processes will give connections back, so fetches wait for one.
                self._is_refused, self.is_unavailable = True, False
                return False
            # Log this once, not for each probe.
            if not self._failures:
                logger.warning("The database is unavailable for fetches: %s", error)
            with self._ready:
                self.is_unavailable, self._is_refused = True, False
                self._failures += 1
                self._drop(*filter(None, [connection]))
                self._ready.notify_all()
            return False
        with self._ready:
            if self._is_closed:
                self._drop(connection)
            else:
                self.is_unavailable, self._is_refused, self._failures = False, False, 0
                self._idle.append(connection)
                self._ready.notify_all()
        return True

    def _watch(self) -> None:
        """Cancel overdue statements; from the first one on, the database counts as unavailable."""
        while not self._is_closed:
            time.sleep(WATCH_SECONDS)
            now = time.monotonic()
            for connection in [connection for connection in list(self._open_connections) if now > connection.until]:
                with self._ready:
                    self.is_unavailable = True
                    self._needed.notify()
                connection.cancel()
