"""Coverage: which policy each known workflow has, and whether its last job got it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Q

from policystore.inventory.models import Organization
from policystore.policies.search import search_words
from policystore.policy_language.scopes import Scope
from policystore.runners.models import Enforcement, JobRun
from policystore.web.pagination import Page, decode_cursor, encode_cursor

PAGE_SIZE = 50

# Every known workflow, the policy that its next job gets (by precedence, at the cluster of its last job) and what its
# last job got. Each row costs a few look-ups in unique indexes.
_WORKFLOWS = """
SELECT r.name AS repository, r.key AS repository_key, w.file_name, l.run_id, l.correlation_id,
    l.policy_id AS served_id, l.policy_version AS served_version,
    p.id AS policy_id, p.name, p.version, p.egress_policy,
    COALESCE(aw.scope_key, ar.scope_key, ao.scope_key, ac.scope_key) AS scope_key
FROM inventory_repository r
JOIN inventory_workflow w ON w.repository_id = r.id
LEFT JOIN runners_lastfetch l ON l.workflow_id = w.id
LEFT JOIN policies_attachment aw ON aw.scope_key = 'workflow:' || %s || '/' || r.key || '/' || w.file_name
LEFT JOIN policies_attachment ar ON ar.scope_key = 'repository:' || %s || '/' || r.key
LEFT JOIN policies_attachment ao ON ao.scope_key = 'organization:' || %s
LEFT JOIN policies_attachment ac ON ac.scope_key = 'cluster:' || %s || '/' || l.cluster
LEFT JOIN policies_policy p ON p.id = COALESCE(aw.policy_id, ar.policy_id, ao.policy_id, ac.policy_id)
WHERE r.organization_id = %s
"""

_OUTDATED = (
    "l.workflow_id IS NOT NULL AND (COALESCE(l.policy_id, 0) <> COALESCE(p.id, 0)"
    " OR (p.id IS NOT NULL AND COALESCE(l.policy_version, 0) <> p.version))"
)
# The page's filters: a label, and a condition on the rows above.
FILTERS: dict[str, tuple[str, str]] = {
    "": ("Workflows", "1 = 1"),
    "block": ("Block", "p.egress_policy = 'block'"),
    "audit": ("Audit", "p.egress_policy = 'audit'"),
    "no-policy": ("No policy", "p.id IS NULL"),
    "outdated": ("Not fetched since the last change", _OUTDATED),
    "never-fetched": ("Never fetched", "l.workflow_id IS NULL"),
}


@dataclass(frozen=True, slots=True)
class Covered:
    """A workflow, the policy that its next job gets, and what its last job got; None or empty if there is none."""

    repository: str
    workflow: str
    policy_id: int | None
    policy_name: str
    policy_version: int | None
    mode: str
    scope: Scope | None
    fetched_at: datetime | None
    served_id: int | None
    served_version: int | None
    last_run: JobRun | None

    @property
    def is_outdated(self) -> bool:
        """True if the next job gets a different policy or version than the last one did."""
        if self.fetched_at is None:
            return False
        return (self.served_id, self.served_version) != (self.policy_id, self.policy_version)

    @property
    def enforcement(self) -> Enforcement:
        """The enforcement of the last job."""
        return self.last_run.enforcement if self.last_run else Enforcement.NEVER_FETCHED


def page(organization: Organization, *, search: str = "", show: str = "", after: str = "") -> Page[Covered]:
    """Return one page, by keyset; an unknown `show` means all workflows, an unreadable `after` the first page."""
    condition, parameters = _filter(search, show)
    if cursor := decode_cursor(after, (str, str)):
        repository, workflow = cursor
        condition += " AND (r.key > %s OR (r.key = %s AND w.file_name > %s))"
        parameters += [repository, repository, workflow]
    statement = f"{_WORKFLOWS} AND {condition} ORDER BY r.key, w.file_name LIMIT {PAGE_SIZE + 1}"
    rows = _select(statement, [*_base(organization), *parameters])
    shown = rows[:PAGE_SIZE]
    runs = _last_runs(organization, shown)
    return Page(
        rows=[_covered(row, runs.get((row["repository_key"], row["run_id"], row["correlation_id"]))) for row in shown],
        next_cursor=_cursor(shown[-1]) if len(rows) > PAGE_SIZE else "",
    )


def counts(organization: Organization) -> dict[str, int]:
    """Return the number of workflows of each filter."""
    columns = ", ".join(f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)" for _, condition in FILTERS.values())
    begin, end = _WORKFLOWS.index("SELECT") + len("SELECT"), _WORKFLOWS.index("FROM inventory_repository")
    statement = f"{_WORKFLOWS[:begin]} {columns} {_WORKFLOWS[end:]}"
    with connection.cursor() as cursor:
        cursor.execute(statement, _base(organization))
        numbers = cursor.fetchone()
    return {show: int(number or 0) for show, number in zip(FILTERS, numbers, strict=True)}


def _base(organization: Organization) -> list[Any]:
    return [organization.key] * 4 + [organization.pk]


def _filter(search: str, show: str) -> tuple[str, list[Any]]:
    conditions, parameters = [f"({FILTERS.get(show, FILTERS[''])[1]})"], []
    for word in search_words(search):
        pattern = "".join(f"\\{character}" if character in "\\%_" else character for character in word)
        # Databases lower-case different characters, so the word and the file's name are lower-cased by the same one.
        conditions.append(
            "LOWER(r.key || '/' || w.file_name || ' ' || COALESCE(p.name_key, '')) LIKE LOWER(%s) ESCAPE '\\'"
        )
        parameters.append(f"%{pattern}%")
    return " AND ".join(conditions), parameters


def _select(statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _last_runs(organization: Organization, rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], JobRun]:
    """The runs by what identifies them: lower-case repository, run id, correlation id."""
    conditions = Q(pk__in=[])
    for row in rows:
        if row["correlation_id"] is not None:
            conditions |= Q(run_id=row["run_id"], correlation_id=row["correlation_id"])
    runs = JobRun.objects.filter(conditions, organization=organization, fetched_at__isnull=False)
    return {(run.repository.lower(), run.run_id, run.correlation_id): run for run in runs}


def _covered(row: dict[str, Any], last_run: JobRun | None) -> Covered:
    return Covered(
        repository=row["repository"],
        workflow=row["file_name"],
        policy_id=row["policy_id"],
        policy_name=row["name"] or "",
        policy_version=row["version"],
        mode=row["egress_policy"] or "",
        scope=Scope.from_key(row["scope_key"]) if row["scope_key"] else None,
        fetched_at=last_run.fetched_at if last_run else None,
        served_id=row["served_id"],
        served_version=row["served_version"],
        last_run=last_run,
    )


def _cursor(row: dict[str, Any]) -> str:
    return encode_cursor((row["repository_key"], row["file_name"]))
