"""Which policy applies to a job: the ladder that the fetch uses too, and an answer for callers without a key."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection

from policystore.documents.scopes import candidate_keys

# Four look-ups in the unique index of scope keys, most specific first; written out because a list parameter would be
# planned anew at each request. Takes the four keys.
LADDER = """
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

_STATEMENT = f"""
SELECT o.id, p.id, p.name, p.version, p.egress_policy, a.scope_key
FROM inventory_organization o
LEFT JOIN ({LADDER}) a ON a.organization_id = o.id
LEFT JOIN policies_policy p ON p.id = a.policy_id
WHERE o.key = %s
"""  # noqa: S608 nothing but constants


@dataclass(frozen=True, slots=True)
class Resolved:
    """The policy that applies to a job, and the scope that it comes from; ids are None where nothing applies."""

    organization_id: int | None
    policy_id: int | None
    policy_name: str
    policy_version: int | None
    egress_policy: str
    scope_key: str


NOTHING = Resolved(None, None, "", None, "", "")


def resolve(owner: str, repository: str, workflow: str, cluster: str = "") -> Resolved:
    """Workflow before repository before organization before cluster, in one statement. Raises DatabaseError."""
    with connection.cursor() as cursor:
        cursor.execute(_STATEMENT, (*candidate_keys(owner, repository, workflow, cluster), owner.lower()))
        row = cursor.fetchone()
    if row is None:
        return NOTHING
    organization_id, policy_id, name, version, egress_policy, scope_key = row
    return Resolved(organization_id, policy_id, name or "", version, egress_policy or "", scope_key or "")
