"""Advisory locks, consistent reads, and long work in short transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum, unique
from typing import Final

from django.db import connection, transaction

from policystore.db import vendor

# Advisory locks are on a part of an organization that is not a row, and held until the transaction ends. On SQLite they
# do nothing: each transaction has the whole database to itself from its start.

# PostgreSQL's advisory locks are numbered by two integers: what is locked, and the organization.
_LARGEST: Final = 2**31 - 1
# No organization has this id. It stands for all of them.
WHOLE_STORE: Final = 0


@unique
class Lock(IntEnum):
    """The number of each lock that Policy Store uses: two uses with one number would wait for each other."""

    RULES = 1_347_376_211
    ATTACHMENTS = 1_347_376_212
    WORKFLOW_RUN = 1_347_376_213
    SUPPRESSION = 1_347_376_214
    PARTITIONS = 1_347_376_215


def lock_shared(lock: Lock, organization_id: int) -> None:
    """Take this lock of the organization in shared mode: others can share it, but not hold it exclusively."""
    _lock("pg_advisory_xact_lock_shared", lock, organization_id)


def lock_exclusive(lock: Lock, organization_id: int) -> None:
    """Take this lock of the organization exclusively."""
    _lock("pg_advisory_xact_lock", lock, organization_id)


def _lock(function: str, lock: Lock, organization_id: int) -> None:
    if vendor.is_postgresql():
        _execute(f"SELECT {function}(%s, %s)", lock.value, organization_id % _LARGEST)


@contextmanager
def snapshot() -> Iterator[None]:
    """Read without blocking writers, as of one point in time. In a transaction, its own view counts."""
    if connection.in_atomic_block:
        yield
        return
    with vendor.choose(postgresql=_postgresql_snapshot, sqlite=_sqlite_snapshot)():
        yield


@contextmanager
def _sqlite_snapshot() -> Iterator[None]:
    # Django's own transactions begin by taking the only write lock.
    _execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        _execute("ROLLBACK")


@contextmanager
def _postgresql_snapshot() -> Iterator[None]:
    with transaction.atomic():
        _execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _execute(statement: str, *parameters: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


# Between two turns the worker does its other jobs.
TURN_SECONDS = 1.0
# SQLite has one writer at a time: a pause after each batch lets the others write.
PAUSE_PART = 0.25


def repeat_in_batches(step: Callable[[], int], *, size: int, seconds: float = TURN_SECONDS) -> bool:
    """Call `step`, which deletes or updates up to `size` rows and returns how many, until it finds fewer.

    Each call is a short transaction of its own, so that no writer waits long. Stops after
    so many seconds; returns True if rows may be left.
    """
    until = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if step() < size:
            return False
        ended = time.monotonic()
        if ended >= until:
            return True
        time.sleep((ended - began) * PAUSE_PART)
