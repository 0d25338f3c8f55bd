"""Advisory locks on a part of an organization that is not a row, held until the transaction ends.

On SQLite they do nothing: each transaction has the whole database to itself from its start.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Final

from django.db import connection

from policystore.db import vendor

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
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s, %s)", [lock.value, organization_id % _LARGEST])
