"""Which policy applies to a job: the one place that says in SQL what is served, to the fetch and to all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from policystore.documents.scopes import candidate_keys

# Four look-ups in the unique index of scope keys, most specific first; written out because a list parameter would be
# planned anew at each request. Takes the four keys.
_LADDER = """
    SELECT policy_id, organization_id, scope_key FROM (
        SELECT 1 AS place, policy_id, organization_id, scope_key FROM policies_attachment WHERE scope_key = %s
        UNION ALL
        SELECT 2 AS place, policy_id, organization_id, scope_key FROM policies_attachment WHERE scope_key = %s
        UNION ALL
        SELECT 3 AS place, policy_id, organization_id, scope_key FROM policies_attachment WHERE scope_key = %s
        UNION ALL
        SELECT 4 AS place, policy_id, organization_id, scope_key FROM policies_attachment WHERE scope_key = %s
    ) ladder ORDER BY place LIMIT 1
"""
# What is served, for a statement whose FROM has the organization as `o`: the columns that `Served.read` takes, in its
# order, and where they come from. `parameters` fills the latter's placeholders.
COLUMNS = "p.id, p.name, p.version, p.egress_policy, p.reply, a.scope_key"
JOINS = f"""
LEFT JOIN ({_LADDER}) a ON a.organization_id = o.id
LEFT JOIN policies_policy p ON p.id = a.policy_id
"""

_STATEMENT = f"SELECT {COLUMNS} FROM inventory_organization o {JOINS} WHERE o.key = %s"  # noqa: S608 constants alone

ScopeKeys = tuple[str, str, str, str]


def parameters(scope_keys: ScopeKeys) -> tuple[Any, ...]:
    """The values for the placeholders of COLUMNS and JOINS, in their order."""
    return scope_keys


@dataclass(frozen=True, slots=True)
class Served:
    """The policy that applies to a job, what is served of it, and the scope that it comes from.

    Ids are None and texts empty where nothing applies.
    """

    policy_id: int | None
    policy_name: str
    policy_version: int | None
    egress_policy: str
    reply: str
    scope_key: str

    @classmethod
    def read(cls, columns: Sequence[Any]) -> Served:
        """What a row says in the columns of COLUMNS."""
        policy_id, name, version, egress_policy, reply, scope_key = columns
        if policy_id is None:
            return NOTHING
        return cls(policy_id, name, version, egress_policy, reply, scope_key)


NOTHING = Served(None, "", None, "", "", "")


def resolve(owner: str, repository: str, workflow: str, cluster: str = "") -> Served:
    """Workflow before repository before organization before cluster, in one statement. Raises DatabaseError."""
    keys = candidate_keys(owner, repository, workflow, cluster)
    with connection.cursor() as cursor:
        cursor.execute(_STATEMENT, (*parameters(keys), owner.lower()))
        row = cursor.fetchone()
    return NOTHING if row is None else Served.read(row)
