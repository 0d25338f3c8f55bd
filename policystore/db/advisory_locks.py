"""Locks that transactions take on something of an organization that is no row.

On SQLite there is nothing to take: each transaction has the whole database to itself from its start.
"""

from __future__ import annotations

from typing import Final

from django.db import connection

# PostgreSQL's advisory locks are numbered by two integers: what is locked, and the organization.
_LARGEST: Final = 2**31 - 1


def share(number: int, organization_id: int) -> None:
    """Let nobody have this lock of the organization alone until the transaction ends."""
    _lock("pg_advisory_xact_lock_shared", number, organization_id)


def have_alone(number: int, organization_id: int) -> None:
    """Let nobody else have or share this lock of the organization until the transaction ends."""
    _lock("pg_advisory_xact_lock", number, organization_id)


def _lock(function: str, number: int, organization_id: int) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s, %s)", [number, organization_id % _LARGEST])
