"""Advisory locks on a part of an organization that is not a row, held until the transaction ends.

On SQLite they do nothing: each transaction has the whole database to itself from its start.
"""

from __future__ import annotations

from typing import Final

from django.db import connection

# PostgreSQL's advisory locks are numbered by two integers: what is locked, and the organization.
_LARGEST: Final = 2**31 - 1


def lock_shared(number: int, organization_id: int) -> None:
    """Take this lock of the organization in shared mode: others can share it, but not hold it exclusively."""
    _lock("pg_advisory_xact_lock_shared", number, organization_id)


def lock_exclusive(number: int, organization_id: int) -> None:
    """Take this lock of the organization exclusively."""
    _lock("pg_advisory_xact_lock", number, organization_id)


def _lock(function: str, number: int, organization_id: int) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s, %s)", [number, organization_id % _LARGEST])
