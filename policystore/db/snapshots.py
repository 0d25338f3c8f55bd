"""Consistent reads: several statements that all see the database as of one point in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from policystore.db import vendor


@contextmanager
def snapshot() -> Iterator[None]:
    """Read without blocking writers, as of one point in time. In a transaction, its own view counts."""
    if connection.in_atomic_block:
        yield
        return
    with vendor.choose(postgresql=_postgresql, sqlite=_sqlite)():
        yield


@contextmanager
def _sqlite() -> Iterator[None]:
    # Django's own transactions begin by taking the only write lock.
    _execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        _execute("ROLLBACK")


@contextmanager
def _postgresql() -> Iterator[None]:
    with transaction.atomic():
        _execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
