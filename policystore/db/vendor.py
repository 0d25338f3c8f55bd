"""Chooses between the two databases that a store can have, SQLite and PostgreSQL, and reads their error codes."""

from __future__ import annotations

import sqlite3
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def is_postgresql() -> bool:
    """Return True if the store's database is PostgreSQL."""
    return connection.vendor == "postgresql"


def choose(*, postgresql: T, sqlite: T) -> T:
    """Return the argument that is named after the store's database."""
    return postgresql if is_postgresql() else sqlite


# Errors of a database that answers but takes no writes.
_SQLITE = {
    sqlite3.SQLITE_FULL: "its disk is full",
    sqlite3.SQLITE_READONLY: "its file cannot be written",
    sqlite3.SQLITE_IOERR: "its disk refuses",
    sqlite3.SQLITE_CANTOPEN: "its files cannot be made",
}
# SQLSTATE codes.
_POSTGRESQL = {"53100": "its disk is full", "25006": "it is read-only", "58030": "its disk refuses"}


def why_no_writes(error: BaseException) -> str | None:
    """Return why the database takes no writes, such as "its disk is full"; None for every other error."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return _POSTGRESQL.get(state)
    code = getattr(cause, "sqlite_errorcode", None)
    # An extended code has its primary one in the low byte.
    return None if code is None else _SQLITE.get(code & 0xFF)
