"""Keeps what policies are compiled with (endpoint sets and never-allow hosts) still while a policy is compiled.

Every action takes its locks in one order: the organization's rules, then policies by id, then the history. Whoever
reads the rules to compile a policy shares the first; whoever changes them has it alone, and finds every policy that was
compiled before. On SQLite each transaction has the whole database to itself from its start.
"""

from __future__ import annotations

from typing import Final

from django.db import connection

# PostgreSQL's advisory locks are numbered by two integers: this one is ours, the other the organization.
_RULES: Final = 1_347_376_211
_LARGEST: Final = 2**31 - 1


def keep_rules(organization_id: int) -> None:
    """Let nobody change the organization's rules until the transaction ends. Taken before any policy is locked."""
    _lock("pg_advisory_xact_lock_shared", organization_id)


def change_rules(organization_id: int) -> None:
    """Let nobody compile a policy of the organization until the transaction ends. Taken before any policy is locked,
    and before `keep_rules` where a transaction needs both."""
    _lock("pg_advisory_xact_lock", organization_id)


def _lock(function: str, organization_id: int) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s, %s)", [_RULES, organization_id % _LARGEST])
