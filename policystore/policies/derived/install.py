"""Makes the index and the counters, and fills them from what is stored."""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import atomic

from policystore.policies.derived import on

ROWS_AT_ONCE = 1000


def install(connection: BaseDatabaseWrapper) -> None:
    """Make and fill all of it, while the previous release goes on writing. Call it outside a transaction."""
    dialect = on(connection)
    with atomic(using=connection.alias):
        for statement in dialect.structure:
            _execute(connection, statement)
    for table, statement in dialect.fills.items():
        last = _number(connection, f"SELECT coalesce(max(id), 0) FROM {table}")  # noqa: S608 names of ours alone
        for start in range(0, last, ROWS_AT_ONCE):
            _execute(connection, statement, (start, min(start + ROWS_AT_ONCE, last)))
    for statement in dialect.afterwards:
        _execute(connection, statement)


def mend(connection: BaseDatabaseWrapper) -> None:
    """Make it again where a migration has dropped some of it."""
    if not on(connection).is_whole(lambda statement: _number(connection, statement)):
        install(connection)


def _execute(connection: BaseDatabaseWrapper, statement: str, parameters: tuple[int, ...] | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def _number(connection: BaseDatabaseWrapper, statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0])
