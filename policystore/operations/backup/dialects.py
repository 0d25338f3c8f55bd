"""How each database counts up primary keys."""

from __future__ import annotations

from typing import Any, Protocol

from django.db import connection


class Dialect(Protocol):
    """One kind of database."""

    def last_key(self, table: str, column: str) -> int:
        """The last value that was counted up to; 0 before the first."""

    def set_last_key(self, table: str, column: str, value: int) -> None:
        """Go on counting from here."""


class Sqlite:
    """SQLite in WAL mode."""

    def last_key(self, table: str, column: str) -> int:
        return int(_execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = %s", table))

    def set_last_key(self, table: str, column: str, value: int) -> None:
        _execute("DELETE FROM sqlite_sequence WHERE name = %s", table)
        _execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", table, value)


class Postgresql:
    """PostgreSQL."""

    def last_key(self, table: str, column: str) -> int:
        sequence = _execute("SELECT pg_get_serial_sequence(%s, %s)", connection.ops.quote_name(table), column)
        # The name comes quoted from the database itself.
        return int(_execute(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}"))  # noqa: S608

    def set_last_key(self, table: str, column: str, value: int) -> None:
        quoted = connection.ops.quote_name(table)
        _execute("SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)", quoted, column, max(value, 1), value > 0)


_DIALECTS: dict[str, Dialect] = {"sqlite": Sqlite(), "postgresql": Postgresql()}


def current() -> Dialect:
    """The one of the store's database."""
    return _DIALECTS[connection.vendor]


def _execute(statement: str, *parameters: str | int) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None
