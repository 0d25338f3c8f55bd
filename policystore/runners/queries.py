"""Reads job runs, and coverage: which policy each known workflow has, and whether its last job got it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import connection
from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, Lower
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policies.search import search_words
from policystore.policy_language.scopes import Scope
from policystore.runners.models import DOWNGRADED, Enforcement, JobRun, Verification
from policystore.web.pagination import Page, decode_cursor, encode_cursor, newest_first, query_string

WORKFLOWS_PER_PAGE = 50
RUNS_OF_USE = 1000

_COVERED = """
    r.name AS repository, r.key AS repository_key, w.file_name, l.run_id, l.correlation_id,
    l.policy_id AS served_id, l.policy_version AS served_version,
    p.id AS policy_id, p.name, p.version, p.egress_policy,
    COALESCE(aw.scope_key, ar.scope_key, ao.scope_key, ac.scope_key) AS scope_key
"""
# Every known workflow, the policy that its next job gets (by precedence, at the cluster of its last job) and what its
# last job got. Each row costs a few look-ups in unique indexes.
_WORKFLOWS = """
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
COVERAGE_FILTERS: dict[str, tuple[str, str]] = {
    "": ("Workflows", "1 = 1"),
    "block": ("Block", "p.egress_policy = 'block'"),
    "audit": ("Audit", "p.egress_policy = 'audit'"),
    "no-policy": ("No policy", "p.id IS NULL"),
    "outdated": ("Not fetched since the last change", _OUTDATED),
    "never-fetched": ("Never fetched", "l.workflow_id IS NULL"),
}


def known_job_run(owner_key: str, repository: str, correlation_id: str, run_id: str | None = None) -> JobRun | None:
    """Return the latest job run with this correlation id in the last JOB_RUN_OPEN_HOURS, or None.

    Runners ask without a key, so a correlation id of another repository or organization counts as unknown.
    """
    oldest = timezone.now() - timedelta(hours=settings.JOB_RUN_OPEN_HOURS)
    rows = JobRun.objects.filter(
        organization__key=owner_key,
        repository__iexact=repository,
        correlation_id=correlation_id,
        first_seen_at__gte=oldest,
    ).select_related("organization")
    if run_id is not None:
        rows = rows.filter(run_id=run_id)
    return rows.order_by("-id").first() if correlation_id else None


RUN_TAGS: dict[str, tuple[str, Q]] = {
    "": ("All", ~Q(verified_by="")),
    "blocked": ("Blocked call", Q(blocked_calls__gt=0)),
    "new": ("New endpoint", Q(new_endpoints__gt=0)),
    "no-policy": ("No policy", Q(policy_id__isnull=True) & ~Q(verified_by="")),
    "break-glass": ("Break glass", Q(break_glass=True)),
    "downgraded": ("Downgraded", DOWNGRADED),
    "enforcing": ("Enforcing", Q(egress_policy="block", calls__gt=0) & ~DOWNGRADED & ~Q(verified_by="")),
    "unverified": ("Unverified", Q(verified_by="")),
}


def run_page(
    organization: Organization,
    *,
    repository: str = "",
    workflow: str = "",
    search: str = "",
    tag: str = "",
    before: str = "",
    size: int = 50,
) -> Page[JobRun]:
    """Return a page of an organization's job runs, or those of one of its repositories or workflows.

    Each word of `search` must occur in the repository, workflow, job or policy, or be the run id or correlation id.
    """
    rows = JobRun.objects.filter(RUN_TAGS.get(tag, RUN_TAGS[""])[1], organization=organization)
    if repository:
        rows = rows.alias(folded=Lower("repository")).filter(folded=repository.lower())
    # No index finds the runs of this tag, which are most runs where policies block.
    among = rows if workflow or search else None
    if tag == "enforcing":
        among = JobRun.objects.filter(organization=organization)
    if workflow:
        rows = rows.filter(workflow=workflow)
    for word in search_words(search):
        rows = rows.filter(
            Q(repository__icontains=word)
            | Q(workflow__icontains=word)
            | Q(job__icontains=word)
            | Q(policy_name__icontains=word)
            | Q(run_id=word)
            | Q(correlation_id=word)
        )
    return newest_first(rows, size=size, before=before, among=among)


