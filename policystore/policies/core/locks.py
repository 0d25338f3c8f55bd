"""Keeps what policies are compiled with (endpoint sets and never-allow hosts) still while a policy is compiled.

Every action takes its locks in one order: the change request that it decides, the organization's rules, its
attachments, policies by id, then the history. An action that requests a change holds some of these already when it
looks for open requests, so it skips those that are locked.

An action that compiles a policy shares the lock on the rules; one that changes them takes it exclusively, and so finds
every policy that was compiled before.
"""

from __future__ import annotations

from policystore.db import transactions
from policystore.db.transactions import Lock


def keep_rules(organization_id: int) -> None:
    """Let nobody change the organization's rules until the transaction ends. Taken before any policy is locked."""
    transactions.lock_shared(Lock.RULES, organization_id)


def change_rules(organization_id: int) -> None:
    """Let nobody compile a policy of the organization until the transaction ends. Taken before any policy is locked,
    and before `keep_rules` where a transaction needs both."""
    transactions.lock_exclusive(Lock.RULES, organization_id)


def change_attachments(organization_id: int) -> None:
    """Let no other transaction attach or replace policies of the organization until this one ends.

    Without it a scope could pass to a policy that the transaction has not locked, between looking up the scope's
    policy and locking it. Taken after `keep_rules` and before any policy is locked.
    """
    transactions.lock_exclusive(Lock.ATTACHMENTS, organization_id)
