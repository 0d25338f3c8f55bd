"""Ends what a page asks of the database when its time is over, so that a slow page keeps no runner waiting that the
same process is to answer.

What counts is the time that statements take, not that in which GitHub is asked or a page is written. PostgreSQL is
asked by another thread to cancel, and not told a limit: behind PgBouncer a session's setting would reach others, too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sqlite3 import SQLITE_INTERRUPT
from typing import Any

from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest
from psycopg import Error as PostgresqlError

logger = logging.getLogger(__name__)

CANCELLED = "57014"
# How often SQLite looks at the clock, in steps of its machine: some ten thousand times a second.
STEPS = 10_000
# A cancellation that comes before its statement does is repeated.
REPEAT_SECONDS = 0.25
CANCEL_SECONDS = 1.0
Execute = Callable[[str, Any, bool, dict[str, Any]], Any]


class OutOfTime(OperationalError):
    """There is no time left for another statement."""


def is_out_of_time(error: BaseException | None) -> bool:
    """Whether this is the error of a statement that was ended, or not begun, for lack of time."""
    cause = error.__cause__ if error else None
    code = getattr(cause, "sqlite_errorcode", None)
    return isinstance(error, OutOfTime) or getattr(cause, "sqlstate", None) == CANCELLED or code == SQLITE_INTERRUPT


def only_reads(request: HttpRequest) -> bool:
    """Whether the page changes nothing. What htmx posts changes nothing either: it is a draft, to be looked at."""
    return request.method in ("GET", "HEAD", "OPTIONS") or "HX-Request" in request.headers


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let this thread's statements take so many seconds together. After them they raise errors that `is_out_of_time`
    tells; transactions can still be rolled back."""
    watch = _WATCHES[connection.vendor](connection, seconds)
    try:
        with connection.execute_wrapper(watch):
            yield
    finally:
        watch.end()


class _Watch:
    """Measures the statements of one connection, as Django's wrapper of them."""

    def __init__(self, connection: BaseDatabaseWrapper, seconds: float) -> None:
        self._connection = connection
        self._left = seconds

    def __call__(self, execute: Execute, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if self._left <= 0:
            raise OutOfTime("There is no time left for another statement.")
        began = time.monotonic()
        self.begin(began + self._left)
        try:
            return execute(sql, params, many, context)
        finally:
            self.pause()
            self._left -= time.monotonic() - began

    def begin(self, until: float) -> None:
        """A statement begins."""

    def pause(self) -> None:
        """A statement has ended."""

    def end(self) -> None:
        """No more statements come."""


class _OnSqlite(_Watch):
    """SQLite looks at the clock itself, also while rows are fetched that it finds only then."""

    _watched: Any = None

    def begin(self, until: float) -> None:
        self._watched = self._connection.connection
        self._watched.set_progress_handler(lambda: time.monotonic() >= until, STEPS)

    def end(self) -> None:
        if self._watched is not None and self._watched is self._connection.connection:
            self._watched.set_progress_handler(None, 0)


class _OnPostgresql(_Watch):
    """A thread waits beside and cancels the statement that runs too long."""

    def __init__(self, connection: BaseDatabaseWrapper, seconds: float) -> None:
        super().__init__(connection, seconds)
        self._watched: Any = None
        self._until = float("inf")
        self._running = threading.Lock()
        self._ended = threading.Event()
        self._was_cancelled = False
        self._thread: threading.Thread | None = None

    def begin(self, until: float) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait, args=(self._left,), name="page-deadline", daemon=True)
            self._thread.start()
        with self._running:
            # The thread itself would get a connection of its own.
            self._watched, self._until = self._connection.connection, until

    def pause(self) -> None:
        with self._running:
            self._until = float("inf")

    def end(self) -> None:
        self._ended.set()
        if self._was_cancelled and not self._connection.in_atomic_block:
            # The next request's first statement shall not meet what was meant for this one.
            self._connection.close()

    def _wait(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            seconds = REPEAT_SECONDS
            with self._running:
                if time.monotonic() >= self._until:
                    self._was_cancelled = True
                    self._cancel()

    def _cancel(self) -> None:
        try:
            self._watched.cancel_safe(timeout=CANCEL_SECONDS)
        except PostgresqlError as error:
            logger.warning("A statement that takes too long cannot be cancelled: %s", error)


_WATCHES: dict[str, type[_Watch]] = {"sqlite": _OnSqlite, "postgresql": _OnPostgresql}
