"""Limits the time that database statements take.

`timeout` limits the statements of a page, so that a slow page keeps no runner waiting that the same process is to
answer. Only the time of the statements counts, not the time to ask GitHub or to render a page. On PostgreSQL another
thread cancels the statement; a session's statement_timeout would reach others behind PgBouncer.

`run_with_timeout` reads in a thread of its own, for probes that must return even if the database or the network hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from sqlite3 import SQLITE_INTERRUPT
from typing import Any, TypeVar

from django.db import OperationalError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import Error as PostgresqlError

from policystore.db import vendor

logger = logging.getLogger(__name__)

QUERY_CANCELED = "57014"
# How often SQLite checks the clock, in instructions of its virtual machine: some ten thousand times a second.
STEPS = 10_000
# A cancellation that arrives before its statement has no effect, so it is repeated.
REPEAT_SECONDS = 0.25
CANCEL_SECONDS = 1.0
# To PostgreSQL a limit of 0 means none.
MIN_SECONDS = 0.001
Execute = Callable[[str, Any, bool, dict[str, Any]], Any]
Result = TypeVar("Result")

# One read at a time: if the database hangs, probes do not add a thread each.
_reading = threading.Lock()


class OutOfTime(OperationalError):
    """There is no time left for another statement."""


class TooSlow(Exception):
    """`run_with_timeout` got no answer in time."""


def is_out_of_time(error: BaseException | None) -> bool:
    """Return True for the error of a statement that was cancelled, or not started, for lack of time."""
    cause = error.__cause__ if error else None
    code = getattr(cause, "sqlite_errorcode", None)
    return (
        isinstance(error, OutOfTime) or getattr(cause, "sqlstate", None) == QUERY_CANCELED or code == SQLITE_INTERRUPT
    )


@contextmanager
def timeout(seconds: float) -> Iterator[None]:
    """Let this thread's statements take this many seconds together.

    After that they raise errors for which `is_out_of_time` returns True. Transactions can still be rolled back.
    """
    watch = _watch_type()(connection, seconds)
    try:
        with connection.execute_wrapper(watch):
            yield
    finally:
        watch.end()


def run_with_timeout(seconds: float, read: Callable[[], Result]) -> Result:
    """Return or raise what `read` does; it runs in a thread with its own connection. Raises TooSlow.

    The time that another read takes counts, too. A read that hangs is left running; until it ends, further ones raise
    TooSlow.
    """
    until = time.monotonic() + seconds
    if not _reading.acquire(timeout=seconds):
        raise TooSlow
    result: Future[Result] = Future()
    try:
        threading.Thread(target=_read, args=(read, until, result), name="timed-read", daemon=True).start()
    except BaseException:
        _reading.release()
        raise
    try:
        return result.result(timeout=max(until - time.monotonic(), 0))
    except TimeoutError as error:
        raise TooSlow from error


def _read(read: Callable[[], Result], until: float, result: Future[Result]) -> None:
    try:
        with _watch_type().server_limit(max(until - time.monotonic(), MIN_SECONDS)):
            value = read()
    except BaseException as error:
        result.set_exception(error)
    else:
        result.set_result(value)
    finally:
        connection.close()
        _reading.release()


class _Watch:
    """Measures the statements of one connection, as a Django execute wrapper."""

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

    @staticmethod
    def server_limit(seconds: float) -> AbstractContextManager[None]:
        """Let the database itself end what takes longer within the block."""
        raise NotImplementedError


class _SqliteWatch(_Watch):
    """SQLite checks the clock itself, also while it finds rows that are fetched later."""

    _watched: Any = None

    def begin(self, until: float) -> None:
        self._watched = self._connection.connection
        self._watched.set_progress_handler(lambda: time.monotonic() >= until, STEPS)

    def end(self) -> None:
        if self._watched is not None and self._watched is self._connection.connection:
            self._watched.set_progress_handler(None, 0)

    @staticmethod
    @contextmanager
    def server_limit(seconds: float) -> Iterator[None]:
        # Without a transaction, which would take the only write lock.
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        yield


class _PostgresqlWatch(_Watch):
    """A second thread waits, and cancels the statement that runs too long."""

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
            # Read here: the thread itself would get a connection of its own.
            self._watched, self._until = self._connection.connection, until

    def pause(self) -> None:
        with self._running:
            self._until = float("inf")

    def end(self) -> None:
        self._ended.set()
        if self._was_cancelled and not self._connection.in_atomic_block:
            # The cancellation must not reach the first statement of the next request.
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

    @staticmethod
    @contextmanager
    def server_limit(seconds: float) -> Iterator[None]:
        # Local to the transaction: behind PgBouncer a session's setting would reach others.
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(int(seconds * 1000))])
            yield


def _watch_type() -> type[_Watch]:
    return vendor.choose(postgresql=_PostgresqlWatch, sqlite=_SqliteWatch)
