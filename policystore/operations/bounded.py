"""Asks the database within a time limit that holds whatever the database or the network does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from django.db import connection, transaction

Result = TypeVar("Result")

# To PostgreSQL a limit of 0 means none.
LEAST_SECONDS = 0.001
# One look at a time: where the database hangs, not one thread more for each probe.
_turn = threading.Lock()


class TooSlow(Exception):
    """There was no answer in time."""


def within(seconds: float, look: Callable[[], Result]) -> Result:
    """What `look` returns or raises; it reads on a connection of its own. Raises TooSlow when the time is over.

    The time that another look takes counts, too. A look that hangs is left behind; until it has ended, further ones
    are too slow.
    """
    until = time.monotonic() + seconds
    if not _turn.acquire(timeout=seconds):
        raise TooSlow
    result: Future[Result] = Future()
    try:
        threading.Thread(target=_look, args=(look, until, result), name="bounded-look", daemon=True).start()
    except BaseException:
        _turn.release()
        raise
    try:
        return result.result(timeout=max(until - time.monotonic(), 0))
    except TimeoutError as error:
        raise TooSlow from error


def _look(look: Callable[[], Result], until: float, result: Future[Result]) -> None:
    try:
        with _limits(max(until - time.monotonic(), LEAST_SECONDS)):
            found = look()
    except BaseException as error:
        result.set_exception(error)
    else:
        result.set_result(found)
    finally:
        connection.close()
        _turn.release()


def _limits(seconds: float) -> Any:
    return _LIMITS.get(connection.vendor, lambda _: nullcontext())(seconds)


@contextmanager
def _postgresql(seconds: float) -> Iterator[None]:
    # Local to the transaction: behind PgBouncer a session's setting would reach others.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(int(seconds * 1000))])
        yield


@contextmanager
def _sqlite(seconds: float) -> Iterator[None]:
    # Without a transaction, which would take the only write lock.
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
    yield


_LIMITS = {"postgresql": _postgresql, "sqlite": _sqlite}