def github_url(organization: Organization, run: JobRun) -> str:
    """The address of the workflow run on GitHub; empty if the runner did not send a run id."""
    if not run.run_id:
        return ""
    repository, run_id = (quote(name, safe="") for name in (run.repository, run.run_id))
    return f"{settings.GITHUB_URL}/{organization.login}/{repository}/actions/runs/{run_id}"


def last_calls(key_id: int, count: int = 5) -> QuerySet[JobRun]:
    """Return the job runs that last fetched with this key, newest first."""
    return JobRun.objects.filter(api_key_id=key_id).order_by("-id")[:count]


def last_cargowall_jobs(organization: Organization, count: int = 5) -> QuerySet[JobRun]:
    """Return the jobs of CargoWall among the organization's last RUNS_OF_USE job runs, newest first."""
    latest = JobRun.objects.filter(organization=organization).order_by("-pk").values("pk")[:RUNS_OF_USE]
    jobs = JobRun.objects.filter(pk__in=latest, correlation_id__startswith="cargowall-", verified_by=Verification.TOKEN)
    return jobs.order_by("-pk")[:count]


@dataclass(frozen=True, slots=True)
class PolicyUse:
    """Among the latest job runs (`runs`): those that got a policy, their blocked calls, and those downgraded."""

    runs: int
    served: int
    blocked: int
    downgraded: int


def use_of_policy(organization: Organization, policy_id: int) -> PolicyUse:
    """Return how the organization's last RUNS_OF_USE verified job runs used the policy."""
    latest = JobRun.objects.filter(RUN_TAGS[""][1], organization=organization).order_by("-pk").values("pk")
    served = Q(policy_id=policy_id)
    counted = JobRun.objects.filter(pk__in=latest[:RUNS_OF_USE]).aggregate(
        runs=Count("pk"),
        served=Count("pk", filter=served),
        blocked=Coalesce(Sum("blocked_calls", filter=served), 0),
        downgraded=Count("pk", filter=served & RUN_TAGS["downgraded"][1]),
    )
    return PolicyUse(**counted)


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
    def query(self) -> str:
        """The workflow as the query string of other pages."""
        return query_string({"repository": self.repository, "workflow": self.workflow})

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


def coverage_page(
    organization: Organization, *, search: str = "", show: str = "", after: str = "", size: int = WORKFLOWS_PER_PAGE
) -> Page[Covered]:
    """Return one page, by keyset; an unknown `show` means all workflows, an unreadable `after` the first page."""
    condition, parameters = _filter(search, show)
    if cursor := decode_cursor(after, (str, str)):
        repository, workflow = cursor
        condition += " AND (r.key > %s OR (r.key = %s AND w.file_name > %s))"
        parameters += [repository, repository, workflow]
    page = f"AND {condition} ORDER BY r.key, w.file_name LIMIT {size + 1}"
    rows = _select(f"SELECT {_COVERED} {_WORKFLOWS} {page}", [*_base(organization), *parameters])
    shown = rows[:size]
    runs = _last_runs(organization, shown)
    return Page(
        rows=[_covered(row, runs.get((row["repository_key"], row["run_id"], row["correlation_id"]))) for row in shown],
        next_cursor=_cursor(shown[-1]) if len(rows) > size else "",
    )


def coverage_counts(organization: Organization, search: str = "") -> dict[str, int]:
    """Return the number of matching workflows of each filter."""
    matching, parameters = _filter(search, "")
    columns = ", ".join(f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)" for _, condition in COVERAGE_FILTERS.values())
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} {_WORKFLOWS} AND {matching}", [*_base(organization), *parameters])
        numbers = cursor.fetchone()
    return {show: int(number or 0) for show, number in zip(COVERAGE_FILTERS, numbers, strict=True)}


def _base(organization: Organization) -> list[Any]:
    return [organization.key] * 4 + [organization.pk]


def _filter(search: str, show: str) -> tuple[str, list[Any]]:
    conditions, parameters = [f"({COVERAGE_FILTERS.get(show, COVERAGE_FILTERS[''])[1]})"], []
    for word in search_words(search):
        # Databases lower-case different characters, so the word and the file's name are lower-cased by the same one.
        conditions.append(
            "LOWER(r.key || '/' || w.file_name || ' ' || COALESCE(p.name_key, '')) LIKE LOWER(%s) ESCAPE '\\'"
        )
        parameters.append(f"%{connection.ops.prep_for_like_query(word)}%")
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
