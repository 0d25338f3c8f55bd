"""Keeps what policies are compiled with (endpoint sets and never-allow hosts) still while a policy is compiled.

Every action takes its locks in one order: the organization's rules, then policies by id, then the history. Whoever
reads the rules to compile a policy shares the first; whoever changes them has it alone, and finds every policy that was
compiled before.
"""

from __future__ import annotations

from typing import Final

from policystore import locks

# Policy Store's own among the numbers of locks.
_RULES: Final = 1_347_376_211


def keep_rules(organization_id: int) -> None:
    """Let nobody change the organization's rules until the transaction ends. Taken before any policy is locked."""
    locks.share(_RULES, organization_id)


def change_rules(organization_id: int) -> None:
    """Let nobody compile a policy of the organization until the transaction ends. Taken before any policy is locked,
    and before `keep_rules` where a transaction needs both."""
    locks.have_alone(_RULES, organization_id)
