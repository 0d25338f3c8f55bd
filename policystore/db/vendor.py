"""Chooses between the two databases that a store can have: SQLite and PostgreSQL."""

from __future__ import annotations

from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def is_postgresql() -> bool:
    """Return True if the store's database is PostgreSQL."""
    return connection.vendor == "postgresql"


def choose(*, postgresql: T, sqlite: T) -> T:
    """Return the argument that is named after the store's database."""
    return postgresql if is_postgresql() else sqlite
